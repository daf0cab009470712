/**
 * The tables of a stream with rows before it: what is published is compared with what is covered, when it begins to stream, as
 * soon as a change comes of a table that is not, and every 30 s. A table that joins, or is published otherwise, is read
 * beside the stream; one that leaves is told. Where nothing can be read, that is told, with what to do.
 *
 * What is covered is kept in `copying/CoveredTables.ts`; how tables are read is in `rereading/`.
 */
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import type { Change } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import type { CheckpointError } from "../checkpoint/CheckpointService.ts"
import { digest } from "../copying/CopyCheckpoint.ts"
import type { Comparison, CoveredTable, TableCoverage } from "../copying/CoveredTables.ts"
import { qualifiedName } from "../protocol/ReplicationCommand.ts"
import type { InvalidOption } from "../ReplicationError.ts"
import { type ControlState, request } from "../rereading/Control.ts"
import { pinSession } from "../server/Catalog.ts"
import { WalSender } from "../server/WalSender.ts"
import type { Handler } from "./Handler.ts"

/** What is to be known of the stream. */
export interface JoiningOptions {
  readonly coverage: TableCoverage
  /** What reads, or why nothing can. */
  readonly reading: ControlState | InvalidOption
  /** Ends once it streams: one that waits for its slot decides nothing. */
  readonly isStreaming: Effect.Effect<unknown>
}

/** Between two looks, where no change says that something is published otherwise. */
const lookEvery = "30 seconds"

/** Between two tries of a table that could not be read, in milliseconds: doubled from the first to the last. */
const firstRetry = 10_000
const lastRetry = 600_000

const prefix = "joined/"

/** The same while the table is published by the same: a request that an earlier process left is gone on with. */
const idOf = (table: CoveredTable): string =>
  `${prefix}${qualifiedName(table)}/${digest(JSON.stringify([table.entry, table.attached]))}`

const list = (tables: ReadonlyArray<CoveredTable>): string => tables.map(qualifiedName).join(", ")

const tellOf = (count: number, text: () => string): Effect.Effect<void> =>
  count === 0 ? Effect.void : Effect.logWarning(text())

/** What has changed, in words. */
const tell = ({ again, joined, left }: Comparison, consequence: string): Effect.Effect<void> =>
  Effect.all(
    [
      tellOf(
        left.length,
        () => `no longer published: ${list(left)}. What is stored of it stays; published again, it is read anew`
      ),
      tellOf(joined.length, () => `newly published: ${list(joined)}. ${consequence}`),
      tellOf(
        again.length,
        () => `published otherwise, or taken out and put in again meanwhile: ${list(again)}. ${consequence}`
      )
    ],
    { discard: true }
  )

const isRead = "Its rows are read beside the stream, from the first"

const isMissed = ({ message, remedy }: InvalidOption): string =>
  `Rows that it had before do not come, as the stream cannot be asked for them (${message}): ${remedy}; or copy anew`

/** Requested at a time: they are read one by one, and the list of them is written down after each chunk. */
const mostRequested = 8

/** Reads a table, as often as it takes. The stream goes on meanwhile, and is short of these rows: so that is told each time. */
const readTable = Effect.fnUntraced(function* (
  control: ControlState,
  coverage: TableCoverage,
  turns: Semaphore.Semaphore,
  table: CoveredTable
): Effect.fn.Return<void, CheckpointError> {
  const name = qualifiedName(table)
  let wait = firstRetry
  while (true) {
    const made = Effect.orDie(request(control, { table, id: idOf(table) }))
    const read = yield* turns.withPermits(1)(Effect.result(Effect.flatMap(made, (asked) => asked.await)))
    if (Result.isSuccess(read)) {
      yield* coverage.complete([table])
      return yield* Effect.logInfo(`${name}: all ${read.success.rows} rows have come`)
    }
    const { failure } = read
    if (failure._tag === "SnapshotCancelled") {
      yield* coverage.complete([table])
      return yield* Effect.logWarning(`${name}: rows that it had before do not come: ${failure.message}`)
    }
    yield* Effect.logError(
      `${name}: rows that it had before are missing, and are tried again in ${wait / 1000} s: ${failure.message}; ${failure.remedy}`
    )
    yield* Effect.sleep(wait)
    wait = Math.min(wait * 2, lastRetry)
  }
})

