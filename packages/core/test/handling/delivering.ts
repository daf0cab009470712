/** Transactions made by hand, given to a handler as one connection brings them, and what it acknowledges of them. */
import * as Effect from "effect/Effect"
import type { Begin, Change, Commit, Insert, Row } from "../../src/change/Change.ts"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import type { Handler, Session } from "../../src/stream/Handler.ts"
import { session } from "../support/taking.ts"
import * as shop from "../table/shop.ts"

export const items = shop.relation("public", "items", ["id", "at"], ["id"])

/** Transactions, one after the other, each of a run of its own. */
export class Transactions {
  private readonly run = new Run()
  private next = 1n

  /** One of these changes. */
  of(...changes: ReadonlyArray<(begin: Begin, ordinal: number) => Change>): ReadonlyArray<Change> {
    const at = Lsn.make(this.next * 0x100n)!
    this.next++
    const begin: Begin = { _tag: "Begin", xid: Number(this.next), commitLsn: at, commitTime: PgTimestamp.make(0) }
    const endLsn = Lsn.make(at + 0x30n)!
    const nextLsn = NextLsn.deliver(endLsn, this.run)
    const commit: Commit = { _tag: "Commit", begin, commitLsn: at, endLsn, nextLsn }
    return [begin, ...changes.map((change, ordinal) => change(begin, ordinal)), commit]
  }
}

export const item =
  (id: number, at = 0) =>
  (begin: Begin, ordinal: number): Insert => ({ ...shop.insert(items, { id, at }), begin, ordinal })

export const moved =
  (from: number, to: number, at = 0) =>
  (begin: Begin, ordinal: number): Change => ({
    ...shop.update(items, { id: to, at }, [], { _tag: "Key", row: { id: from } }),
    begin,
    ordinal
  })

export const rowOf = (change: { readonly _tag: string }): Row => (change as Insert).row

/** A handler made for a connection that ends with the scope: `give` takes a read; what it acknowledged is by `lsn`. */
export const connect = Effect.fnUntraced(function* <C, E, R>(
  handler: Handler<C, E, R>,
  more: Partial<Session<unknown>> = {}
) {
  const acknowledged: Array<NextLsn> = []
  const consume = yield* handler.make(session(acknowledged, more))
  return {
    acknowledged,
    give: (changes: ReadonlyArray<C>, bytes = 0) => consume({ changes: changes as never, bytes })
  }
})
