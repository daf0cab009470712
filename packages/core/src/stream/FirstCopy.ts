/**
 * The rows that are there, before the stream: attempts at a snapshot, one after the other, until one is whole; and what the
 * stream after it has to leave out. Docs: docs/snapshots.md.
 *
 * The slot is made when the last row has been handled, so that it stands for a whole copy. What fails before that begins
 * anew, or with a store for checkpoints goes on where it stood.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Change } from "../change/Change.ts"
import type { CheckpointError, CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { type AttemptOptions, type Attempts, attemptWhole, type SnapshotDone } from "../copying/Attempt.ts"
import { checkpointKey } from "../copying/CopyCheckpoint.ts"
import { CopyRetry } from "../copying/CopyRetry.ts"
import type { Deliver } from "../copying/CopyRun.ts"
import { TableCoverage } from "../copying/CoveredTables.ts"
import { rateLimitProblem } from "../copying/RateLimit.ts"
import { attemptResumable, findFilter } from "../copying/ResumableAttempt.ts"
import type { SeamFilter } from "../copying/SeamFilter.ts"
import * as Lsn from "../Lsn.ts"
import { InvalidOption } from "../ReplicationError.ts"
import { Final, isLoud, retrying, type Verdict } from "../replication/Reconnect.ts"
import type { WalSender } from "../server/WalSender.ts"
import { defaultPiecePages } from "../snapshot/CopyCommand.ts"
import type { TellProgress } from "../snapshot/CopyProgress.ts"
import type { SnapshotChange } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Handler, Reader, Session } from "./Handler.ts"
import type { CopyOptions, Options } from "./LogicalStreamOptions.ts"

/** A first copy, and where it keeps how far it is. */
export interface FirstCopy {
  readonly options: Options
  readonly store: CheckpointStore["Service"] | undefined
  /** What keeps which tables are covered, where there is a store and somebody who asks. */
  readonly coverage: TableCoverage | undefined
  readonly tellProgress: TellProgress
  /** Told that an attempt has failed and another will be made. */
  readonly onFailure: (error: SnapshotError, attempt: number) => Effect.Effect<void>
}

export const lockMillis = ({ lockTimeout = "10 seconds" }: CopyOptions = {}): number =>
  Math.ceil(Duration.toMillis(Duration.fromInputUnsafe(lockTimeout)))

const failOnOption = (option: string, problem: string) => Effect.fail(new InvalidOption({ option, problem }))

const validated = ({ coverage, options, tellProgress }: FirstCopy): Effect.Effect<AttemptOptions, InvalidOption> => {
  const { copy = {}, createSlot, failover, plugin, slot, snapshot } = options
  const { connections = 2, piecePages = defaultPiecePages, rateLimit } = copy
  if (createSlot !== undefined) return failOnOption("createSlot", "is the snapshot's to do: leave it out")
  if (!Number.isInteger(connections) || connections < 1) return failOnOption("connections", "is not a number from 1")
  if (!Number.isInteger(piecePages) || piecePages < 1) return failOnOption("piecePages", "is not a number from 1")
  if (!plugin.tells.copiedRows || plugin.tells.publications.length === 0) {
    return failOnOption("plugin", `a snapshot is of what publications publish, and ${plugin.name} has none to copy`)
  }
  const rateProblem = rateLimit === undefined ? undefined : rateLimitProblem(rateLimit)
  if (rateProblem !== undefined) return failOnOption("rateLimit", rateProblem)
  const purpose = snapshot === "only" ? "only" : "stream"
  return Effect.succeed({
    slot,
    purpose,
    plugin,
    failover,
    connections,
    lockTimeout: lockMillis(copy),
    piecePages,
    tellProgress,
    rateLimit,
    coverage,
    streaming: { timing: options.timing, memory: options.memory }
  })
}

const noAttempts = (): Attempts => ({ count: 0, hasDelivered: false, mayBeDone: false })

/** Nothing of a copy is acknowledged: its marks are, by the handler's ending them. */
const sessionOf = <E>({ memory, plugin, slot }: Options, fail: Session<E>["fail"]): Session<E> => ({
  slot,
  plugin,
  system: undefined,
  maxTransactionBytes: memory?.maxTransactionBytes,
  isOver: () => false,
  fail,
  durable: Effect.succeed(Lsn.zero),
  acknowledge: () => Effect.void,
  acknowledgeThrough: () => Effect.void
})

/** One attempt, whole or taken up again, with a handler of its own. */
const attempt = Effect.fnUntraced(function* <E, R>(
  copy: FirstCopy,
  attempts: Attempts,
  handler: Handler<SnapshotChange, E, R>
): Effect.fn.Return<SnapshotDone, SnapshotError | Final<E | SnapshotError>, R | WalSender | Scope.Scope> {
  const { options, store } = copy
  const valid = yield* validated(copy)
  const failed = yield* Deferred.make<never, Final<E | SnapshotError>>()
  const fail = (error: E) => Effect.asVoid(Deferred.fail(failed, new Final({ error })))
  const consume = yield* Effect.mapError(handler.make(sessionOf(options, fail)), (error) => new Final({ error }))
  const deliver: Deliver<E | SnapshotError, R> = (changes) => consume({ changes, bytes: 0 })
  // A snapshot by itself cannot go on: its tables would be of different times.
  const attempted =
    store === undefined || options.snapshot === "only"
      ? attemptWhole(valid, attempts, deliver)
      : attemptResumable({ ...valid, store }, attempts, deliver)
  const handled = Effect.catchTag(attempted, "HandlerFailed", ({ error }) => Effect.fail(new Final({ error })))
  return yield* Effect.raceFirst(handled, Deferred.await(failed))
})

