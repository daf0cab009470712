/**
 * The last line of a terminal, or the last few, rewritten in place, and everything else above it. Where standard error is no terminal
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
  readonly rows?: number | undefined
  readonly write: (text: string) => unknown
}

const clear = "\r\u001b[K"

export class LiveLine {
  readonly isTerminal: boolean
  private readonly stream: ErrorStream
  private shown: string | undefined = undefined
  /** Lines of it above the one that the cursor is in. */
  private above = 0

  constructor(stream: ErrorStream) {
    this.stream = stream
    this.isTerminal = stream.isTTY === true && process.env.TERM !== "dumb"
  }

  /** Shows a status of one line or more: in place on a terminal, as ordinary lines elsewhere. */
  show(...status: ReadonlyArray<string>): void {
    const lines = status.map(plainText)
    if (!this.isTerminal) {
      this.stream.write(`${lines.join("\n")}\n`)
      return
    }
    const before = this.clear()
    const { columns = 80, rows = 24 } = this.stream
    // One column is left free: a full line would wrap, and could not be cleared. Nor could what has left the screen.
    const fitting = lines.slice(0, Math.max(1, rows - 1)).map((line) => line.slice(0, Math.max(0, columns - 1)))
    this.shown = fitting.join("\n")
    this.above = fitting.length - 1
    this.stream.write(`${before}${this.shown}`)
  }

  /** What takes the status off the screen, and leaves the cursor where it began. */
  private clear(): string {
    return `${clear}${`\u001b[A${clear}`.repeat(this.shown === undefined ? 0 : this.above)}`
  }

  /** Takes the status away. */
  hide(): void {
    if (this.shown !== undefined) this.stream.write(this.clear())
    this.shown = undefined
  }

  /** A whole line, above the status. */
  writeLine(line: string): void {
    this.stream.write(this.shown === undefined ? `${line}\n` : `${this.clear()}${line}\n${this.shown}`)
  }

  /** Makes room for text that another stream is about to write to the same terminal. {@link redraw} it afterwards. */
  makeRoom(): void {
    if (this.shown !== undefined) this.stream.write(this.clear())
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
