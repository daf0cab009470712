/**
 * One consumer of a broadcast, over one connection: its queue, the fiber that takes from it, and its own session. It is made anew where
 * it was left behind, as a handler is where a connection was lost: so nothing that it holds outlives what it has missed.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import type { NextLsn } from "../change/NextLsn.ts"
import * as Lsn from "../Lsn.ts"
import type { Consumers } from "../replication/Consumers.ts"
import * as Metrics from "../replication/Metrics.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Handler, Read, Session } from "../stream/Handler.ts"
import { endOf } from "./ChangeKey.ts"
import { tagOf } from "./Retry.ts"
import type { SharedProgress } from "./SharedProgress.ts"

/** An optional consumer was left behind, and is made anew: it has missed changes. */
export interface Lagged {
  readonly _tag: "Lagged"
  /** Its name. */
  readonly consumer: string
  /**
   * `QueueFull`: it was slower than the others, by more than its queue. `ConnectionLost`: what it had not done was not brought again,
   * as the others had. `Started`: the program has begun, and what this one had done before is not known.
   */
  readonly reason: "QueueFull" | "ConnectionLost" | "Started"
  /** Everything before this it has done; `0/0` where that is not known. */
  readonly done: Lsn.Lsn
}

/** A consumer, as it was declared. */
export interface Declared<C, R> {
  readonly name: string
  readonly handler: Handler<C, unknown, R>
  readonly isRequired: boolean
  /** How many reads wait for it, at most. */
  readonly queue: number
  /** Whether tables are read anew for it. */
  readonly isReading: () => boolean
  /** Told before it is made anew. What follows it does once it is given changes again. */
  readonly begins?: ((lagged: Lagged) => Effect.Effect<Effect.Effect<unknown, unknown, R>, unknown, R>) | undefined
}

/** What the consumers of one connection have in common. */
export interface Shared {
  readonly session: Session<unknown>
  readonly progress: SharedProgress
  readonly consumers: Consumers
  /** Where fibers live: closed after all consumers have been. */
  readonly fibers: Scope.Scope
}

/** How long a read waits for room, and all others with it, while tables are read anew for a consumer: milliseconds. */
const readingWait = 10_000

/** How long one that may be left behind has to end what it is at, when the connection ends: milliseconds. */
const grace = 1000

export class BroadcastConsumer<C, R> {
  readonly declared: Declared<C, R>
  private readonly shared: Shared
  private queue: Array<Read<C>> = []
  /** Given and not ended, the one under way among them. */
  private open = 0
  private readonly changed = Latch.makeUnsafe(false)
  /** What it is given: all; nothing; nothing until it joins; of the present read what stands behind its first unit, and then all. */
  private feed: "all" | "nothing" | "waits" | "cut" = "all"
  private lag: Lagged["reason"] | undefined
  /** Rows that were read anew for it are in its queue, or still to come. */
  private isCatchingUp = false
  private isClosing = false
  /** It takes nothing more of this connection, which is over. */
  private hasStopped = false
  private fiber: Fiber.Fiber<void> | undefined
  private since = 0
  /** What it had done when it was left behind. */
  private doneBefore: Lsn.Lsn = Lsn.zero
  failure: Cause.Cause<unknown> | undefined

  constructor(declared: Declared<C, R>, shared: Shared, lagged: Pick<Lagged, "reason" | "done"> | undefined) {
    this.declared = declared
    this.shared = shared
    if (lagged === undefined) shared.progress.join(declared.name, declared.isRequired)
    else {
      this.lag = lagged.reason
      this.doneBefore = lagged.done
      this.feed = "nothing"
    }
  }

  private get name(): string {
    return this.declared.name
  }

  /** Everything before this it has done, as far as is known. */
  get done(): Lsn.Lsn {
    return Lsn.max(this.doneBefore, this.shared.progress.doneBy(this.name))
  }

  /** Whether nothing more becomes of it. */
  get hasEnded(): boolean {
    return this.failure !== undefined
  }

