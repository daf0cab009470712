/**
 * The service: one slot, streamed, as long as its Layer lives. For programs that compose the stream by hand and from Layers;
 * `withLogicalStream` is the shorter way, and reconnects by itself. So does a program that is run by {@link retrying}.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { ReplicationError } from "../ReplicationError.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { DeliveryOf, PlainDelivery } from "./Delivery.ts"
import type { Health } from "./Health.ts"
import { type LogicalStream, make as makeStream } from "./LogicalStream.ts"
import type * as LogicalStreamOptions from "./LogicalStreamOptions.ts"
import type { Observation } from "./Observation.ts"
import type { StreamState } from "./StreamState.ts"

export type { Progress } from "./Delivery.ts"

/** As a stream's, without rows before it and without what is not committed: for those, {@link Service}. */
export interface Options extends Omit<LogicalStreamOptions.Options, "snapshot" | "copy" | "inProgress"> {
  readonly snapshot?: undefined
  readonly inProgress?: "gather" | undefined
}

/** What a service of a stream tells beside its connection. */
export interface Watched {
  readonly state: SubscriptionRef.SubscriptionRef<StreamState>
  /** How it is at this moment: `observe` of a `LogicalStream`. */
  readonly observe: Effect.Effect<Observation>
  /** Whether it is well: `health` of a `LogicalStream`. */
  readonly health: Effect.Effect<Health>
}

/** What a service of a stream of these options is. */
export type Shape<O extends LogicalStreamOptions.Options> = DeliveryOf<O> &
  Watched &
  Pick<LogicalStream<O>, "request" | "requests">

/** One slot, streamed: changes, acknowledgement, progress, state. See {@link layer}. */
export class Replication extends Context.Service<Replication, PlainDelivery<ReplicationError> & Watched>()(
  "@replicant/core/Replication"
) {}

/** The stream of a service: opened, and what belongs to it beside. */
const opened = <O extends LogicalStreamOptions.Options>(stream: LogicalStream<O>) =>
  Effect.map(stream.open, (delivery) => beside(stream, delivery))

const beside = <O extends LogicalStreamOptions.Options>(
  { health, observe, request, requests, state }: LogicalStream<O>,
  delivery: DeliveryOf<O>
): Shape<O> => Object.assign({}, delivery, { state, observe, health, request, requests })

/** The service over a `WalSender`. Building it connects; its errors are the connection's. */
export const layer = (options: Options): Layer.Layer<Replication, ReplicationError, WalSender> =>
  Layer.effect(
    Replication,
    Effect.flatMap(makeStream<LogicalStreamOptions.Options & { readonly snapshot?: undefined }>(options), (stream) =>
      Effect.map(opened(stream), (service) => Replication.of(service as unknown as Replication["Service"]))
    )
  )

/**
 * Runs a program over the service, with a connection made anew whenever one is lost, as often as `withLogicalStream` would:
 * `state` tells of it, the log, and `replicant_reconnects_total`. The program is interrupted when its connection ends, also
 * where it consumes in fibers of its own, and begun anew with the next. It ends the stream by ending; its own failures are
 * never retried.
 *
 * @example
 * const program = Effect.gen(function* () {
 *   const { acknowledgeThrough, transactions } = yield* Replication.Replication
 *   yield* Stream.runForEach(transactions, (transaction) =>
 *     Effect.andThen(store(transaction), acknowledgeThrough(transaction.nextLsn)))
 * })
 * program.pipe(Replication.retrying({ slot: "orders", plugin }), Effect.provide(PgWalSender.layerConfig))
 */
export const retrying =
  (options: Options) =>
  <A, E, R>(
    program: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | ReplicationError, Exclude<R, Replication> | WalSender> =>
    followed(options, Replication as unknown as Context.Key<Replication, never>, program)

const followed = <O extends LogicalStreamOptions.Options, Self, A, E, R>(
  options: O,
  tag: Context.Key<Self, never>,
  program: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LogicalStreamOptions.Failure<O>, Exclude<R, Self> | WalSender> =>
  Effect.flatMap(makeStream(options), (stream) =>
    stream.follow((delivery) => Effect.provideService(program, tag, beside(stream, delivery) as never))
  )

/** A service of one's own, for a stream of its own: see {@link Service}. */
export interface StreamService<Self, Id extends string, O extends LogicalStreamOptions.Options>
  extends Context.ServiceClass<Self, Id, Shape<O>> {
  readonly options: O
  /** The service over a `WalSender`. Building it connects, and sets a snapshot up; it does not try again by itself. */
  readonly layer: Layer.Layer<Self, LogicalStreamOptions.Failure<O>, WalSender>
  /** Runs a program over the service, with a connection made anew whenever one is lost: see {@link retrying}. */
  readonly retrying: <A, E, R>(
    program: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | LogicalStreamOptions.Failure<O>, Exclude<R, Self> | WalSender>
}

/**
 * A service of one's own: its elements are typed by its options, rows before them included, and any number of streams live in
 * one program, each under its own tag.
 *
 * @example
 * class Articles extends Replication.Service<Articles>()("app/Articles", {
 *   slot: "search_index",
 *   plugin: Pgoutput.make({ publications: ["articles"] }),
 *   snapshot: "initial"
 * }) {}
 * const program = Effect.gen(function* () {
 *   const { acknowledgeChange, changes } = yield* Articles
 *   yield* Stream.runForEach(changes, (change) => Effect.andThen(store(change), acknowledgeChange(change)))
 * })
 * program.pipe(Articles.retrying, Effect.provide(PgWalSender.layerConfig))
 */
export const Service =
  <Self>() =>
  <const Id extends string, const O extends LogicalStreamOptions.Options>(
    id: Id,
    options: O
  ): StreamService<Self, Id, O> => {
    const Tag = Context.Service<Self, Shape<O>>()(id)
    return Object.assign(Tag, {
      options,
      layer: Layer.effect(Tag, Effect.flatMap(makeStream(options), opened)),
      retrying: <A, E, R>(program: Effect.Effect<A, E, R>) =>
        followed(options, Tag as unknown as Context.Key<Self, never>, program)
    }) as unknown as StreamService<Self, Id, O>
  }
