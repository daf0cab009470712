/**
 * A sink of NATS JetStream: each message one of a stream, in one order, each naming its predecessor. The public module `NatsSink`.
 *
 * What is held last is the stream's last message. Opening appends a record to the stream, on a subject of the sink's own: what a
 * former writer has under way does not fit behind that, and whoever reads the stream's end sees who wrote there last.
 */
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream"
import type { NatsConnection } from "@nats-io/transport-node"
import { type Mark, Sink, type SinkError, SinkFenced, SinkUnavailable } from "@replicant/core/sink"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type Connection, connect } from "./NatsConnection.ts"
import { type ApiError, fromApi, fromNats, isOfChain } from "./NatsFailure.ts"
import { foreign, type NewStream, problemOf, type Tail, tailOf, writtenIn } from "./NatsStream.ts"
import { recordHeaders, Writer } from "./NatsWriter.ts"
import { familyOf, Sent } from "./Sent.ts"

export type { Connection } from "./NatsConnection.ts"
export type { NewStream } from "./NatsStream.ts"

/** A sink in JetStream. */
export interface Options {
  /** Where the server is, as whom, with TLS: `connect` of `@nats-io/transport-node` has them. */
  readonly connection: Connection
  /** The stream, which is the sink's alone. */
  readonly stream: string
  /** A subject of the stream for the sink's own records, which are no messages: one at each opening. */
  readonly mark: string
  /** Makes the stream where there is none, in JetStream's words. Left out, it must be there. */
  readonly createStream?: NewStream | undefined
  /** The largest message that is sent, with its headers. Left out: what the server and the stream take. */
  readonly maxMessageBytes?: number | undefined
}

const attempts = 10

/** One opening, on its connection. */
interface Opening {
  readonly sink: string
  readonly options: Options
  readonly connection: NatsConnection
  readonly manager: JetStreamManager
  readonly epoch: string
  readonly sent: Sent
}

/** Makes the stream, where that is asked for: another may do so at the same time, and then it is there. */
const makeStream = ({ manager, options: { createStream, stream }, sink }: Opening): Effect.Effect<void, SinkError> => {
  if (createStream === undefined) return Effect.void
  const made = Effect.tryPromise({
    try: () => manager.streams.add({ ...createStream, name: stream } as never),
    catch: (cause) => fromNats(sink, cause)
  })
  const isThere = Effect.tryPromise({ try: () => manager.streams.info(stream), catch: () => undefined })
  return Effect.asVoid(
    Effect.catch(isThere, () => Effect.catch(made, (error) => Effect.mapError(isThere, () => error)))
  )
}

/** What is held last. What has expired, and nobody has written since, is still known to who wrote it. */
const markOf = ({ sent }: Opening, { last, sequence }: Tail): Mark | undefined => {
  const written = last === undefined ? undefined : writtenIn(last)
  return written === undefined || written._tag === "Foreign" ? sent.heldAt(sequence)?.mark : written.mark
}

/** Whether somebody else has opened it since the writer whose place is to be taken. */
const isFenced = ({ sent }: Opening, { last, sequence }: Tail, instead: string): boolean => {
  const written = last === undefined ? undefined : writtenIn(last)
  if (written?._tag === "Record") return familyOf(written.epoch) !== familyOf(instead)
  return !sent.isAlone(instead, sequence, written?._tag === "Message" ? written.mark : undefined)
}

/** Appends a record behind what was seen, or says that something else stands there by now. */
const record = (opening: Opening, { sequence }: Tail, mark: Mark | undefined): Effect.Effect<boolean, SinkError> => {
  const { connection, epoch, options, sink } = opening
  const made = recordHeaders({ epoch, id: epoch, mark, sequence })
  const asked = Effect.tryPromise({
    try: async () =>
      (await connection.request(options.mark, "", { headers: made, timeout: 10_000 })).json<{ error?: ApiError }>(),
    catch: (cause) => fromNats(sink, cause)
  })
  return Effect.flatMap(asked, ({ error }) => {
    if (error === undefined) return Effect.succeed(true)
    return isOfChain(error) ? Effect.succeed(false) : Effect.fail(fromApi(sink, error))
  })
}

const open = Effect.fnUntraced(function* (
  sink: string,
  options: Options,
  sent: Sent,
  instead: string | undefined
): Effect.fn.Return<Sink.SinkWriter, SinkError, Scope.Scope> {
  const family = instead === undefined ? crypto.randomUUID() : familyOf(instead)
  const epoch = `${family}.${crypto.randomUUID()}`
  const connection = yield* connect(sink, { ...options.connection, reconnect: false })
  const manager = yield* Effect.tryPromise({
    try: () => jetstreamManager(connection, { checkAPI: false, timeout: 10_000 }),
    catch: (cause) => fromNats(sink, cause)
  })
  const opening: Opening = { sink, options, connection, manager, epoch, sent }
  yield* makeStream(opening)
  // What a former writer has under way may land between the look and the record.
  for (let attempt = 0; attempt < attempts; attempt++) {
    const tail = yield* tailOf(sink, manager, options.stream)
    const problem = problemOf(sink, tail.config, options.mark)
    if (problem !== undefined) return yield* problem
    if (tail.last !== undefined && writtenIn(tail.last)._tag === "Foreign") return yield* foreign(sink, tail.last)
    if (instead !== undefined && isFenced(opening, tail, instead))
      return yield* new SinkFenced({ sink, detail: `at its sequence ${tail.sequence} stands what is not of ${family}` })
    const mark = markOf(opening, tail)
    if (!(yield* record(opening, tail, mark))) continue
    const sequence = tail.sequence + 1
    sent.opened(epoch, sequence, mark)
    const maxMessageBytes = options.maxMessageBytes ?? Number.POSITIVE_INFINITY
    const parts = { sink, connection, manager, stream: options.stream, config: tail.config, sent, maxMessageBytes }
    const writer = new Writer({ ...parts, epoch, sequence })
    yield* writer.listen
    const { max_age: nanos } = tail.config
    if (nanos > 0) yield* Effect.forkScoped(writer.renewing(options.mark, nanos / 3_000_000))
    return { mark: Option.fromUndefinedOr(mark), append: writer.append, maxInFlight: 4, epoch }
  }
  return yield* new SinkUnavailable({ sink, reason: "NotReady", detail: "others write to it all the time" })
})

/** A sink, with a connection for each writer. */
export const make = (options: Options): Sink.SinkShape => {
  const sent = new Sent()
  const name = `nats stream "${options.stream}"`
  return { name, open: (instead) => open(name, options, sent, instead) }
}

/**
 * A sink of a JetStream stream. `route` says to which of the stream's subjects: each table its own, unless told otherwise.
 *
 * @example
 * Sink.run({ slot: "orders", plugin, sink: { route: { rows: "shop.{schema}.{table}" } } }).pipe(
 *   Effect.provide(NatsSink.layer({ connection: { servers: "tls://nats.internal" }, stream: "SHOP", mark: "shop.mark" })),
 *   Effect.provide(PgWalSender.layerConfig))
 */
export const layer = (options: Options): Layer.Layer<Sink.Sink> => Layer.sync(Sink.Sink, () => make(options))
