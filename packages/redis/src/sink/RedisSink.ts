/**
 * A sink of Redis Streams: each message an entry, whole batches compared and appended by one script. The public module `RedisSink`.
 *
 * What is held last stands in a hash of the sink's own, written in the same step as the entries: so it is as durable as they are,
 * outlives their trimming, and serves any number of streams. Entries have their place for an id.
 */

import {
  type Message,
  Sink,
  type SinkError,
  SinkFenced,
  SinkRefused,
  SinkRejected,
  SinkUnavailable,
  version
} from "@replicant/core/sink"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redis from "effect/persistence/Redis"
import { fromRedis } from "./RedisFailure.ts"
import * as RedisScripts from "./RedisScripts.ts"
import * as StreamId from "./StreamId.ts"

/** A sink in Redis. */
export interface Options {
  /** The key of the hash that says what is held last: one a sink. In a cluster it has a tag, as streams have: `{shop}:mark`. */
  readonly mark: string
  /** About how many entries a stream keeps. Left out: all. */
  readonly maxLength?: number | undefined
  /** The largest message that is sent: 64 MiB. Redis itself closes the connection at `proto-max-bulk-len`, without a word. */
  readonly maxMessageBytes?: number | undefined
}

type Send = Redis.Redis["Service"]["send"]

/** What one append is to the script. */
interface Prepared {
  readonly keys: ReadonlyArray<string>
  readonly args: ReadonlyArray<string>
}

const textEncoder = new TextEncoder()

/** A message that is too large, if there is one. Only what may be is measured. */
const tooLarge = (sink: string, most: number, batch: ReadonlyArray<Message>): SinkRejected | undefined => {
  for (const { id, value = "" } of batch) {
    if (value.length * 3 <= most) continue
    const size = textEncoder.encode(value).length
    if (size > most) return new SinkRejected({ sink, id, size, detail: `a message has at most ${most} bytes` })
  }
  return undefined
}

const prepare = (batch: NonEmptyReadonlyArray<Message>): Prepared => {
  const keys = new Map<string, number>()
  const args: Array<string> = []
  const streamId = StreamId.reader()
  for (const message of batch) {
    let index = keys.get(message.to)
    if (index === undefined) {
      // The first of Lua's, and the mark before it.
      index = keys.size + 2
      keys.set(message.to, index)
    }
    const { id, key, op, value } = message
    const has = `${key === undefined ? "-" : "k"}${value === undefined ? "-" : "v"}`
    args.push(`${index} ${streamId(id)} ${id} ${op} ${has}`, key ?? "", value ?? "")
  }
  return { keys: [...keys.keys()], args }
}

const refusal = (sink: string, [word, ...rest]: ReadonlyArray<string>): SinkError => {
  switch (word) {
    case "fenced":
      return new SinkFenced({ sink, detail: `its epoch is ${rest[0] === "" ? "gone" : rest[0]}` })
    case "predecessor":
      return new SinkFenced({
        sink,
        detail: `${rest[0] === "" ? "nothing" : rest[0]} stands where our last message was`
      })
    case "kind":
      return new SinkRefused({
        sink,
        reason: "Setup",
        detail: `"${rest[0]}" is a ${rest[1]} and no stream`,
        remedy: "route messages to keys that are streams, or none yet"
      })
    default:
      return new SinkRefused({
        sink,
        reason: "Setup",
        detail: `the stream "${rest[0]}" ends at ${rest[1]}, behind what is to be appended: others write to it`,
        remedy: "give each sink streams that are its alone, and a mark that belongs to them"
      })
  }
}

const writerOf = (
  send: Send,
  options: Options,
  sink: string,
  [, epoch = "", id = "", system = ""]: ReadonlyArray<string>
): Sink.SinkWriter => {
  const { mark, maxLength = 0, maxMessageBytes = 64 * 1024 * 1024 } = options
  let last = id
  let hasFailed = false
  const failed = (error: SinkError) => {
    hasFailed = true
    return Effect.fail(error)
  }
  const append = (batch: NonEmptyReadonlyArray<Message>): Effect.Effect<void, SinkError> =>
    Effect.suspend(() => {
      if (hasFailed)
        return Effect.fail(new SinkUnavailable({ sink, reason: "Closed", detail: "an earlier append has failed" }))
      const rejected = tooLarge(sink, maxMessageBytes, batch)
      if (rejected !== undefined) return failed(rejected)
      const { args, keys } = prepare(batch)
      const { id: own, systemId = "" } = batch.at(-1)!
      const head = [epoch, last, own, systemId, String(maxLength), version]
      last = own
      const asked = send<ReadonlyArray<string>>(
        "EVAL",
        RedisScripts.append,
        String(keys.length + 1),
        mark,
        ...keys,
        ...head,
        ...args
      )
      return Effect.matchEffect(asked, {
        onFailure: (error) => failed(fromRedis(sink, error)),
        onSuccess: (answer) => (answer[0] === "appended" ? Effect.void : failed(refusal(sink, answer)))
      })
    })
  const held = id === "" ? Option.none() : Option.some({ id, systemId: system === "" ? undefined : system })
  return { mark: held, append, maxInFlight: 4, epoch }
}

/** A sink that sends by a client that is there. */
export const make = (options: Options): Effect.Effect<Sink.SinkShape, never, Redis.Redis> =>
  Effect.map(Redis.Redis, ({ send }) => {
    const name = `redis "${options.mark}"`
    return {
      name,
      open: (instead) =>
        Effect.suspend(() => {
          const family = instead?.split(".")[0]
          const epoch = `${family ?? crypto.randomUUID()}.${crypto.randomUUID()}`
          const asked = send<ReadonlyArray<string>>("EVAL", RedisScripts.open, "1", options.mark, family ?? "", epoch)
          return Effect.matchEffect(asked, {
            onFailure: (error) => Effect.fail(fromRedis(name, error)),
            onSuccess: (answer) =>
              answer[0] === "open"
                ? Effect.succeed(writerOf(send, options, name, answer))
                : Effect.fail(refusal(name, answer))
          })
        })
    }
  })

/**
 * A sink of Redis Streams. `route` says which: each table its own, unless told otherwise. The client comes by context, with TLS
 * and authentication as its options have them.
 *
 * @example
 * Sink.run({ slot: "orders", plugin, sink: { route: Route.one("shop") } }).pipe(
 *   Effect.provide(RedisSink.layer({ mark: "shop:mark", maxLength: 1_000_000 })),
 *   Effect.provide([NodeRedis.layer({ url: "rediss://redis.internal:6379" }), PgWalSender.layerConfig]))
 */
export const layer = (options: Options): Layer.Layer<Sink.Sink, never, Redis.Redis> =>
  Layer.effect(Sink.Sink, make(options))
