/**
 * Changes of one row in order, others side by side.
 *
 * What is of no row stands alone: everything before it has ended when it begins, and nothing after it begins before it has.
 * Then all is one after the other, so it is handled where changes are taken in, and a mark of a snapshot ends only once all
 * before it has.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import type { NextLsn } from "../change/NextLsn.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Consume, Handler, Session } from "../stream/Handler.ts"
import { bare, endOf, type HandedOf, type KeyOf, keysBy } from "./ChangeKey.ts"
import { KeyOrder, type Work } from "./KeyOrder.ts"

/** How many at a time, and of what. */
export interface ByKeyOptions<C> {
  /** How many changes are handled at a time, at most. */
  readonly concurrency: number
  /** How many are taken in and have not ended, at most, those that run among them: 1024. What is more waits in the stream. */
  readonly queue?: number | undefined
  /**
   * What changes are ordered by, instead of the row that they are of. Of an update that moves a row from one key to another
   * give both; `undefined` for a change that must stand alone. Two changes that must not change places must have a key in
   * common: also those that meet in a constraint of the target, as a foreign key or another unique column.
   *
   * Changes of declared tables are ordered by table without it.
   */
  readonly key?: KeyOf<C> | undefined
}

const defaultQueue = 1024

/** A transaction, as far as it is under way. */
class Unit {
  /** Changes of it that have not ended. */
  open = 0
  /** What acknowledges it, once its end was delivered. */
  end: NextLsn | undefined
}

interface Task<C> {
  readonly change: HandedOf<C>
  readonly unit: Unit
}

/** One connection's changes under way. */
class Running<C, E, R> {
  private readonly order = new KeyOrder<Task<C>>()
  private readonly changed = Latch.makeUnsafe(false)
  private running = 0
  private failure: Cause.Cause<E | SnapshotError> | undefined
  private isClosed = false
  /** Rows of a first copy are in none: its end never comes. */
  private unit = new Unit()
  private readonly session: Session<E>
  private readonly options: ByKeyOptions<C>
  private readonly handle: (change: HandedOf<C>) => Effect.Effect<unknown, E, R>
  private readonly fibers: Scope.Scope
  private readonly keysOf: (change: C) => ReadonlyArray<string> | undefined

  constructor(
    session: Session<E>,
    options: ByKeyOptions<C>,
    handle: (change: HandedOf<C>) => Effect.Effect<unknown, E, R>,
    fibers: Scope.Scope
  ) {
    this.session = session
    this.options = options
    this.handle = handle
    this.fibers = fibers
    this.keysOf = keysBy(options.key)
  }

  private mayBegin(): boolean {
    return this.failure === undefined && !this.isClosed && !this.session.isOver()
  }

