/**
 * One slot, several consumers in a process, each with a handler and a progress of its own. The slot follows the slowest that is
 * required; one that is not may be left behind, and begins anew.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Lsn from "../Lsn.ts"
import { InvalidOption } from "../ReplicationError.ts"
import { CurrentConsumers } from "../replication/Consumers.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import {
  type Consume,
  from,
  type Handler,
  type Input,
  type Position,
  type Read,
  type Session
} from "../stream/Handler.ts"
import { BroadcastConsumer, type Declared, type Lagged } from "./BroadcastConsumer.ts"
import { partOf, type Reread, Rereading } from "./BroadcastReread.ts"
import { bare, endOf } from "./ChangeKey.ts"
import { SharedProgress } from "./SharedProgress.ts"

/** A consumer of a broadcast, made by {@link required} or {@link optional}. */
export interface Consumer<in C, out E, out R> {
  readonly handler: Handler<C, unknown, R>
  readonly isRequired: boolean
  readonly queue: number | undefined
  readonly whenLagged: ((lagged: Lagged) => Effect.Effect<unknown, unknown, R>) | undefined
  readonly reread: Reread | undefined
  /** How its failure ends the stream; of an optional one it does not. */
  readonly Error: (_: never) => E
}

/** How much a consumer may be behind. */
export interface RequiredOptions {
  /** How many reads wait for it, at most: 16. When they do, nothing more is read, and the others wait, too. */
  readonly queue?: number | undefined
}

/** What becomes of a consumer that need not keep up. */
export interface OptionalOptions<E, R> {
  /** How many reads wait for it, at most: 16. When one more comes, it is left behind. */
  readonly queue?: number | undefined
  /** Told each time that it was left behind, and when the program starts, before its handler is made anew: to empty what it fills. */
  readonly whenLagged?: ((lagged: Lagged) => Effect.Effect<unknown, E, R>) | undefined
  /** Left out, it goes on with what comes next, and has missed the rest. */
  readonly reread?: Reread | undefined
}

const noError = (_: never): never => {
  throw new Error("a type, and no function")
}

/**
 * A consumer that misses nothing: the slot keeps what it has not done, and its failure ends the stream.
 *
 * @example
 * const search = Handler.required(Handler.batch({ rows: 1000, within: "1 second" }, (changes) => storeAll(changes)))
 */
export const required = <C, E = never, R = never>(
  handler: Input<C, E, R>,
  { queue }: RequiredOptions = {}
): Consumer<C, E, R> => ({
  handler: from(handler) as Handler<C, unknown, R>,
  isRequired: true,
  queue,
  whenLagged: undefined,
  reread: undefined,
  Error: noError
})

/**
 * A consumer that nobody waits for: when it is behind by more than its queue, it is left behind, told so, and made anew, over tables
 * that are read anew for it alone where `reread` says which. Its failure ends it and nothing else.
 *
 * @example
 * const cache = Handler.optional((change) => Effect.as(store(change), undefined), {
 *   whenLagged: () => store("cleared"),
 *   reread: { request: stream.request, tables: ["public.orders"] }
 * })
 */
export const optional = <C, E = never, R = never, E2 = never, R2 = never>(
  handler: Input<C, E, R>,
  options: OptionalOptions<E2, R2> = {}
): Consumer<C, never, R | NoInfer<R2>> => ({
  handler: from(handler) as Handler<C, unknown, R>,
  isRequired: false,
  queue: options.queue,
  whenLagged: options.whenLagged,
  reread: options.reread,
  Error: noError
})

/** Of consumers by name. */
type Consumers<C> = { readonly [name: string]: Consumer<C, unknown, unknown> }

type ErrorOf<T> = { [Name in keyof T]: T[Name] extends Consumer<never, infer E, unknown> ? E : never }[keyof T]
type ContextOf<T> = { [Name in keyof T]: T[Name] extends Consumer<never, unknown, infer R> ? R : never }[keyof T]

const defaultQueue = 16

const problemOf = (consumers: Consumers<never>): InvalidOption | undefined => {
  const isWhole = ({ queue = defaultQueue }: Consumer<never, unknown, unknown>) => Number.isInteger(queue) && queue > 0
  if (!Object.values(consumers).some(({ isRequired }) => isRequired)) {
    const problem = "none is required, so nothing says what is done: make one Handler.required"
    return new InvalidOption({ option: "consumers", problem })
  }
  if (!Object.values(consumers).every(isWhole)) {
    return new InvalidOption({ option: "queue", problem: "is not a number from 1" })
  }
  return undefined
}