/** Reads those that are to be read, and none of those that are not any more. */
const readAll = Effect.fnUntraced(function* (
  control: ControlState,
  coverage: TableCoverage,
  turns: Semaphore.Semaphore,
  fibers: FiberMap.FiberMap<string, void, CheckpointError>
) {
  const wanted = new Map(coverage.unread.map((table) => [idOf(table), table]))
  for (const [id] of Array.from(fibers)) if (!wanted.has(id)) yield* FiberMap.remove(fibers, id)
  for (const { request: asked } of Array.from(control.jobs)) {
    if (asked.id.startsWith(prefix) && !wanted.has(asked.id)) yield* asked.cancel
  }
  for (const [id, table] of wanted) {
    yield* FiberMap.run(fibers, id, readTable(control, coverage, turns, table), { onlyIfMissing: true })
  }
})

/** The tables of a stream under way. */
export interface JoiningTables {
  /** Watches what is published. Fails when the store does. */
  readonly follow: Effect.Effect<never, CheckpointError, WalSender>
  /** A handler before which it is looked whose changes come. */
  readonly noticing: <E, R>(handler: Handler<Change, E, R>) => Handler<Change, E, R>
}

/** Of one run of a stream. */
export const joiningTables = ({ coverage, isStreaming, reading }: JoiningOptions): JoiningTables => {
  const look = Latch.makeUnsafe(true)
  /** Tables that changes came of, by OID, as long as nobody knows more of them. */
  const strangers = new Map<number, Relation>()
  /** Relations of tables that are covered, as the last look has it: what is known is not asked again for each row. */
  const familiar = new Set<Relation>()

  const published = Effect.scoped(
    Effect.gen(function* () {
      const session = yield* (yield* WalSender).openSession
      yield* pinSession(session)
      return yield* coverage.list(session)
    })
  )

  const follow = Effect.gen(function* () {
    const fibers = yield* FiberMap.make<string, void, CheckpointError>()
    const turns = Semaphore.makeUnsafe(mostRequested)
    let isSilent = false
    const looks = Effect.gen(function* () {
      while (true) {
        yield* Effect.raceFirst(look.await, Effect.sleep(lookEvery))
        look.closeUnsafe()
        yield* isStreaming
        const entries = yield* Effect.result(published)
        if (Result.isFailure(entries)) {
          const { failure } = entries
          if (!isSilent) yield* Effect.logWarning(`what is published cannot be listed: ${failure.message}`)
          isSilent = true
          continue
        }
        isSilent = false
        const comparison = yield* coverage.take(entries.success)
        familiar.clear()
        for (const [oid, relation] of strangers) if (coverage.has(relation)) strangers.delete(oid)
        if ("_tag" in reading) {
          yield* tell(comparison, isMissed(reading))
          yield* coverage.complete(coverage.unread)
        } else {
          yield* tell(comparison, isRead)
          yield* readAll(reading, coverage, turns, fibers)
        }
      }
    })
    return yield* Effect.raceFirst(looks, Effect.andThen(FiberMap.join(fibers), Effect.never))
  }).pipe(Effect.scoped)

  /** Whether these have one of a table that is not covered, and of which that is not known yet. */
  const notice = (changes: ReadonlyArray<Change>): void => {
    let last: Relation | undefined
    for (const change of changes) {
      if (change._tag !== "Insert" && change._tag !== "Update" && change._tag !== "Delete") continue
      const { relation } = change
      if (relation === last || familiar.has(relation)) continue
      last = relation
      if (coverage.has(relation)) {
        familiar.add(relation)
        continue
      }
      if (strangers.has(relation.oid)) continue
      strangers.set(relation.oid, relation)
      look.openUnsafe()
    }
  }

  return {
    follow,
    noticing: (handler) => ({
      unfit: handler.unfit,
      make: (session) =>
        Effect.map(handler.make(session), (consume) => (read) => {
          notice(read.changes)
          return consume(read)
        })
    })
  }
}
