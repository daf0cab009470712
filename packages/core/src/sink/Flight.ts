/**
 * Messages on their way into an engine, for one session: kept until the engine has made them durable, and no more of them than
 * is allowed. What the engine does not answer for is appended again from its own mark on, and nowhere else: so a hole cannot
 * be, nor anything twice.
 *
 * One fiber opens a writer and begins appends, in order; each append is a fiber, and what it has ended is acknowledged. Whoever
 * brings messages waits while there are too many: that holds the stream back, and memory flat, for as long as an engine is down.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Handled } from "../change/NextLsn.ts"
import * as Metrics from "../replication/Metrics.ts"
import { Final, retrying } from "../replication/Reconnect.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Session } from "../stream/Handler.ts"
import type { Mark, Message } from "./Message.ts"
import type { Output } from "./MessageReader.ts"
import { Pending, type Size } from "./Pending.ts"
import type { SinkShape, SinkWriter } from "./Sink.ts"
import { SinkBehindSlot, type SinkError, type SinkRejected, SinkUnavailable } from "./SinkError.ts"

/** What may be under way, and for how long. */
export interface FlightOptions {
  /** Most messages, and characters, of one append: 1000 and 1 MiB. */
  readonly batch?: { readonly messages?: number | undefined; readonly characters?: number | undefined } | undefined
  /** Most that is kept at a time before the stream is held back: 10,000 messages and 16 Mi characters, and what one read brought. */
  readonly kept?: { readonly messages?: number | undefined; readonly characters?: number | undefined } | undefined
  /** How long the oldest append, or opening, may take before the connection to the engine is given up: 30 s. */
  readonly answerTimeout?: Duration.Input | undefined
  /** How long what is under way may take to end as the session does: 5 s. */
  readonly closeTimeout?: Duration.Input | undefined
  /** When to try again what may pass. Left out: within 250 ms, doubled with jitter up to 10 s, for ever. */
  readonly outage?: Schedule.Schedule<unknown, SinkError> | undefined
  /**
   * What is appended in the place of a message that the engine rejects; `undefined`, or left out: the stream fails. It is asked once
   * for each place: where the other one is rejected as well, the stream fails.
   */
  readonly onRejected?: ((message: Message, error: SinkRejected) => Message | undefined) | undefined
}

/** Appended messages, by the engine's own word. */
export const appended = Metrics.sinkMessages

/** Connections to an engine that were made after a failure. */
export const reopened = Metrics.sinkReopened

/** An acknowledgement may fail as well: of a table that is read anew, by its ledger. */
type Failure = SinkError | SnapshotError

export class Flight {
  private readonly sink: SinkShape
  private readonly session: Session<SinkError>
  private readonly options: FlightOptions
  private readonly pending: Pending
  private readonly kept: Size
  /** Acknowledgements that are on their way. */
  private settling = 0
  /** The end of what is durable, until PostgreSQL has been told: telling is cut off where an append fails meanwhile. */
  private untold: Handled
  private isClosing = false
  private failure: Cause.Cause<Failure> | undefined
  /** What the engine has made durable last, as far as is known. */
  private last: string | undefined
  /** There is something to append, and room for it. */
  private readonly work = Latch.makeUnsafe(false)
  /** Something has become durable, or all has failed. */
  private readonly moved = Latch.makeUnsafe(false)
  private attempt = 0
  private epoch: string | undefined

  /** `noted` is what the engine had made durable last, as far as is known from before. */
  constructor(sink: SinkShape, session: Session<SinkError>, options: FlightOptions, noted?: string | undefined) {
    this.sink = sink
    this.session = session
    this.options = options
    this.last = noted
    const { batch, kept } = options
    this.pending = new Pending({ messages: batch?.messages ?? 1000, characters: batch?.characters ?? 1024 * 1024 })
    this.kept = { messages: kept?.messages ?? 10_000, characters: kept?.characters ?? 16 * 1024 * 1024 }
  }

  /** The engine's mark, with all that has been appended since: what stands at it or before is there. */
  get durable(): string | undefined {
    return this.last
  }

  /**
   * Opens the sink, and appends from now on until the scope ends. Ends once it is open; fails with what does not pass.
   * `check` is asked of each mark.
   */
  readonly start = (check: (mark: Mark) => SinkError | undefined): Effect.Effect<void, Failure, Scope.Scope> =>
    Effect.gen({ self: this }, function* () {
      const opened = yield* Deferred.make<void, Failure>()
      const serve = Effect.scoped(this.serve(check, opened))
      const run = retrying<never, SinkError, SnapshotError, never>(serve, {
        schedule: this.options.outage,
        decide: (error) => Effect.sync(() => this.verdict(error)),
        onFailure: (error, attempt) =>
          Effect.andThen(
            Metric.update(reopened, 1),
            Effect.logWarning(`opening ${this.sink.name} again (${attempt}) after ${error._tag}: ${error.message}`)
          )
      })
      const fail = (cause: Cause.Cause<Failure>) =>
        Effect.suspend(() => {
          this.failure = cause
          this.moved.openUnsafe()
          return Effect.andThen(Deferred.failCause(opened, cause), this.session.fail(Cause.squash(cause) as SinkError))
        })
      yield* Effect.forkScoped(Effect.catchCause(run, fail))
      // Before the fiber above is interrupted.
      yield* Effect.addFinalizer(() => this.close)
      yield* Deferred.await(opened)
    })

  private verdict(error: SinkError) {
    if (error._tag === "SinkRejected" && this.replaced(error))
      return { _tag: "Again", hasGotOn: true, attempt: 1 } as const
    if (!error.isRetryable || this.isClosing) return { _tag: "GiveUp", error } as const
    const hasGotOn = this.attempt === 0
    return { _tag: "Again", hasGotOn, attempt: ++this.attempt } as const
  }