/** What is remembered of an optional consumer from one connection to the next. */
interface Remembered {
  /** It has all that does not come again: nothing is known of that before the first connection. */
  hasAll: boolean
  done: Lsn.Lsn
  /** It has failed, or is stuck, and is not made any more. */
  hasEnded: boolean
}

/** Where the stream starts, by those consumers that know it themselves. */
const positionOf = <C, R>(consumers: ReadonlyArray<Declared<C, R>>) => {
  const kept = consumers.filter(({ handler, isRequired }) => isRequired && handler.position !== undefined)
  if (kept.length === 0) return undefined
  const isOfAll = kept.length === consumers.filter(({ isRequired }) => isRequired).length
  return (slot: string): Effect.Effect<Position, unknown, R> =>
    Effect.map(
      Effect.forEach(kept, ({ handler }) => handler.position!(slot)),
      (positions) => {
        const checkpoints = positions.flatMap(({ checkpoint }) => checkpoint ?? [])
        const [first] = checkpoints.toSorted((left, right) => (left.endLsn < right.endLsn ? -1 : 1))
        // Where somebody has none, the slot's own position is his: whoever is further leaves out what he has.
        const checkpoint = isOfAll || first === undefined ? first : { ...first, endLsn: Lsn.zero }
        const storeIdleFlush = (lsn: Lsn.Lsn) =>
          Effect.forEach(positions, (each) => each.storeIdleFlush?.(lsn) ?? Effect.void, { discard: true })
        return { checkpoint, storeIdleFlush } as Position
      }
    )
}

class Broadcasting<C, R> {
  private readonly declared: ReadonlyArray<Declared<C, R>>
  private readonly remembered = new Map<string, Remembered>()
  /** Those of the present connection. */
  private current: ReadonlyArray<BroadcastConsumer<C, R>> = []
  /** A stream has begun in this process. */
  private hasBegun = false
  /** Rows were read by an earlier process, which an optional consumer of this one may lack. */
  private isResumed = false

  constructor(consumers: Consumers<C>) {
    this.declared = Object.entries(consumers).map(([name, consumer]) => {
      const { handler, isRequired, queue = defaultQueue, reread, whenLagged } = consumer as Consumer<C, unknown, R>
      const onFailure = (error: unknown) =>
        Effect.suspend(
          () => this.current.find(({ declared }) => declared.name === name)?.fails(Cause.fail(error)) ?? Effect.void
        )
      const rereading = reread === undefined ? undefined : new Rereading(name, reread, onFailure)
      this.remembered.set(name, { hasAll: false, done: Lsn.zero, hasEnded: false })
      const begins = (lagged: Lagged) =>
        Effect.as(
          Effect.andThen(rereading?.cancel ?? Effect.void, whenLagged?.(lagged) ?? Effect.void),
          rereading?.begin ?? Effect.void
        )
      const isReading = rereading?.isReading ?? (() => false)
      return { name, handler, isRequired, queue, isReading, begins: isRequired ? undefined : begins }
    })
  }

  get position() {
    return positionOf(this.declared)
  }

  readonly make: Handler<C, unknown, R>["make"] = Effect.fnUntraced({ self: this }, function* (session) {
    const scope = yield* Effect.scope
    const isCopy = session.system === undefined
    const progress = new SharedProgress()
    const shared = { session, progress, consumers: yield* CurrentConsumers, fibers: yield* Scope.fork(scope) }
    const all: Array<BroadcastConsumer<C, R>> = []
    for (const declared of this.declared) {
      const { done, hasAll, hasEnded } = this.remembered.get(declared.name)!
      if (hasEnded) continue
      const isBehind = !declared.isRequired && !isCopy && !hasAll
      const reason = this.hasBegun ? "ConnectionLost" : "Started"
      all.push(new BroadcastConsumer(declared, shared, isBehind ? { reason, done } : undefined))
    }
    this.hasBegun ||= !isCopy
    this.current = all
    yield* Effect.addFinalizer(() => this.close(all, session, progress))
    for (const consumer of all) yield* consumer.start
    return this.consumeBy(all, progress, isCopy)
  })

