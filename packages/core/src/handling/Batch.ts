/**
 * Changes gathered over transactions, by number, size and time. What is gathered is acknowledged when it is done, through the
 * last unit that ended in it, and not before; what is not full when the connection is over comes again.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Semaphore from "effect/Semaphore"
import type { Handled } from "../change/NextLsn.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Consume, Handler, Session } from "../stream/Handler.ts"
import { bare, endOf, type HandedOf, isOfRow } from "./ChangeKey.ts"
import { compactRuns } from "./Compact.ts"

/** When a batch is full. */
export interface BatchOptions {
  /** Of how many rows it is, at most. */
  readonly rows: number
  /** Of how many bytes of the stream, about: those of a read are shared out among its changes. A first copy tells none. */
  readonly bytes?: number | undefined
  /** How long the first change in it waits, at most, before the batch is handed over as it is. */
  readonly within: Duration.Input
  /**
   * The last state of each row only, so that one bulk statement never meets a row twice. The function is then called for each
   * run of rows between those that stand alone: a `Truncate`, a `Message`, a mark, an update that moves a row without telling
   * all of it. All of the batch is acknowledged when the last has ended.
   */
  readonly compact?: boolean | undefined
}

/** One connection's batch. */
class Batches<C, E, R> {
  private changes: Array<HandedOf<C>> = []
  private rows = 0
  private bytes = 0
  /** The last unit that ended in it. */
  private end: Handled
  /** When it is handed over, in milliseconds of the clock; `undefined` while there is none. */
  private deadline: number | undefined
  private failure: Cause.Cause<E | SnapshotError> | undefined
  private readonly begun = Latch.makeUnsafe(false)
  private readonly turn = Semaphore.makeUnsafe(1)
  private readonly session: Session<E>
  private readonly options: BatchOptions
  private readonly within: number
  private readonly handle: (changes: NonEmptyReadonlyArray<HandedOf<C>>, end: Handled) => Effect.Effect<unknown, E, R>

  constructor(
    session: Session<E>,
    options: BatchOptions,
    handle: (changes: NonEmptyReadonlyArray<HandedOf<C>>, end: Handled) => Effect.Effect<unknown, E, R>
  ) {
    this.session = session
    this.options = options
    this.within = Duration.toMillis(Duration.fromInputUnsafe(options.within))
    this.handle = handle
  }

  /** Hands the batch over, and acknowledges it. */
  private readonly flush: Effect.Effect<void, E | SnapshotError, R> = Effect.suspend(() => {
    const { changes, end } = this
    this.changes = []
    this.rows = 0
    this.bytes = 0
    this.end = undefined
    this.deadline = undefined
    const runs = this.options.compact === true ? compactRuns(changes) : [changes]
    const handled = Effect.forEach(
      runs,
      (run) => (isReadonlyArrayNonEmpty(run) ? this.handle(run, end) : Effect.void),
      { discard: true }
    )
    return end === undefined ? handled : Effect.andThen(handled, this.session.acknowledgeThrough(end))
  }).pipe(
    Effect.tapCause((cause) =>
      Effect.sync(() => {
        this.failure ??= cause
      })
    )
  )

  private begin(now: number): void {
    if (this.deadline !== undefined) return
    this.deadline = now + this.within
    this.begun.openUnsafe()
  }

  private isFull(): boolean {
    return this.rows >= this.options.rows || (this.options.bytes !== undefined && this.bytes >= this.options.bytes)
  }

  readonly consume: Consume<C, E, R> = (read) =>
    this.turn.withPermit(
      Effect.gen({ self: this }, function* () {
        const now = yield* Clock.currentTimeMillis
        const size = read.bytes / read.changes.length
        for (const change of read.changes) {
          if (this.failure !== undefined) return yield* Effect.failCause(this.failure)
          if (this.session.isOver()) return
          const { _tag } = bare(change)
          this.bytes += size
          if (_tag !== "Begin" && _tag !== "Commit") this.changes.push(change as HandedOf<C>)
          if (isOfRow(change)) this.rows++
          this.end = endOf(change) ?? this.end
          if (this.changes.length > 0 || this.end !== undefined) this.begin(now)
          const isMark = _tag === "SnapshotRangeCompleted" || _tag === "SnapshotCompleted" || _tag === "Gap"
          if (isMark || this.isFull()) yield* this.flush
        }
      })
    )

  /** Hands over what has waited long enough, for ever. */
  readonly watch: Effect.Effect<void, never, R> = Effect.gen({ self: this }, function* () {
    while (this.failure === undefined) {
      const { deadline } = this
      if (deadline === undefined) {
        this.begun.closeUnsafe()
        yield* this.begun.await
        continue
      }
      const rest = deadline - (yield* Clock.currentTimeMillis)
      if (rest > 0) {
        yield* Effect.sleep(rest)
        continue
      }
      const due = Effect.suspend(() =>
        this.deadline === deadline && !this.session.isOver() ? this.flush : Effect.void
      )
      yield* Effect.catchCause(this.turn.withPermit(due), (cause) => this.session.fail(Cause.squash(cause) as E))
      if (this.session.isOver()) return
    }
  })

  /** Waits for what runs. */
  readonly close = Effect.interruptible(this.turn.withPermit(Effect.void))
}

const problemOf = ({ bytes, rows }: BatchOptions): InvalidOption | undefined => {
  if (!Number.isInteger(rows) || rows < 1)
    return new InvalidOption({ option: "rows", problem: "is not a number from 1" })
  if (bytes !== undefined && !(bytes > 0)) return new InvalidOption({ option: "bytes", problem: "is not above 0" })
  return undefined
}

/**
 * Many changes at a time, of whatever transactions: when there are so many rows or bytes of them, or the first has waited so
 * long. All of a batch is durable when the function has ended, and is acknowledged then, through the last unit that ended in
 * it; nothing need be said. A mark of a snapshot, and a `Gap`, is the last of its batch.
 *
 * The function is given everything but `Begin` and `Commit`, and as its second argument the end of the last unit in the batch,
 * whose `lsn` may be stored with it. A transaction may be in several batches.
 *
 * @example
 * withLogicalStream(options, Handler.batch({ rows: 1000, within: "1 second", compact: true }, (changes) => store(changes)))
 */
export const batch = <C, E = never, R = never>(
  options: BatchOptions,
  handle: (changes: NonEmptyReadonlyArray<NoInfer<HandedOf<C>>>, end: Handled) => Effect.Effect<unknown, E, R>
): Handler<C, E, R> => ({
  unfit: () => problemOf(options),
  make: Effect.fnUntraced(function* (session) {
    const batches = new Batches<C, E, R>(session, options, handle)
    yield* Effect.forkScoped(batches.watch)
    // Before the fiber above is interrupted.
    yield* Effect.addFinalizer(() => batches.close)
    return batches.consume
  })
})
