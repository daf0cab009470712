/**
 * The tables of a copy, at both servers: when it begins, what is published is compared with what is covered; while it streams,
 * it is looked now and then whether that still holds. What has to change is decided in one place, at the beginning: a copy
 * that is outdated begins an attempt anew, which goes on where it stood.
 */
import type { LogicalStream, Snapshot } from "@replicant/core"
import { PublishedEntries, type ReplicantConnection, WalSender } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { type CopyError, TableNotCopied, TargetNotEmpty } from "./CopyError.ts"
import * as CopyPosition from "./CopyPosition.ts"
import * as CoveredTables from "./CoveredTables.ts"
import { filledTables, tableKey } from "./TargetCatalog.ts"
import type { TargetSession } from "./TargetSession.ts"

/** What is published, but for what the copy keeps for itself. */
const published = (source: ReplicantConnection, publications: ReadonlyArray<string>) =>
  Effect.map(PublishedEntries.listEntries(source, publications), (entries) =>
    entries.filter((entry) => !CopyPosition.isPositionTable(entry))
  )

/** What decides what becomes of a table that joins. */
export interface CoverageOptions {
  readonly slot: string
  readonly publications: ReadonlyArray<string>
  readonly whenFilled: "truncate" | "fail"
  readonly rows: "copy" | "leave"
  /** The copy has just begun, and has looked at what its tables hold. */
  readonly isFirst: boolean
}

/** What is covered, and what is to be read beside the stream. */
export interface TableCoverage {
  readonly coverage: CoveredTables.Coverage
  readonly joined: ReadonlyArray<CoveredTables.CoveredTable>
}

const list = (keys: ReadonlyArray<string>): string => keys.join(", ")

/** Compares what is published with what is covered, says what has changed, and stores it. */
export const coverTables = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  target: TargetSession,
  position: Pick<CopyPosition.CopyPosition, "state">,
  options: CoverageOptions
): Effect.fn.Return<TableCoverage, CopyError> {
  const { isFirst, publications, rows, slot, whenFilled } = options
  const entries = yield* published(source, publications)
  const isCopying = position.state === "copying"
  const stored = yield* CoveredTables.load(target, slot)
  if (stored === undefined && !isCopying) {
    const coverage = CoveredTables.all(entries, "covered")
    yield* CoveredTables.store(target, slot, coverage)
    return { coverage, joined: [] }
  }
  const known = stored ?? new Map()
  const { coverage, foreign, joined, left } = isCopying
    ? CoveredTables.compareCopying(known, entries)
    : CoveredTables.compare(known, entries)
  if (left.length > 0) {
    yield* Effect.logWarning(
      `no longer published: ${list(left)}. What the target has of it stays as it is; published again, it is read anew`
    )
  }
  if (rows === "leave" && !isCopying) {
    const keys = joined.map(tableKey)
    if (keys.length > 0) {
      yield* Effect.logWarning(
        `newly published: ${list(keys)}. Changes only, as asked: rows from before are not copied`
      )
    }
    const taken = new Map(
      Array.from(coverage, ([key, table]) => [
        key,
        table.state === "left" ? table : { ...table, state: "covered" as const }
      ])
    )
    yield* CoveredTables.store(target, slot, taken)
    return { coverage: taken, joined: [] }
  }
  const filled = isFirst ? [] : yield* filledTables(target, foreign)
  if (filled.length > 0 && whenFilled === "fail") return yield* new TargetNotEmpty({ tables: filled })
  if (!isCopying) {
    const anew = joined.map(tableKey).filter((key) => !foreign.includes(key))
    if (foreign.length > 0)
      yield* Effect.logInfo(`newly published: ${list(foreign)}. Its rows are read beside the stream`)
    if (anew.length > 0) {
      yield* Effect.logWarning(
        `taken out and put in again, published otherwise, or not read to its end: ${list(anew)}. It is emptied at the target, and its rows are read anew beside the stream`
      )
    }
  }
  yield* CoveredTables.store(target, slot, coverage)
  return { coverage, joined: isCopying ? [] : joined }
})

type Requests = Pick<LogicalStream.LogicalStream<{ readonly snapshot: "never" } & LogicalStream.Options>, "request">

/** Between two looks at what is published, where no change says that it is another. */
const lookEvery = "30 seconds"

/** Between two tries of a table that could not be read for a reason that may pass. */
const retryAfter = "10 seconds"

const remedyOf = ({ remedy }: Snapshot.RequestError, table: string): string =>
  `${remedy}; or take ${table} out of the publication, and copy it by one of its own from another slot`

/** Whether it is. Over a connection of its own, and not for longer than it may take. */
export const outdated = (
  followed: CoveredTables.FollowedTables,
  publications: ReadonlyArray<string>
): Effect.Effect<boolean, never, WalSender> =>
  Effect.scoped(
    Effect.flatMap(WalSender, (sender) => Effect.flatMap(sender.connect, (source) => published(source, publications)))
  ).pipe(
    Effect.timeout("60 seconds"),
    Effect.map((entries) => CoveredTables.isOutdated(followed.coverage, entries)),
    Effect.catch((error) =>
      Effect.as(Effect.logWarning(`what is published cannot be listed: ${error._tag}: ${error.message}`), false)
    )
  )

/** Ends when what is published is no longer what is covered. */
export const watchTables = (
  followed: CoveredTables.FollowedTables,
  isOutdated: Effect.Effect<boolean, never, WalSender>,
  state: SubscriptionRef.SubscriptionRef<LogicalStream.StreamState>
): Effect.Effect<void, never, WalSender> =>
  Effect.gen(function* () {
    const look = Latch.makeUnsafe(true)
    followed.onStranger = () => look.openUnsafe()
    while (true) {
      yield* Effect.raceFirst(look.await, Effect.sleep(lookEvery))
      look.closeUnsafe()
      yield* SubscriptionRef.changes(state).pipe(
        Stream.filter(({ _tag }) => _tag === "Streaming"),
        Stream.runHead
      )
      if (yield* isOutdated) return
    }
  })

/**
 * Reads what has joined beside the stream, each as often as it takes; ends when all of it is at the target, or published no
 * more. What can never be read ends the copy: it would be short of these rows.
 */
export const readTables = (
  { request }: Requests,
  joined: ReadonlyArray<CoveredTables.CoveredTable>,
  followed: CoveredTables.FollowedTables,
  isOutdated: Effect.Effect<boolean, never, WalSender>
): Effect.Effect<void, TableNotCopied, WalSender> =>
  Effect.forEach(
    joined,
    Effect.fnUntraced(function* (joining): Effect.fn.Return<void, TableNotCopied, WalSender> {
      const { name, schema } = joining
      const table = tableKey(joining)
      while (true) {
        const read = yield* Effect.result(Effect.flatMap(request({ table: { schema, name } }), (made) => made.await))
        if (Result.isSuccess(read)) {
          yield* followed.untilCovered(table)
          return yield* Effect.logInfo(`${table}: its ${read.success.rows} rows are there`)
        }
        const { failure } = read
        if (!failure.isRetryable) {
          if (yield* isOutdated) return
          return yield* new TableNotCopied({ table, problem: failure.message, remedy: remedyOf(failure, table) })
        }
        yield* Effect.logError(`${table}: its rows are still to be read: ${failure.message}; ${failure.remedy}`)
        yield* Effect.sleep(retryAfter)
      }
    }),
    { discard: true }
  )
