/**
 * Trying again: which failures of a stream, how often, after how long; and the one loop by which everything that tries again
 * does so.
 */
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Lsn from "../Lsn.ts"
import { type ReplicationError, ServerError, type Stage } from "../ReplicationError.ts"

/** First within 250 ms, then doubled up to 10 s, with jitter, for ever. Whatever the failures are of. */
export const defaultReconnect: Schedule.Schedule<unknown> = Schedule.min([
  Schedule.exponential("200 millis"),
  Schedule.spaced("10 seconds")
]).pipe(Schedule.jittered)

/** A connection that streamed this long, in milliseconds, has proved itself: the schedule begins anew. */
export const provenMillis = 30_000

/** Whether to connect again: as often as it takes, a few times at one position, or not at all. */
export type Retry = "always" | "limited" | "never"

/** How often one position may fail with what is retried to a limit. */
export const maxAttempts = 3

/** What no attempt mends, whatever the server was doing: what was asked for is wrong, or not allowed. */
const isLasting = (sqlState: string): boolean =>
  /^(28...|0A000|22023|3D000|42501|42601|42602|42704|55000)$/.test(sqlState)

/** Internal errors, and the machine's: files, damaged pages. */
const isInternal = (sqlState: string): boolean =>
  sqlState.startsWith("58") || sqlState === "XX000" || sqlState === "XX001"

/** Where such an error is about the server, and not about what we asked for: an unknown option is XX000 as well. */
const isOfServer = (stage: Stage): boolean => stage === "Connect" || stage === "IdentifySystem" || stage === "Query"

/**
 * How a failure is retried. What fails while the server decodes may be damage that passes, or a change that it can never
 * send: one try more may help, an endless loop does not.
 */
export const retryOf = (error: ReplicationError): Retry => {
  // The whole of `slotPolicy.inUseTimeout` was waited, which is when the pid is known.
  if (error._tag === "SlotInUse" && error.activePid !== undefined) return "never"
  if (error.isRetryable) return "always"
  if (error._tag !== "ServerError" || isLasting(error.sqlState)) return "never"
  if (error.stage === "Streaming" || error.sqlState === "08P01") return "limited"
  return isInternal(error.sqlState) && isOfServer(error.stage) ? "limited" : "never"
}

/** Whether a stream ended at a change that the server could not send. */
export const isStumble = (cause: Cause.Cause<ReplicationError>): boolean =>
  cause.reasons.some((reason) => reason._tag === "Fail" && retryOf(reason.error) === "limited")

/** After how many attempts at one position it is told loudly; then after twice as many each time. */
const loudAttempts = 3

/** Whether the n-th time is one to be told loudly: the third, the sixth, the twelfth, and so on. */
export const isLoud = (count: number): boolean => {
  const doublings = Math.log2(count / loudAttempts)
  return doublings >= 0 && Number.isInteger(doublings)
}

/** Counts the failures at one position. Only getting on begins the counts anew: no other failure does, nor time. */
export class Attempts {
  /** How many attempts at this position have failed. */
  count = 0
  private limited = 0
  private silent = 0
  private at: Lsn.Lsn = Lsn.zero

  /** Whether to try again after `error`, with everything before `done` finished. */
  next(error: ReplicationError, done: Lsn.Lsn): boolean {
    if (done !== this.at) {
      this.at = done
      this.count = 0
      this.limited = 0
      this.silent = 0
    }
    this.count++
    if (error._tag === "WalReceiverTimeout") this.silent++
    const retry = retryOf(error)
    if (retry === "limited") this.limited++
    return retry === "limited" ? this.limited < maxAttempts : retry === "always"
  }

  /**
   * How many times as long the next attempt waits before it gives a silent walsender up without proof: none repeats what
   * the last one could not do.
   */
  get patience(): number {
    return 2 ** this.silent
  }
}

/** The same error, telling where the stream cannot get on, where that is what it means. */
export const locate = (error: ReplicationError, done: Lsn.Lsn): ReplicationError =>
  error._tag === "ServerError" && retryOf(error) === "limited" && error.stage === "Streaming"
    ? new ServerError({ ...error, lsn: done })
    : error

/** What to tell of a stream that tries again and again at one position: nothing is lost, but nothing gets on either. */
export const notGettingOn = (error: ReplicationError, count: number, done: Lsn.Lsn): string => {
  const remedy = error.remedy === undefined ? "" : `; remedy: ${error.remedy}`
  return `the stream does not get on: ${count} attempts at LSN ${Lsn.format(done)} have failed, the last by ${error._tag}: ${error.message}${remedy}. Reconnecting; the server keeps WAL for the slot meanwhile`
}

/** A failure on its way past all retries: a handler's own, or one that no other attempt mends. */
export class Final<out E> extends Data.TaggedError("Final")<{ readonly error: E }> {}

/**
 * What to do after a failure, which is the n-th since it last got on. What has proved itself in between begins the schedule
 * anew, at once.
 */
export type Verdict<E> =
  | { readonly _tag: "Again"; readonly hasGotOn: boolean; readonly attempt: number }
  | { readonly _tag: "GiveUp"; readonly error: E }

/** How something is tried again. */
export interface Retrying<E> {
  readonly decide: (error: E) => Effect.Effect<Verdict<E>>
  /** {@link defaultReconnect} when left out. */
  readonly schedule?: Schedule.Schedule<unknown, never> | Schedule.Schedule<unknown, E> | undefined
  /** Told before each wait, with the `attempt` of the verdict. */
  readonly onFailure: (error: E, attempt: number) => Effect.Effect<void>
}

/** Runs an effect until it succeeds or fails for good. What it fails with as {@link Final} is never tried again. */
export const retrying = <A, E extends { readonly _tag: string }, F, R>(
  self: Effect.Effect<A, E | Final<F>, R>,
  { decide, onFailure, schedule = defaultReconnect }: Retrying<E>
): Effect.Effect<A, E | F, R> => {
  const once: Effect.Effect<{ readonly value: A } | undefined, E | Final<E | F>, R> = Effect.matchEffect(self, {
    onSuccess: (value) => Effect.succeed({ value }),
    onFailure: (error) => {
      if (error instanceof Final) return Effect.fail(error)
      return Effect.flatMap(decide(error), (verdict): Effect.Effect<undefined, E | Final<E | F>> => {
        if (verdict._tag === "GiveUp") return Effect.fail(new Final<E | F>({ error: verdict.error }))
        const { attempt } = verdict
        // Success starts the schedule from its beginning.
        return Effect.andThen(onFailure(error, attempt), verdict.hasGotOn ? Effect.undefined : Effect.fail(error))
      })
    }
  })
  const untilItIs: Effect.Effect<A, E | Final<E | F>, R> = Effect.flatMap(
    Effect.retry(once, {
      while: (error) => !(error instanceof Final),
      schedule: schedule as Schedule.Schedule<unknown, E | Final<E | F>>
    }),
    (done) => (done === undefined ? untilItIs : Effect.succeed(done.value))
  )
  return Effect.catch(untilItIs, (error) => Effect.fail(error instanceof Final ? error.error : error))
}