  private until(isSo: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (isSo()) return Effect.void
      this.changed.closeUnsafe()
      return Effect.andThen(this.changed.await, this.until(isSo))
    })
  }

  /** Waits until no more than so many have not ended; or, where nothing begins any more, until what runs has ended. */
  private untilAtMost(size: number): Effect.Effect<void> {
    return this.until(() => this.order.size <= size || (this.running === 0 && !this.mayBegin()))
  }

  /** Begins nothing more, and waits for what runs. */
  readonly close = Effect.suspend(() => {
    this.isClosed = true
    // Whoever closes may lose patience: what still runs is interrupted then.
    return Effect.interruptible(this.until(() => this.running === 0))
  })

  private acknowledge(unit: Unit): Effect.Effect<void, SnapshotError> {
    return unit.end !== undefined && unit.open === 0 ? this.session.acknowledge(unit.end) : Effect.void
  }

  /** One change, then others while any may begin: the fiber ends when there is nothing to do. */
  private work(first: Work<Task<C>>): Effect.Effect<void, never, R> {
    return Effect.gen({ self: this }, function* () {
      let work: Work<Task<C>> | undefined = first
      while (work !== undefined) {
        const { change, unit }: Task<C> = work.value
        const exit: Exit.Exit<unknown, E> = yield* Effect.exit(Effect.suspend(() => this.handle(change)))
        if (Exit.isSuccess(exit)) {
          this.order.end(work)
          unit.open--
          const told = yield* Effect.exit(this.acknowledge(unit))
          if (Exit.isFailure(told)) this.failure ??= told.cause
        } else this.failure ??= exit.cause
        work = this.mayBegin() ? this.order.take() : undefined
        yield* this.begin
        this.changed.openUnsafe()
      }
      this.running--
      this.changed.openUnsafe()
      if (this.running === 0 && this.failure !== undefined) yield* this.session.fail(Cause.squash(this.failure) as E)
    })
  }

  /** Begins what may. */
  private readonly begin: Effect.Effect<void, never, R> = Effect.suspend(() => {
    if (this.running >= this.options.concurrency || !this.mayBegin()) return Effect.void
    const work = this.order.take()
    if (work === undefined) return Effect.void
    this.running++
    const forked = Effect.forkIn(this.work(work), this.fibers, { startImmediately: true })
    return Effect.andThen(forked, this.begin)
  })

  /** Nothing comes in any more: `true`, and where something has failed, its failure once what runs has ended. */
  private readonly hasStopped: Effect.Effect<boolean, E | SnapshotError> = Effect.suspend(() => {
    if (this.failure === undefined) return Effect.succeed(!this.mayBegin())
    const { failure } = this
    return Effect.andThen(
      this.until(() => this.running === 0),
      Effect.failCause(failure)
    )
  })

  /** Everything before it has ended, then this, then what comes after. */
  private readonly alone = Effect.fnUntraced({ self: this }, function* (change: HandedOf<C>) {
    yield* this.untilAtMost(0)
    if (yield* this.hasStopped) return
    yield* this.handle(change)
    const end = endOf(change)
    if (end !== undefined) yield* this.session.acknowledge(end)
  })

  readonly consume: Consume<C, E, R> = Effect.fnUntraced({ self: this }, function* ({ changes }) {
    const most = this.options.queue ?? defaultQueue
    for (const change of changes) {
      if (!this.mayBegin() && (yield* this.hasStopped)) return
      const { _tag } = bare(change)
      if (_tag === "Begin") {
        this.unit = new Unit()
      } else if (_tag === "Commit") {
        const { unit } = this
        unit.end = endOf(change)
        this.unit = new Unit()
        yield* this.acknowledge(unit)
      } else {
        const keys = this.keysOf(change)
        if (keys === undefined) yield* this.alone(change as HandedOf<C>)
        else {
          this.unit.open++
          this.order.add({ change: change as HandedOf<C>, unit: this.unit }, keys)
          yield* this.begin
          if (this.order.size >= most) yield* this.untilAtMost(most - 1)
        }
      }
    }
  })
}

const problemOf = ({ concurrency, queue = defaultQueue }: ByKeyOptions<never>): InvalidOption | undefined => {
  const problem = "is not a number from 1"
  if (!Number.isInteger(concurrency) || concurrency < 1) return new InvalidOption({ option: "concurrency", problem })
  if (!Number.isInteger(queue) || queue < 1) return new InvalidOption({ option: "queue", problem })
  return undefined
}

/**
 * Changes of one row in order, others side by side: for work that waits, as on requests to elsewhere. A transaction is
 * acknowledged once all of its changes, and all transactions before it, have ended: nothing need be said.
 *
 * The function is given everything but `Begin` and `Commit`, which every change names. A row is told by its replica identity;
 * under `FULL` by all of it; in a table without one, all changes are in order. An update that moves a row comes after all of both
 * keys. Whatever is not of one row, a `Truncate`, a `RelationChanged`, a `Message`, what begins, marks or ends a snapshot, stands
 * alone: all before it has ended, and nothing after it has begun.
 *
 * When one fails, nothing more is begun, what runs may end and counts, and the stream fails with the first failure.
 *
 * @example
 * withLogicalStream(options, Handler.byKey({ concurrency: 8 }, (change) => store(change)))
 */
export const byKey = <C, E = never, R = never>(
  options: ByKeyOptions<C>,
  handle: (change: NoInfer<HandedOf<C>>) => Effect.Effect<unknown, E, R>
): Handler<C, E, R> => ({
  unfit: () => problemOf(options as ByKeyOptions<never>),
  make: Effect.fnUntraced(function* (session) {
    const scope = yield* Effect.scope
    // Closed after what is added below has run.
    const fibers = yield* Scope.fork(scope)
    const running = new Running<C, E, R>(session, options, handle, fibers)
    yield* Effect.addFinalizer(() => running.close)
    return running.consume
  })
})
