/**
 * The other end of a sink in JetStream: messages of declared tables, for any number of services, each with a durable consumer of its
 * own. The public module `NatsSource`.
 *
 * A message is acknowledged by its reader, and comes again until it is: JetStream sends it again after the consumer's `ack_wait`,
 * be it that the reader still has it. Such a one is not handed over twice to a reader that lives.
 */
import { AckPolicy, type ConsumerMessages, type JsMsg, jetstreamManager } from "@nats-io/jetstream"
import type { NodeConnectionOptions } from "@nats-io/transport-node"
import type { Table } from "@replicant/core"
import { type EnvelopeMismatch, Received, type SinkError } from "@replicant/core/sink"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { connect } from "./NatsConnection.ts"
import { fromNats } from "./NatsFailure.ts"
import { header } from "./NatsStream.ts"

/** JetStream could not be read from, and it will not pass by itself. */
export class NatsSourceError extends Schema.TaggedError<NatsSourceError>("@replicant/nats/NatsSourceError")(
  "NatsSourceError",
  {
    during: Schema.Literals(["read", "acknowledge"]),
    problem: Schema.String,
    remedy: Schema.String,
    isRetryable: Schema.Boolean
  }
) {
  override get message(): string {
    return `cannot ${this.during}: ${this.problem}`
  }
}

/** What is read, and by whom. */
export interface Options<T extends Table.Any> {
  readonly tables: ReadonlyArray<T>
  /** Where the server is, as whom, with TLS. It is connected to again for ever, unless `maxReconnectAttempts` says otherwise. */
  readonly connection: NodeConnectionOptions
  readonly stream: string
  /** The service's durable consumer. Made where it is not there, at the beginning of the stream; its own settings are kept. */
  readonly consumer: string
  /** Of a consumer that is made: the one subject that it reads, with stars or without. Left out: all. */
  readonly subject?: string | undefined
  /** How many messages are asked for at a time: 100. */
  readonly count?: number | undefined
  /** How long to wait before it begins anew, where the client has given up: a second. */
  readonly reconnectAfter?: Duration.Input | undefined
}

/** A message, and how it is acknowledged. */
export interface Delivery<T extends Table.Any> {
  readonly change: Received.Received<T>
  readonly subject: string
  /** Ends when JetStream has said so too. Do so once it is handled, in any order. */
  readonly acknowledge: Effect.Effect<void, NatsSourceError>
}

const told = (during: NatsSourceError["during"], { isRetryable, message: problem, remedy }: SinkError) =>
  new NatsSourceError({ during, problem, remedy, isRetryable })

const failed = (during: NatsSourceError["during"]) => (cause: unknown) => told(during, fromNats("nats", cause))

/** So many that were acknowledged are remembered: one of them may be on its way once more. */
const remembered = 10_000

/** What was handed over, by id: what waits for its acknowledgement, with its last copy, and what had it. */
class Handed {
  private readonly waiting = new Map<string, JsMsg>()
  private readonly done = new Set<string>()

  /** Whether it is new; of one that is not the newest copy is kept, and of one that is done it is said again. */
  take(id: string, message: JsMsg): boolean {
    if (this.done.has(id)) {
      message.ack()
      return false
    }
    const isNew = !this.waiting.has(id)
    this.waiting.set(id, message)
    return isNew
  }

  readonly acknowledge = (id: string): Effect.Effect<void, NatsSourceError> =>
    Effect.suspend(() => {
      const message = this.waiting.get(id)
      if (message === undefined) return Effect.void
      const asked = Effect.tryPromise({ try: () => message.ackAck({ timeout: 10_000 }), catch: failed("acknowledge") })
      return Effect.flatMap(asked, (isHeard) => {
        // No answer: it comes again.
        if (!isHeard) return Effect.fail(failed("acknowledge")(new Error("JetStream has not confirmed it")))
        this.forget(id)
        return Effect.void
      })
    })

  /** It is done. */
  forget(id: string): void {
    this.waiting.delete(id)
    this.done.add(id)
    const [first] = this.done
    if (this.done.size > remembered && first !== undefined) this.done.delete(first)
  }
}

/**
 * Changes of declared tables as they come, for ever: what had not been acknowledged before first, then what is new. What is of no
 * table of the set is acknowledged by itself.
 *
 * @example
 * NatsSource.changes({ tables: [Orders], connection: { servers: "nats.internal" }, stream: "SHOP", consumer: "mailer" }).pipe(
 *   Stream.runForEach(({ acknowledge, change }) => Effect.andThen(store(change), acknowledge)))
 */
export const changes = <const T extends Table.Any>(
  options: Options<T>
): Stream.Stream<Delivery<T>, NatsSourceError | EnvelopeMismatch> => {
  const { connection, consumer, count = 100, stream, subject } = options
  const decode = Received.decoder(options.tables)
  const ask = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: failed("read") })

  const read = Effect.gen(function* () {
    const reconnecting = { maxReconnectAttempts: -1, ...connection }
    const connected = yield* Effect.mapError(connect("nats", reconnecting), (error) => told("read", error))
    const manager = yield* ask(() => jetstreamManager(connected, { checkAPI: false, timeout: 10_000 }))
    const info = ask(() => manager.consumers.info(stream, consumer))
    const filter = subject === undefined ? {} : { filter_subject: subject }
    const made = { durable_name: consumer, ack_policy: AckPolicy.Explicit, ...filter }
    yield* Effect.catch(info, () => ask(() => manager.consumers.add(stream, made)))
    const reader = yield* ask(() => manager.jetstream().consumers.get(stream, consumer))
    return yield* Effect.acquireRelease(
      ask(() => reader.consume({ max_messages: count, abort_on_missing_resource: true })),
      (messages) => Effect.promise(() => messages.close().then(() => undefined))
    )
  })

  const deliveries = (handed: Handed, messages: ConsumerMessages) =>
    Stream.fromAsyncIterable(messages, failed("read")).pipe(
      Stream.mapEffect((message) =>
        Effect.suspend((): Effect.Effect<Option.Option<Delivery<T>>, EnvelopeMismatch> => {
          const id = message.headers?.get(header.id) || String(message.seq)
          if (!handed.take(id, message)) return Effect.succeedNone
          // A record of a writer's, or a tombstone, has no body.
          const read = decode(id, message.data.length === 0 ? undefined : message.string())
          if (Result.isFailure(read)) return Effect.fail(read.failure)
          const change = read.success
          if (change === undefined) {
            message.ack()
            handed.forget(id)
            return Effect.succeedNone
          }
          return Effect.succeedSome({ change, subject: message.subject, acknowledge: handed.acknowledge(id) })
        })
      ),
      Stream.filterMap((delivery) => (Option.isSome(delivery) ? Result.succeed(delivery.value) : Result.failVoid))
    )

  return Stream.suspend(() => {
    const handed = new Handed()
    const ended = Stream.fail(failed("read")(new Error("the consumer has ended")))
    const session = Stream.unwrap(Effect.map(read, (messages) => Stream.concat(deliveries(handed, messages), ended)))
    const pause = Effect.sleep(options.reconnectAfter ?? "1 second")
    const lasting = (): typeof session =>
      Stream.catch(session, (error) =>
        error._tag === "NatsSourceError" && error.isRetryable
          ? Stream.unwrap(
              Effect.logWarning(`reading again after ${error.message}`).pipe(Effect.andThen(pause), Effect.map(lasting))
            )
          : Stream.fail(error)
      )
    return lasting()
  })
}
