/**
 * The whole of a terminal: pictures that replace each other, and keys. What was there before is there again however it ends: with the
 * scope, by a signal, by a defect, or by a second signal that ends the process where it stands.
 *
 * Each picture is one write, over the last and without clearing that first: nothing flickers.
 * Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
 */
import * as NodeTerminal from "@effect/platform-node/NodeTerminal"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Size, UserInput } from "effect/Terminal"
import { Output, type OutputError } from "./StandardOutput.ts"

/** The other screen of the terminal, without a cursor; and back. */
const enter = "\u001b[?1049h\u001b[?25l"
const leave = "\u001b[?25h\u001b[?1049l"

/** Terminals that know it show what comes in between at once; others pass over it. */
const beginUpdate = "\u001b[?2026h"
const endUpdate = "\u001b[?2026l"

const home = "\u001b[H"
const clearRight = "\u001b[K"
const clearBelow = "\u001b[J"

/**
 * The text that draws lines, none of them wider than the terminal, over whatever is there.
 *
 * @example
 * pictureText(["a"]) // => "\u001b[?2026h\u001b[Ha\u001b[K\u001b[J\u001b[?2026l"
 */
export const pictureText = (lines: ReadonlyArray<string>): string =>
  `${beginUpdate}${home}${lines.map((line) => `${line}${clearRight}`).join("\r\n")}${clearBelow}${endUpdate}`

export interface Screen {
  readonly draw: (lines: ReadonlyArray<string>) => Effect.Effect<void, OutputError>
  readonly size: Effect.Effect<Size>
  /** Each new size, beginning with the present one. */
  readonly sizes: Stream.Stream<Size>
  /** Names of keys as they are pressed: `a`, `up`, `return`. Ctrl-C is none, but the signal that it always is. */
  readonly keys: Stream.Stream<string>
  readonly hasKeys: boolean
}

const isCtrlC = ({ key }: UserInput): boolean => key.ctrl && key.name === "c"

/** What a terminal without a size is taken for. */
const usual: Size = { columns: 80, rows: 24 }

const orUsual = ({ columns, rows }: Size): Size => ({
  columns: columns || usual.columns,
  rows: rows || usual.rows
})

const keysOf = (terminal: Effect.Success<ReturnType<typeof NodeTerminal.make>>): Stream.Stream<string> =>
  Stream.unwrap(Effect.map(terminal.readInput, Stream.fromQueue)).pipe(
    Stream.tap((input) => (isCtrlC(input) ? Effect.sync(() => process.kill(process.pid, "SIGINT")) : Effect.void)),
    Stream.filter((input) => !isCtrlC(input)),
    Stream.map(({ key }) => key.name)
  )

/** Takes the terminal until the scope ends. */
export const open: Effect.Effect<Screen, OutputError, Scope.Scope> = Effect.gen(function* () {
  const output = yield* Output
  const terminal = yield* NodeTerminal.make(isCtrlC)
  const hasKeys = process.stdin.isTTY === true
  // Where the process is ended outright no finalizer runs; a terminal takes what is written at once.
  const restore = () => void process.stdout.write(leave)
  yield* Effect.acquireRelease(
    Effect.sync(() => process.once("exit", restore)),
    () =>
      Effect.andThen(
        Effect.sync(() => process.off("exit", restore)),
        Effect.ignore(output.write(leave))
      )
  )
  yield* output.write(enter)
  let drawn: string | undefined
  return {
    draw: (lines) => {
      const picture = pictureText(lines)
      if (picture === drawn) return Effect.void
      drawn = picture
      return output.write(picture)
    },
    size: Effect.map(Effect.all({ columns: terminal.columns, rows: terminal.rows }), orUsual),
    sizes: Stream.map(Stream.unwrap(Effect.map(terminal.size, Stream.fromQueue)), orUsual),
    keys: hasKeys ? keysOf(terminal) : Stream.never,
    hasKeys
  }
})