/** Whether another attempt may mend it. */
export const copyVerdict = (retry: CopyRetry, error: SnapshotError): Verdict<SnapshotError> =>
  retry.next(error) ? { _tag: "Again", hasGotOn: false, attempt: retry.count } : { _tag: "GiveUp", error }

/** Attempts one after the other, until one is whole. */
export const runFirstCopy = <E, R>(
  copy: FirstCopy,
  handler: Handler<SnapshotChange, E, R>
): Effect.Effect<SnapshotDone, SnapshotError | E, R | WalSender> => {
  const attempts = noAttempts()
  const retry = new CopyRetry()
  const again = copy.store === undefined ? "the snapshot begins anew" : "the snapshot is taken up again"
  const scoped = Effect.scoped(attempt(copy, attempts, handler)) as Effect.Effect<
    SnapshotDone,
    SnapshotError | Final<E | SnapshotError>,
    R | WalSender
  >
  return retrying(scoped, {
    schedule: copy.options.reconnect as Parameters<typeof retrying<SnapshotDone, SnapshotError, E, R>>[1]["schedule"],
    decide: (error) => Effect.succeed(copyVerdict(retry, error)),
    onFailure: (error, attempt) => {
      const text = `${again} (${attempt}) after ${error._tag}: ${error.message}`
      return Effect.andThen(
        copy.onFailure(error, attempt),
        isLoud(attempt) ? Effect.logError(text) : Effect.logWarning(text)
      )
    }
  })
}

/** One attempt and no other where it fails: for who tries again by itself. */
export const tryFirstCopy = <E, R>(
  copy: FirstCopy,
  handler: Handler<SnapshotChange, E, R>
): Effect.Effect<SnapshotDone, SnapshotError | E, R | WalSender> =>
  Effect.catchTag(Effect.scoped(attempt(copy, noAttempts(), handler)), "Final", ({ error }) =>
    Effect.fail(error)
  ) as Effect.Effect<SnapshotDone, SnapshotError | E, R | WalSender>

/** What the stream has to leave out, where there was no snapshot to tell. */
export const doneBefore = ({ options, store }: FirstCopy): Effect.Effect<SnapshotDone, SnapshotError, WalSender> =>
  store === undefined || options.snapshot === undefined
    ? Effect.succeed({ completed: undefined, filter: undefined })
    : Effect.map(findFilter(store, options.slot), (filter) => ({ completed: undefined, filter }))

/** What the rows have told already, left out of the stream. */
export const seamReader = (filter: SeamFilter): Reader<Change, Change, never> => ({
  append: (changes, out) => {
    for (const change of changes) {
      const kept = filter.keep(change)
      if (kept !== undefined) out.push(kept)
    }
    return undefined
  }
})

/**
 * The store as what is requested sees it. One that a consumer brings may keep the copy's text alone, and give it whatever the
 * key: that is nothing of a request's, to be read, written over or removed.
 */
export const storeOfRequests = ({ options, store }: Pick<FirstCopy, "options" | "store">): FirstCopy["store"] => {
  if (store === undefined) return undefined
  /** Keys that were seen to be kept apart from the copy's: once is enough. */
  const apart = new Set<string>()
  const find = Effect.fnUntraced(function* (key: string) {
    const text = yield* store.load(key)
    if (Option.isNone(text) || apart.has(key)) return { text, isOfCopy: false }
    const copy = yield* store.load(checkpointKey(options.slot))
    const isOfCopy = Option.isSome(copy) && copy.value === text.value
    if (!isOfCopy) apart.add(key)
    return { text, isOfCopy }
  })
  const unlessOfCopy = (key: string, change: Effect.Effect<void, CheckpointError>) =>
    apart.has(key) ? change : Effect.flatMap(find(key), ({ isOfCopy }) => (isOfCopy ? Effect.void : change))
  return {
    load: (key) => Effect.map(find(key), ({ isOfCopy, text }) => (isOfCopy ? Option.none() : text)),
    save: (key, text) => unlessOfCopy(key, store.save(key, text)),
    remove: (key) => unlessOfCopy(key, store.remove(key))
  }
}

/** What is covered by a stream of these options. */
export const coverageOf = (copy: Pick<FirstCopy, "options" | "store">): TableCoverage | undefined => {
  const { copy: { whenJoined = "read" } = {}, plugin, slot, snapshot } = copy.options
  const store = storeOfRequests(copy)
  if (store === undefined || snapshot !== "initial" || whenJoined === "ignore") return undefined
  return new TableCoverage({ slot, publications: plugin.tells.publications, store })
}
