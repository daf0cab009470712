import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import type { NextLsn } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import type { Handler, Session } from "../../src/stream/Handler.ts"

/** A connection that notes what it is told. */
export const session = (acknowledged: Array<NextLsn>, more: Partial<Session<unknown>> = {}): Session<unknown> => ({
  slot: "orders",
  plugin: Pgoutput.make({ publications: ["orders"] }),
  system: { systemId: "7000000000000000001", timeline: 1, xLogPos: Lsn.zero, database: "shop", isInRecovery: false },
  maxTransactionBytes: undefined,
  isOver: () => false,
  fail: () => Effect.void,
  durable: Effect.sync(() => acknowledged.at(-1)?.lsn ?? Lsn.zero),
  acknowledge: (unit) => Effect.sync(() => void acknowledged.push(unit)),
  acknowledgeThrough: (unit) => Effect.sync(() => void acknowledged.push(unit)),
  ...more
})

/** A handler, made for one connection: takes a read, and gives what that acknowledged last. */
export const taking = Effect.fnUntraced(function* <C, E, R>(handler: Handler<C, E, R>) {
  const acknowledged: Array<NextLsn> = []
  const consume = yield* handler.make(session(acknowledged))
  return (...changes: NonEmptyReadonlyArray<C>) =>
    Effect.suspend(() => {
      const before = acknowledged.length
      return Effect.map(consume({ changes, bytes: 0 }), () => acknowledged.slice(before).at(-1))
    })
})
