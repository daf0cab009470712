/**
 * The last line of a terminal, rewritten in place, and everything else above it. Where standard error is no terminal
 * there is no line to rewrite: then a status is an ordinary line, and whoever shows it does so less often.
 *
 * It writes at once and keeps nothing: standard error is for people, and losing a status is no loss.
 */
import * as Context from "effect/Context"
import { plainText } from "./PlainText.ts"

/** What a live line needs of a stream. */
export interface ErrorStream {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  readonly write: (text: string) => unknown
}

const clear = "\r\u001b[K"

export class LiveLine {
  readonly isTerminal: boolean
  private readonly stream: ErrorStream
  private shown: string | undefined = undefined

  constructor(stream: ErrorStream) {
    this.stream = stream
    this.isTerminal = stream.isTTY === true && process.env.TERM !== "dumb"
  }

  /** Shows a status: in place on a terminal, as a line elsewhere. */
  show(status: string): void {
    const text = plainText(status)
    if (!this.isTerminal) {
      this.stream.write(`${text}\n`)
      return
    }
    // One column is left free: a full line would wrap, and could not be cleared.
    this.shown = text.slice(0, Math.max(0, (this.stream.columns ?? 80) - 1))
    this.stream.write(`${clear}${this.shown}`)
  }

  /** Takes the status away. */
  hide(): void {
    if (this.shown !== undefined) this.stream.write(clear)
    this.shown = undefined
  }

  /** A whole line, above the status. */
  writeLine(line: string): void {
    this.stream.write(this.shown === undefined ? `${line}\n` : `${clear}${line}\n${this.shown}`)
  }

  /** Makes room for text that another stream is about to write to the same terminal. {@link redraw} it afterwards. */
  makeRoom(): void {
    if (this.shown !== undefined) this.stream.write(clear)
  }

  redraw(): void {
    if (this.shown !== undefined) this.stream.write(this.shown)
  }
}

const standardError = (): LiveLine => {
  // Nobody reads our complaints any more: no reason to stop the work.
  process.stderr.on("error", () => undefined)
  return new LiveLine(process.stderr)
}

/** Standard error, unless a test says otherwise. */
export const Standard: Context.Reference<LiveLine> = Context.Reference("@replicant/node/cli/LiveLine", {
  defaultValue: standardError
})
