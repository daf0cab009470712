/** A session of a sink in memory, as a connection has it. */
import * as Effect from "effect/Effect"
import type { Change } from "../../src/change/Change.ts"
import { nextLsn } from "../../src/change/Change.ts"
import type { NextLsn } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import { Sink } from "../../src/sink/Sink.ts"
import { handler, type Options } from "../../src/sink/SinkHandler.ts"
import type { MemoryEngine } from "../../src/sink/SinkMemory.ts"
import { connect } from "../handling/delivering.ts"

export const turns = Effect.forEach(Array.from({ length: 100 }), () => Effect.yieldNow, { discard: true })
export const lsns = (units: ReadonlyArray<NextLsn>) => units.map(({ lsn }) => lsn)
export const endOf = (changes: ReadonlyArray<Change>) => nextLsn(changes.at(-1)!)!.lsn
export const system = {
  systemId: "7",
  timeline: 1,
  xLogPos: Lsn.fromString("1/0")!,
  database: "shop",
  isInRecovery: false
}

/** A session of a sink, and the engine behind it. What the session failed with is in `failures`. */
export const sinking = Effect.fnUntraced(function* (
  engine: MemoryEngine,
  options: Options = {},
  more: object = { system }
) {
  const failures: Array<unknown> = []
  const fail = (error: unknown) => Effect.sync(() => void failures.push(error))
  const sink = engine.connect()
  const made = yield* Effect.provideService(connect(handler(options), { fail, ...more }), Sink, sink)
  const give = (changes: ReadonlyArray<Change>) => Effect.provideService(made.give(changes), Sink, sink)
  const keys = Effect.map(engine.messages, (messages) => messages.map(({ key }) => key))
  return { acknowledged: made.acknowledged, failures, give, keys }
})

export const keysOf = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `["${from + index}"]`)
