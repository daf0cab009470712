/**
 * What is decoded ahead of the consumer: room for one read, between the fiber that reads and the fiber that consumes.
 *
 * Not a `Queue` of Effect's, which wakes its taker by way of the scheduler, one turn of the event loop later. Here who
 * waits is resumed at once, within the step of who made it wait: of a commit that comes alone, that turn was a good part
 * of the cost, and of the latency. It has one consumer, and one producer.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/** A producer that found no room. */
interface Waiting<A> {
  readonly value: A
  readonly resume: (effect: Effect.Effect<void>) => void
}

export class ReadsAhead<A, E> {
  private held: { readonly value: A } | undefined
  private producer: Waiting<A> | undefined
  private wakeConsumer: ((effect: Effect.Effect<A, E>) => void) | undefined
  private end: Exit.Exit<never, E> | undefined

  /** The next value; once they are taken, the end. An interrupted consumer takes nothing. */
  readonly take: Effect.Effect<A, E> = Effect.suspend(() => this.takeNow())

  private readonly awaitValue: Effect.Effect<A, E> = Effect.callback((resume) => {
    this.wakeConsumer = resume
    return Effect.sync(() => {
      this.wakeConsumer = undefined
    })
  })

  /** Done once there is room for `value`, which takes none after the end. An interrupted producer leaves nothing. */
  offer(value: A): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.end !== undefined) return Effect.void
      if (this.held !== undefined) return this.awaitRoom(value)
      this.held = { value }
      this.wake()
      return Effect.void
    })
  }

  /** Fails who takes, after what is held. */
  fail(cause: Cause.Cause<E>): Effect.Effect<void> {
    return Effect.sync(() => this.finish(Exit.failCause(cause)))
  }

  /** Interrupts who takes. What is held is dropped. */
  readonly shutdown: Effect.Effect<void> = Effect.sync(() => {
    this.held = undefined
    this.finish(Exit.interrupt())
  })

  private finish(end: Exit.Exit<never, E>): void {
    this.end ??= end
    const { producer } = this
    this.producer = undefined
    producer?.resume(Effect.void)
    this.wake()
  }

  private wake(): void {
    const { wakeConsumer } = this
    this.wakeConsumer = undefined
    // It takes in its own step: were it interrupted first, the value would still be here.
    wakeConsumer?.(this.take)
  }

  private takeNow(): Effect.Effect<A, E> {
    const { held, producer } = this
    if (held === undefined) return this.end ?? this.awaitValue
    this.held = producer
    this.producer = undefined
    producer?.resume(Effect.void)
    return Effect.succeed(held.value)
  }

  private awaitRoom(value: A): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const waiting = { value, resume }
      this.producer = waiting
      return Effect.sync(() => {
        if (this.producer === waiting) this.producer = undefined
      })
    })
  }
}