  /** Whether another message stands in the place of one that was rejected. */
  private replaced(error: SinkRejected): boolean {
    return this.pending.replace(error.id, (message) => this.options.onRejected?.(message, error))
  }

  /** One writer, until it fails. */
  private serve(check: (mark: Mark) => SinkError | undefined, opened: Deferred.Deferred<void, Failure>) {
    return Effect.gen({ self: this }, function* () {
      const timeout = this.options.answerTimeout ?? "30 seconds"
      const late = () => Effect.fail(this.isLate("opening"))
      const writer = yield* Effect.timeoutOrElse(this.sink.open(this.epoch), { duration: timeout, orElse: late })
      yield* this.resume(writer, check)
      yield* Deferred.succeed(opened, undefined)
      const broken = yield* Deferred.make<never, SinkError | Final<SnapshotError>>()
      return yield* Effect.raceFirst(
        Deferred.await(broken),
        Effect.raceFirst(this.send(writer, broken), this.watch(timeout))
      )
    })
  }

  private isLate(what: string): SinkUnavailable {
    const millis = Duration.toMillis(Duration.fromInputUnsafe(this.options.answerTimeout ?? "30 seconds"))
    return new SinkUnavailable({
      sink: this.sink.name,
      reason: "TimedOut",
      detail: `${what} took longer than ${millis} ms`
    })
  }

  /** What the engine has is done; all the rest is appended anew. */
  private resume = Effect.fnUntraced(
    { self: this },
    function* (
      { epoch, mark }: SinkWriter,
      check: (mark: Mark) => SinkError | undefined
    ): Effect.fn.Return<void, SinkError | Final<SnapshotError>> {
      const held = Option.getOrUndefined(mark)
      // Later it may be of what this session has brought, which is newer than what was known as it began.
      const problem = held === undefined || this.epoch !== undefined ? undefined : check(held)
      if (problem !== undefined) return yield* problem
      const { last, sink } = this
      if (last !== undefined && (held === undefined || held.id < last))
        return yield* new SinkBehindSlot({ sink: sink.name, mark: held?.id, note: last })
      this.epoch = epoch
      this.last = held?.id
      yield* this.told(this.pending.resume(held?.id))
      this.work.openUnsafe()
    }
  )

  /** Begins appends in order, as many at a time as the writer takes. */
  private send(writer: SinkWriter, broken: Deferred.Deferred<never, SinkError | Final<SnapshotError>>) {
    return Effect.gen({ self: this }, function* () {
      while (true) {
        const isBusy = this.pending.underWay >= writer.maxInFlight || this.isClosing
        const batch = isBusy ? undefined : this.pending.next()
        if (batch === undefined) {
          this.work.closeUnsafe()
          yield* this.work.await
          continue
        }
        const { messages } = batch
        if (!isReadonlyArrayNonEmpty(messages)) continue
        const append = Effect.andThen(
          writer.append(messages),
          Effect.suspend(() => {
            batch.isDurable = true
            this.last = messages.at(-1)!.id
            this.attempt = 0
            return Effect.andThen(Metric.update(appended, messages.length), this.settle)
          })
        )
        yield* Effect.forkScoped(
          Effect.catchCause(append, (cause) => Deferred.failCause(broken, cause)),
          { startImmediately: true }
        )
      }
    })
  }

  /** Fails when nothing has come of the oldest append for so long: one timer for all of them. */
  private watch(timeout: Duration.Input) {
    return Effect.gen({ self: this }, function* () {
      while (true) {
        const { oldest } = this.pending
        yield* Effect.sleep(timeout)
        if (oldest !== undefined && this.pending.oldest === oldest) return yield* this.isLate("an append")
      }
    })
  }

  /** Acknowledges what is durable, from the front. */
  private readonly settle: Effect.Effect<void, Final<SnapshotError>> = Effect.suspend(() =>
    this.told(this.pending.settle())
  )

  /** Acknowledges an end, and what was left untold before it. */
  private told(end: Handled): Effect.Effect<void, Final<SnapshotError>> {
    this.work.openUnsafe()
    this.untold = end ?? this.untold
    const { untold } = this
    const telling = untold === undefined ? Effect.void : this.session.acknowledgeThrough(untold)
    const isTold = Effect.sync(() => {
      if (this.untold === untold) this.untold = undefined
    })
    this.settling++
    return Effect.ensuring(
      Effect.mapError(Effect.andThen(telling, isTold), (error) => new Final({ error })),
      Effect.sync(() => {
        this.settling--
        this.moved.openUnsafe()
      })
    )
  }

  /** Takes what a read became, and waits while there is too much; or until all of it is durable. */
  readonly add = Effect.fnUntraced(
    { self: this },
    function* (output: Output, until: "there is room" | "all is durable"): Effect.fn.Return<void, Failure> {
      const done = this.pending.add(output)
      this.work.openUnsafe()
      if (done !== undefined) yield* this.session.acknowledgeThrough(done)
      while (
        this.failure === undefined &&
        (until === "there is room" ? this.pending.exceeds(this.kept) : !this.pending.isEmpty)
      ) {
        this.moved.closeUnsafe()
        yield* this.moved.await
      }
      if (this.failure !== undefined) return yield* Effect.failCause(this.failure)
    }
  )

  /** Begins nothing more, and lets what is under way end. */
  private readonly close = Effect.suspend(() => {
    this.isClosing = true
    const ended = Effect.gen({ self: this }, function* () {
      while (this.pending.underWay + this.settling > 0 && this.failure === undefined) {
        this.moved.closeUnsafe()
        yield* this.moved.await
      }
    })
    return Effect.interruptible(Effect.timeoutOption(ended, this.options.closeTimeout ?? "5 seconds"))
  })
}
