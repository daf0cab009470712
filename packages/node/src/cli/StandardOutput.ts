/**
 * Standard output with back-pressure and an answer: a write is done when the operating system has all of it, and on a
 * regular file when the disk has. So that what is acknowledged to the server afterwards is not lost with us.
 *
 * Pipes and terminals are Node's stream. Everything else is written by hand: for a file Node's `process.stdout` neither
 * writes on after a short write nor syncs, so a full disk would lose lines that look written.
 */
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

/** The reader has gone (`| head`): not a failure of ours, but nothing more can be said. */
export class OutputClosed extends Data.TaggedError("OutputClosed") {}

/** Standard output does not take what we write: a full disk, mostly. */
export class OutputFailed extends Data.TaggedError("OutputFailed")<{ readonly code: string }> {
  readonly remedy = "make room, or write elsewhere: what was not written is not acknowledged, and comes again"
  override get message(): string {
    return `cannot write to standard output (${this.code})`
  }
}

export type OutputError = OutputClosed | OutputFailed

/** Where the lines of a command go. */
export interface Output {
  /** Ends when the reader's side has the text. Interrupted, it is not known how much of it. */
  readonly write: (text: string) => Effect.Effect<void, OutputError>
  /** The same, but on a file it counts with the next `write` only: for what is to be safe together, or not at all. */
  readonly append: (text: string) => Effect.Effect<void, OutputError>
  readonly isTerminal: boolean
}

/** How a reader that has gone is told: by a pipe, by a socket, and by Node once either told it. */
const closedCodes = new Set(["EPIPE", "ECONNRESET", "ERR_STREAM_DESTROYED"])

const outputError = (cause: unknown): OutputError => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown error"
  return closedCodes.has(code) ? new OutputClosed() : new OutputFailed({ code })
}

/** A pipe, a socket or a terminal: Node tells when the system has taken a text. */
export const toStream = (stream: Net.Socket): Output => {
  // The callback below tells of errors; without a listener they would end the process.
  stream.on("error", () => undefined)
  const write: Output["write"] = (text) =>
    Effect.callback((resume) => {
      stream.write(text, (error) => resume(error ? Effect.fail(outputError(error)) : Effect.void))
    })
  return {
    write,
    append: write,
    isTerminal: "isTTY" in stream && stream.isTTY === true
  }
}

const attempt = <A>(run: (done: (error: Error | null, value: A) => void) => void): Effect.Effect<A, OutputError> =>
  // A write under way cannot be called back: it is waited for.
  Effect.uninterruptible(
    Effect.callback((resume) =>
      run((error, value) => resume(error ? Effect.fail(outputError(error)) : Effect.succeed(value)))
    )
  )

/** A file or a device by its descriptor. A regular file is synced with each `write`. */
export const toFile = (descriptor: number): Output => {
  const isRegular = Fs.fstatSync(descriptor).isFile()
  const sync = isRegular ? attempt<void>((done) => Fs.fdatasync(descriptor, (error) => done(error))) : Effect.void
  const append = Effect.fnUntraced(function* (text: string) {
    const bytes = Buffer.from(text)
    for (let written = 0; written < bytes.length; ) {
      written += yield* attempt<number>((done) =>
        Fs.write(descriptor, bytes, written, bytes.length - written, null, done)
      )
    }
  })
  return { write: (text) => Effect.andThen(append(text), sync), append, isTerminal: false }
}

const standardOutput = (): Output => (process.stdout instanceof Net.Socket ? toStream(process.stdout) : toFile(1))

/** The command's output: this process's standard output unless a test says otherwise. */
export const Output: Context.Reference<Output> = Context.Reference("@replicant/node/cli/Output", {
  defaultValue: standardOutput
})
