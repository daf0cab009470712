/**
 * Who has written, and reads what a consumer makes of it, wants to find it there: a cache that is cleared, an index, a page. The
 * position behind the commit says when. The public module
 * `LogicalStream.ReadYourWrites`.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Lsn from "../Lsn.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { LsnTimeout } from "./AwaitLsn.ts"

export { LsnTimeout } from "./AwaitLsn.ts"

/** What was written, and the position behind it. */
export interface Written<out A> {
  readonly value: A
  /** All of it lies before this: what to give to `awaitLsn`, also in another process (`Lsn.format`). */
  readonly lsn: Lsn.Lsn
}

/** What waits: a `LogicalStream`. */
export interface Follower {
  readonly awaitLsn: (lsn: Lsn.Lsn, within: Duration.Input) => Effect.Effect<void, LsnTimeout>
}

/** Of a page of WAL, the header of the first in a segment and of any other: no record ends in one. */
const pageHeaders = [40n, 24n]

/**
 * Where the last record ends. The position of the next one lies behind the header of a page that is not written yet where the last
 * has filled its own: nobody gets there before something else is written.
 *
 * Source: XLogBytePosToRecPtr and XLogBytePosToEndRecPtr in src/backend/access/transam/xlog.c
 */
export const endOfRecord = (next: Lsn.Lsn, pageSize: bigint): Lsn.Lsn => {
  const within = next % pageSize
  return pageHeaders.includes(within) ? (Lsn.make(next - within) ?? next) : next
}

const inTransaction = new InvalidOption({
  option: "transaction",
  problem: "is open: what is not committed comes to nobody, so write within, and ask behind it"
})

/**
 * Writes, and tells the position behind the commit. `write` is a transaction, or several, of the program's
 * {@link SqlClient.SqlClient} of PostgreSQL; of an open one it cannot be a part.
 *
 * With `synchronous_commit` off, too: it is where the next record is inserted, and not what is on the disk.
 *
 * @example
 * const { lsn } = yield* LogicalStream.ReadYourWrites.written(sql`UPDATE orders SET total = 10 WHERE id = 1`)
 * yield* orders.awaitLsn(lsn, "5 seconds")
 */
export const written = <A, E, R>(
  write: Effect.Effect<A, E, R>
): Effect.Effect<Written<A>, E | SqlError | InvalidOption, R | SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const client = yield* SqlClient.SqlClient
    if (Option.isSome(yield* Effect.serviceOption(client.transactionService))) return yield* inTransaction
    const value = yield* write
    const [row] = yield* client`SELECT pg_current_wal_insert_lsn()::text, current_setting('wal_block_size')`.values
    const [next, pageSize] = row as readonly [string, string]
    return { value, lsn: endOfRecord(Lsn.fromString(next)!, BigInt(pageSize)) }
  })

/**
 * Writes, then waits until the stream has handled it; fails with {@link LsnTimeout} when it has not in time, though it is written
 * all the same.
 *
 * @example
 * yield* LogicalStream.ReadYourWrites.handled(orders, "5 seconds")(sql`UPDATE orders SET total = 10 WHERE id = 1`)
 */
export const handled =
  (stream: Follower, within: Duration.Input) =>
  <A, E, R>(
    write: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | SqlError | InvalidOption | LsnTimeout, R | SqlClient.SqlClient> =>
    Effect.flatMap(written(write), ({ lsn, value }) => Effect.as(stream.awaitLsn(lsn, within), value))
