/**
 * A program that appends numbered messages to a sink of files until there are so many, to be killed: it goes on from the sink's
 * mark, and says what it was told is durable. Arguments: the directory, how many.
 */
import { writeSync } from "node:fs"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Sink } from "@replicant/core/sink"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as FileSink from "../../src/sink/FileSink.ts"
import { messages, numberOf } from "./numbered.ts"

const [directory = "", count = "0"] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const sink = yield* Sink.Sink
  const writer = yield* sink.open()
  let next = Option.match(writer.mark, { onNone: () => 0, onSome: ({ id }) => numberOf(id) + 1 })
  writeSync(1, `begins at ${next}\n`)
  while (next < Number(count)) {
    const to = Math.min(next + 1 + (next % 23), Number(count))
    yield* writer.append(messages(next, to))
    writeSync(1, `${to - 1}\n`)
    next = to
  }
}).pipe(Effect.scoped, Effect.provide(FileSink.layer({ directory, segment: { bytes: 20_000 }, compression: "gzip" })))

NodeRuntime.runMain(program)