  /** Ends what runs, and remembers who has all that does not come again. */
  private readonly close = Effect.fnUntraced(
    { self: this },
    function* (all: ReadonlyArray<BroadcastConsumer<C, R>>, session: Session<unknown>, progress: SharedProgress) {
      const closed = yield* Effect.forEach(all, ({ close }) => close, { concurrency: "unbounded" })
      const durable = yield* session.durable
      for (const [index, { declared, done, hasEnded }] of all.entries()) {
        if (declared.isRequired) continue
        const isStuck = closed[index] === false
        if (isStuck) yield* Effect.logError(`the consumer ${declared.name} is stuck, and is given nothing more`)
        const hasAll = session.system === undefined ? !this.isResumed : progress.hasAll(declared.name, durable)
        this.remembered.set(declared.name, { hasAll, done, hasEnded: hasEnded || isStuck })
      }
    }
  )

  private consumeBy(
    all: ReadonlyArray<BroadcastConsumer<C, R>>,
    progress: SharedProgress,
    isCopy: boolean
  ): Consume<C, unknown, R> {
    let isOpen = false
    let hasStarted = false
    const mayLag = all.some(({ declared }) => !declared.isRequired)
    return Effect.fnUntraced({ self: this }, function* (read: Read<C>): Effect.fn.Return<
      void,
      unknown | SnapshotError,
      R
    > {
      // Whoever begins anew does so between two units.
      let isBetween = !isOpen
      if (isBetween) for (const consumer of all) consumer.join(false)
      let [isOwned, isMark] = [false, false]
      for (const change of read.changes) {
        const { _tag } = bare(change)
        const end = endOf(change)
        if (_tag === "StreamStart" && mayLag) {
          const problem = "delivers what is not committed, in the middle of which nobody can be left behind"
          return yield* new InvalidOption({ option: "inProgress", problem })
        }
        if (_tag === "Begin") isOpen = true
        if (_tag === "SnapshotStarted") hasStarted = true
        if (_tag === "SnapshotResumed" && !hasStarted) this.isResumed = true
        if (end !== undefined) {
          progress.deliver(end)
          if (!isBetween) for (const consumer of all) consumer.join(true)
          isBetween = true
          if (_tag !== "Message") isOpen = false
        }
        if (_tag === "SnapshotRangeCompleted" || _tag === "SnapshotCompleted" || _tag === "Gap") isMark = true
        if (!isCopy && (_tag.includes("SnapshotRow") || _tag.startsWith("TableSnapshot"))) isOwned = true
      }
      for (const consumer of all) {
        const { isRequired, name } = consumer.declared
        const part = isOwned ? partOf(read, name) : read
        if (part !== undefined) yield* consumer.give(part, isRequired || isCopy)
      }
      // All before a mark is durable when it has ended.
      if (isMark) for (const consumer of all) if (consumer.declared.isRequired || isCopy) yield* consumer.drained
      const failed = all.find(({ declared, failure }) => declared.isRequired && failure !== undefined)
      if (failed !== undefined) return yield* Effect.fail(Cause.squash(failed.failure!))
    })
  }
}

/**
 * Several consumers of one stream, each with a handler of its own: a slot, a connection and a decoder for all of them. What is
 * acknowledged to the server is what every required one has done.
 *
 * Each has a queue of reads. A required one that is behind makes the others wait once its queue is full; an optional one is left
 * behind then, is told of it by a {@link Lagged}, and begins anew. In a first copy all are waited for.
 *
 * @example
 * withLogicalStream(options, Handler.broadcast({
 *   search: Handler.required(Handler.durable((changes) => storeAll(changes))),
 *   cache: Handler.optional((change) => Effect.as(store(change), undefined), { whenLagged: () => store("cleared") })
 * }))
 */
export const broadcast = <C, const T extends Consumers<C>>(
  consumers: T & Consumers<C>
): Handler<C, ErrorOf<T>, ContextOf<T>> => {
  const broadcasting = new Broadcasting<C, unknown>(consumers)
  const { make, position } = broadcasting
  const made: Handler<C, unknown, unknown> = {
    unfit: (plugin) => {
      for (const { handler } of Object.values(consumers)) {
        const problem = handler.unfit?.(plugin)
        if (problem !== undefined) return problem
      }
      return problemOf(consumers as Consumers<never>)
    },
    position,
    make
  }
  return made as Handler<C, ErrorOf<T>, ContextOf<T>>
}
