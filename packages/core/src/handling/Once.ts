/**
 * Exactly once into the consumer's own database: what is done with changes and how far that is are one transaction, so no crash
 * comes between the two. What is delivered again is told by the position, and left out.
 */

import type { NonEmptyReadonlyArray } from "effect/Array"
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import type { Begin } from "../change/Change.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import { defaultMaxBytes, wholeTransactions } from "../change/Transaction.ts"
import { inTransaction, mayPass } from "../checkpoint/SqlDialect.ts"
import type * as Lsn from "../Lsn.ts"
import { InvalidOption, TransactionTooLarge } from "../ReplicationError.ts"
import { defaultReconnect } from "../replication/Reconnect.ts"
import type { SnapshotCompleted } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Consume, Handler, Session } from "../stream/Handler.ts"
import { bare, endOf } from "./ChangeKey.ts"
import { type PositionError, PositionTable, type SqlTable } from "./PositionTable.ts"

/** Where the position is kept, and what becomes of a transaction that fails. */
export interface OnceOptions extends SqlTable {
  /**
   * When to try the whole transaction again, while what it failed of may pass: the database is down, or it met another
   * transaction. Left out: within 250 ms, doubled with jitter up to 10 s, for ever. When it ends, the stream fails.
   */
  readonly outage?: Schedule.Schedule<unknown> | undefined
}

/** Whole units, and the end of the last. */
interface Whole<C> {
  readonly changes: ReadonlyArray<C>
  readonly end: NextLsn
}

/** Puts units together that came in several reads: a transaction at the target has whole ones. */
class Units<C> {
  private open: Array<C> = []
  private bytes = 0
  private readonly maxBytes: number

  constructor(maxBytes: number = defaultMaxBytes) {
    this.maxBytes = maxBytes
  }

  take(changes: ReadonlyArray<C>, bytes: number): Whole<C> | InvalidOption | TransactionTooLarge | undefined {
    let [end, length]: [NextLsn | undefined, number] = [undefined, 0]
    for (let index = 0; index < changes.length; index++) {
      const done = endOf(changes[index])
      if (done !== undefined) [end, length] = [done, index + 1]
      else if (bare(changes[index])._tag === "StreamStart") {
        return new InvalidOption({ option: "inProgress", problem: "delivers what is not committed: gather it" })
      }
    }
    const begun = this.open
    this.open = length === 0 ? begun : []
    for (let index = length; index < changes.length; index++) this.open.push(changes[index]!)
    this.bytes = length === 0 ? this.bytes + bytes : bytes
    if (end !== undefined) {
      const head = length === changes.length ? changes : changes.slice(0, length)
      return { changes: begun.length === 0 ? head : [...begun, ...head], end }
    }
    return this.bytes > this.maxBytes ? this.tooLarge() : undefined
  }

  private tooLarge(): TransactionTooLarge | undefined {
    const first = bare(this.open[0]) as Begin | { readonly _tag: "Insert"; readonly begin?: Begin }
    const begin = first._tag === "Begin" ? first : first.begin
    const { bytes, maxBytes } = this
    if (begin === undefined) return undefined
    return new TransactionTooLarge({ xid: begin.xid, commitLsn: begin.commitLsn, bytes, maxBytes })
  }
}

/** Those of units that end behind this position. Ends only grow. */
const behind = <C>(changes: ReadonlyArray<C>, position: Lsn.Lsn): ReadonlyArray<C> => {
  for (let index = changes.length - 1; index >= 0; index--) {
    const end = endOf(changes[index])
    if (end !== undefined && end.lsn <= position) return changes.slice(index + 1)
  }
  return changes
}

const unfit = (plugin: OutputPlugin): InvalidOption | undefined => {
  const problem = "does not tell where every unit ends: format 2 does"
  if (plugin.tells.endAhead) return new InvalidOption({ option: "formatVersion", problem })
  return Option.getOrUndefined(Result.getFailure(wholeTransactions(plugin)))
}

type Handle<C, E, R> = (changes: NonEmptyReadonlyArray<C>) => Effect.Effect<unknown, E, R>

type Failure<E> = E | PositionError | SqlError

const isPassing = (error: unknown): boolean => isSqlError(error) && mayPass(error)

/** One session's transactions. */
class Transactions<C, E, R> {
  private copied = 0
  private readonly client: SqlClient.SqlClient
  private readonly table: PositionTable
  private readonly owner: string
  private readonly handle: Handle<C, E, R>

  constructor(client: SqlClient.SqlClient, table: PositionTable, owner: string, handle: Handle<C, E, R>) {
    this.client = client
    this.table = table
    this.owner = owner
    this.handle = handle
  }

  private run(changes: ReadonlyArray<C>): Effect.Effect<unknown, E, R> {
    return isReadonlyArrayNonEmpty(changes) ? this.handle(changes) : Effect.void
  }