  private tell(): void {
    const { isRequired } = this.declared
    const state = this.hasEnded ? "ended" : this.lag === undefined ? "following" : "lagging"
    const failure = this.failure === undefined ? undefined : tagOf(Cause.squash(this.failure))
    this.shared.consumers.set(this.name, { isRequired, state, since: this.since, failure, done: this.done })
  }

  private readonly turns = Effect.map(Clock.currentTimeMillis, (now) => {
    this.since = now
    this.tell()
  })

  private until(isSo: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (isSo()) return Effect.void
      this.changed.closeUnsafe()
      return Effect.andThen(this.changed.await, this.until(isSo))
    })
  }

  /** Its session: what it is done with is done by it alone. */
  private sessionOf(isOver: () => boolean): Session<unknown> {
    const { progress, session } = this.shared
    const passed = (unit: NextLsn | undefined): Effect.Effect<void, SnapshotError> => {
      this.tell()
      return unit === undefined ? Effect.void : session.acknowledgeThrough(unit)
    }
    return {
      ...session,
      isOver: () => isOver() || session.isOver(),
      durable: Effect.sync(() => progress.doneBy(this.name)),
      acknowledge: (unit) => Effect.suspend(() => passed(progress.acknowledge(this.name, unit))),
      acknowledgeThrough: (unit) => Effect.suspend(() => passed(progress.acknowledgeThrough(this.name, unit))),
      fail: (error) => this.fails(Cause.fail(error))
    }
  }

  /** It has failed: the stream does, or it alone. */
  fails(cause: Cause.Cause<unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.hasEnded) return Effect.void
      this.failure = cause
      this.changed.openUnsafe()
      if (this.declared.isRequired) return Effect.andThen(this.turns, this.shared.session.fail(Cause.squash(cause)))
      this.queue = []
      this.feed = "nothing"
      this.shared.progress.leave(this.name)
      const says = `the consumer ${this.name} has failed, and is given nothing more: ${tagOf(Cause.squash(cause))}`
      return Effect.andThen(this.turns, Effect.logError(says))
    })
  }

  private takesNothing(): boolean {
    return this.isClosing || this.hasEnded || this.lag !== undefined || this.shared.session.isOver()
  }

  /** Makes the handler, and gives it what comes, until there is a reason to make it anew or never again. */
  private readonly life = Effect.fnUntraced({ self: this }, function* (scope: Scope.Scope) {
    const { handler, isRequired } = this.declared
    const session = this.sessionOf(() => this.takesNothing())
    // Of one that is required the stream has asked, before its first connection.
    if (!isRequired && handler.position !== undefined) yield* handler.position(session.slot)
    const consume = yield* Scope.provide(handler.make(session), scope)
    while (true) {
      yield* this.until(() => this.queue.length > 0 || this.takesNothing())
      if (this.takesNothing()) return
      const [read] = this.queue.splice(0, 1)
      this.changed.openUnsafe()
      yield* consume(read!)
      this.open--
      this.changed.openUnsafe()
    }
  })

  /** What it is told before it is made anew; from then on it is given what comes. */
  private readonly beginAnew = Effect.fnUntraced({ self: this }, function* (reason: Lagged["reason"]) {
    const { begins } = this.declared
    const lagged: Lagged = { _tag: "Lagged", consumer: this.name, reason, done: this.doneBefore }
    yield* Metric.update(Metric.withAttributes(Metrics.consumerLagged, { consumer: this.name }), 1)
    yield* Effect.logWarning(`the consumer ${this.name} is left behind, and begins anew: ${reason}`)
    yield* this.turns
    const goesOn = begins === undefined ? Effect.void : yield* begins(lagged)
    this.lag = undefined
    this.queue = []
    this.open = 0
    this.feed = "waits"
    yield* this.turns
    return goesOn
  })

  private readonly live = Effect.gen({ self: this }, function* () {
    yield* this.turns
    while (!this.isClosing) {
      if (this.lag !== undefined) {
        const goesOn = yield* this.beginAnew(this.lag)
        yield* goesOn
      }
      yield* Effect.scopedWith(this.life)
      if (this.lag === undefined) break
    }
  })

  /** Begins its work. */
  readonly start: Effect.Effect<void, never, R> = Effect.gen({ self: this }, function* () {
    const living = this.live.pipe(
      Effect.catchCause((cause) => (this.isClosing && !this.declared.isRequired ? Effect.void : this.fails(cause))),
      Effect.ensuring(
        Effect.sync(() => {
          this.hasStopped = true
          this.changed.openUnsafe()
        })
      )
    )
    // One that may be left behind may also be stuck for good: its scope waits a while for it, and no longer.
    this.fiber = yield* this.declared.isRequired ? Effect.forkIn(living, this.shared.fibers) : Effect.forkDetach(living)
  })

  /** It takes what comes from here on, if it waits for that: between two units, before the next is delivered. */
  join(isAmidRead: boolean): void {
    if (this.feed !== "waits") return
    this.feed = isAmidRead ? "cut" : "all"
    this.shared.progress.join(this.name, this.declared.isRequired)
  }

  /** It is to be given this read. Waits for room, if it is waited for; else it is left behind where there is none. */
  give(read: Read<C>, isWaitedFor: boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.hasEnded || this.hasStopped || this.feed === "nothing" || this.feed === "waits") return Effect.void
      const given = this.feed === "all" ? read : behindUnit(read)
      this.feed = "all"
      if (given === undefined) return Effect.void
      if (this.declared.isReading()) this.isCatchingUp = true
      else if (this.queue.length === 0) this.isCatchingUp = false
      const hasRoom = () => this.queue.length < this.declared.queue || this.hasStopped || this.isClosing
      if (hasRoom()) return this.put(given)
      const room = this.until(hasRoom)
      if (isWaitedFor) return Effect.andThen(room, this.put(given))
      // One that is merely not yet awake is not slow, and rows come faster than changes.
      const waited = this.isCatchingUp ? Effect.timeoutOption(room, readingWait) : Effect.yieldNow
      return Effect.andThen(
        waited,
        Effect.suspend(() => (hasRoom() ? this.put(given) : this.leaveBehind))
      )
    })
  }

  private readonly leaveBehind = Effect.suspend(() => {
    this.lag = "QueueFull"
    this.feed = "nothing"
    this.queue = []
    this.changed.openUnsafe()
    this.doneBefore = this.shared.progress.doneBy(this.name)
    this.shared.progress.leave(this.name)
    return this.turns
  })

  private put(read: Read<C>): Effect.Effect<void> {
    return Effect.sync(() => {
      if (this.hasStopped || this.isClosing) return
      this.queue.push(read)
      this.open++
      this.changed.openUnsafe()
    })
  }

  /** Waits until all that it was given has ended. */
  readonly drained: Effect.Effect<void> = this.until(
    () => this.open === 0 || (this.hasEnded && !this.declared.isRequired) || this.isClosing
  )

  /**
   * Takes nothing more, and ends what it is at: a required one for as long as the stream waits, an optional one for a second. Gives
   * whether it has left all behind.
   */
  readonly close: Effect.Effect<boolean> = Effect.suspend(() => {
    this.isClosing = true
    this.changed.openUnsafe()
    const { fiber } = this
    if (fiber === undefined) return Effect.succeed(true)
    const ended = Effect.interruptible(Fiber.await(fiber))
    if (this.declared.isRequired) return Effect.as(ended, true)
    const within = Effect.map(Effect.timeoutOption(ended, grace), (exit) => exit._tag === "Some")
    return Effect.flatMap(within, (isInTime) => {
      if (isInTime) return Effect.succeed(true)
      fiber.interruptUnsafe()
      return within
    })
  })
}

/** What of a read stands behind the first unit that ends in it. */
const behindUnit = <C>({ bytes, changes }: Read<C>): Read<C> | undefined => {
  const at = changes.findIndex((change) => endOf(change) !== undefined)
  const rest = at === -1 ? [] : changes.slice(at + 1)
  const [first, ...others] = rest
  return first === undefined
    ? undefined
    : { changes: [first, ...others], bytes: (bytes * rest.length) / changes.length }
}