  /** Units, without those that are done: also where their COMMIT had no answer. */
  store({ changes, end }: Whole<C>): Effect.Effect<NextLsn, Failure<E>, R> {
    return Effect.gen({ self: this }, function* () {
      const { endLsn } = yield* this.table.hold(this.owner)
      if (endLsn >= end.lsn) return end
      yield* this.run(behind(changes, endLsn))
      yield* this.table.advance(end.lsn, 0)
      return end
    }).pipe(inTransaction(this.client))
  }

  /** What a read of a first copy brought. Its end is where the stream begins. */
  copy(changes: ReadonlyArray<C>): Effect.Effect<void, Failure<E>, R> {
    const copied = ++this.copied
    const last = bare(changes[changes.length - 1]) as SnapshotCompleted | { readonly _tag: "SnapshotRow" }
    return Effect.gen({ self: this }, function* () {
      const held = yield* this.table.hold(this.owner)
      if (held.copied >= copied) return
      yield* this.run(changes)
      const endLsn = last._tag === "SnapshotCompleted" ? last.snapshot.consistentPoint : held.endLsn
      yield* this.table.advance(endLsn, copied)
    }).pipe(inTransaction(this.client))
  }
}

/** Tried again while the session lasts. `undefined` where that was over first: what was not done comes again. */
const persevering = <A, E, R>(
  session: Session,
  outage: Schedule.Schedule<unknown>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A | undefined, E, R> =>
  effect.pipe(
    Effect.tapError((error) =>
      isPassing(error) ? Effect.logWarning("a transaction of the consumer's database is tried again") : Effect.void
    ),
    Effect.retry({ schedule: outage, while: (error) => isPassing(error) && !session.isOver() }),
    Effect.catchIf(
      (error) => isPassing(error) && session.isOver(),
      () => Effect.undefined
    )
  )

/**
 * Many changes at a time, exactly once: those of whole transactions, as many as a read brought. The function runs in a
 * transaction of the program's {@link SqlClient.SqlClient}, of PostgreSQL, SQLite, MySQL or MariaDB, and what it does through that
 * client is committed together with the position, or not at all. Nothing else need be said.
 *
 * The stream starts at that position, checked against server and slot before anything comes: another cluster, a database that was
 * restored from a backup, a slot that somebody else has moved on fail by name (`SystemMismatch`, `SlotAheadOfCheckpoint`).
 * `checkpoint` and `storeIdleFlush` are its, so leave them out. A transaction beyond the stream's `memory.maxTransactionBytes`
 * fails with `TransactionTooLarge`.
 *
 * Rows of a first copy come as often as it takes: empty what is there at `SnapshotStarted`, and store by key.
 *
 * @example
 * withLogicalStream(options, Handler.once({ table: "replicant_positions", createTable: "ifMissing" }, (changes) =>
 *   storeAll(changes)))
 */
export const once = <C, E = never, R = never>(
  options: OnceOptions,
  handle: (changes: NonEmptyReadonlyArray<NoInfer<C>>) => Effect.Effect<unknown, E, R>
): Handler<C, Failure<E>, R | SqlClient.SqlClient> => {
  const { outage = defaultReconnect } = options
  const tableOf = (slot: string) =>
    Effect.map(SqlClient.SqlClient, (client) => ({ client, table: new PositionTable(client, options, slot) }))
  return {
    unfit,
    position: (slot) => Effect.flatMap(tableOf(slot), ({ table }) => Effect.andThen(table.open, table.load)),
    make: Effect.fnUntraced(function* (session): Effect.fn.Return<
      Consume<C, Failure<E>, R>,
      Failure<E>,
      SqlClient.SqlClient
    > {
      const { client, table } = yield* tableOf(session.slot)
      const { system } = session
      if (system === undefined) yield* table.open
      const owner = yield* persevering(session, outage, table.claim(system))
      if (owner === undefined) return () => Effect.void
      const transactions = new Transactions(client, table, owner, handle)
      const units = new Units<C>(session.maxTransactionBytes)
      const store = (whole: Whole<C>) =>
        Effect.flatMap(persevering(session, outage, transactions.store(whole)), (end) =>
          end === undefined ? Effect.void : session.acknowledgeThrough(end)
        )
      return ({ bytes, changes }): Effect.Effect<void, Failure<E> | SnapshotError, R> =>
        Effect.suspend(() => {
          if (session.isOver()) return Effect.void
          if (system === undefined) return persevering(session, outage, transactions.copy(changes))
          const whole = units.take(changes, bytes)
          if (whole === undefined) return Effect.void
          return "_tag" in whole ? Effect.fail(whole) : store(whole)
        })
    })
  }
}
