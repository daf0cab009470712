/**
 * The other end of a sink in Redis: messages of declared tables, for any number of services, each with a consumer group of its own.
 * The public module `RedisSource`.
 *
 * A message is acknowledged by its reader, and comes again to the same consumer until it is: after a lost connection without what
 * has been handed over already, after a restart from the first one that was not acknowledged, under the same id.
 */

import type { Table } from "@replicant/core"
import { type EnvelopeMismatch, Received } from "@replicant/core/sink"
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redis from "effect/persistence/Redis"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { fromRedis } from "./RedisFailure.ts"

/** Redis could not be read from, and it will not pass by itself. */
export class RedisSourceError extends Schema.TaggedError<RedisSourceError>("@replicant/redis/RedisSourceError")(
  "RedisSourceError",
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
  /** The streams that the sink's route names. Each is in order by itself. */
  readonly streams: NonEmptyReadonlyArray<string>
  /** Made where it is not there, at the beginning of the stream. */
  readonly group: string
  /** This reader's name in its group: the same after a restart, and nobody else's. */
  readonly consumer: string
  /** How many messages are asked for at a time: 100. */
  readonly count?: number | undefined
  /** How long to wait before it connects again, for ever: a second. */
  readonly reconnectAfter?: Duration.Input | undefined
}

/** A message, and how it is acknowledged. */
export interface Delivery<T extends Table.Any> {
  readonly change: Received.Received<T>
  readonly stream: string
  /** Redis forgets it for this group. Do so once it is handled, in any order. */
  readonly acknowledge: Effect.Effect<void, RedisSourceError>
}

type Entry = readonly [id: string, fields: ReadonlyArray<string> | null]
type Entries = ReadonlyArray<readonly [stream: string, entries: ReadonlyArray<Entry>]>

/** What XREADGROUP answers, whichever protocol the client speaks: pairs, or a map, or nothing. */
const entriesOf = (answer: unknown): Entries => {
  if (answer === null || answer === undefined) return []
  if (answer instanceof Map) return [...answer] as unknown as Entries
  if (!Array.isArray(answer)) return Object.entries(answer) as unknown as Entries
  if (Array.isArray(answer[0])) return answer as Entries
  return Array.from({ length: answer.length / 2 }, (_, at) => [
    answer[at * 2],
    answer[at * 2 + 1]
  ]) as unknown as Entries
}

/** Whether one id of Redis comes after another. */
const isAfter = (id: string, last: string | undefined): boolean => {
  if (last === undefined) return true
  const [left = 0n, right = 0n] = id.split("-").map(BigInt)
  const [lastLeft = 0n, lastRight = 0n] = last.split("-").map(BigInt)
  return left > lastLeft || (left === lastLeft && right > lastRight)
}

const fieldOf = (fields: ReadonlyArray<string>, name: string): string | undefined => {
  for (let at = 0; at < fields.length; at += 2) if (fields[at] === name) return fields[at + 1]
  return undefined
}

const failed = (during: RedisSourceError["during"]) => (error: Redis.RedisError) => {
  const told = fromRedis("redis", error)
  return new RedisSourceError({ during, problem: told.message, remedy: told.remedy, isRetryable: told.isRetryable })
}

/** Longer than this Redis does not hold a question back: so a connection that is dead is seen. */
const blockMillis = 5000

/**
 * The changes of declared tables, in order by stream, for ever. What is of no table of the set is acknowledged by itself.
 *
 * @example
 * RedisSource.changes({ tables: [Orders], streams: ["shop"], group: "mailer", consumer: "mailer-1" }).pipe(
 *   Stream.runForEach(({ acknowledge, change }) => Effect.andThen(store(change), acknowledge)))
 */
export const changes = <const T extends Table.Any>(
  options: Options<T>
): Stream.Stream<Delivery<T>, RedisSourceError | EnvelopeMismatch, Redis.Redis> => {
  const { consumer, count = 100, group, streams } = options
  const decode = Received.decoder(options.tables)
  return Stream.unwrap(
    Effect.map(Redis.Redis, (redis) => {
      /** What was handed over last of each stream: it comes again while it is not acknowledged. */
      const handed = new Map<string, string>()
      const acknowledge = (stream: string, ids: ReadonlyArray<string>) =>
        Effect.mapError(Effect.asVoid(redis.send("XACK", stream, group, ...ids)), failed("acknowledge"))

      const take = Effect.fnUntraced(function* (entries: Entries) {
        const deliveries: Array<Delivery<T>> = []
        for (const [stream, list] of entries) {
          const others: Array<string> = []
          for (const [id, fields] of list) {
            if (!isAfter(id, handed.get(stream))) continue
            handed.set(stream, id)
            if (fields === null) {
              yield* Effect.logWarning(`the entry ${id} of the stream "${stream}" was trimmed before it was read`)
              others.push(id)
              continue
            }
            const read = decode(fieldOf(fields, "replicant-id") ?? id, fieldOf(fields, "value"))
            if (Result.isFailure(read)) return yield* Effect.fail(read.failure)
            const change = read.success
            if (change === undefined) others.push(id)
            else deliveries.push({ change, stream, acknowledge: acknowledge(stream, [id]) })
          }
          if (others.length > 0) yield* acknowledge(stream, others)
        }
        return deliveries
      })

      const connected = Effect.gen(function* () {
        const connection = yield* redis.reserve
        for (const stream of streams) {
          // BUSYGROUP: it is there.
          yield* Effect.catchIf(
            redis.send("XGROUP", "CREATE", stream, group, "0", "MKSTREAM"),
            ({ cause }) => String(cause).includes("BUSYGROUP"),
            () => Effect.void
          )
        }
        const ask = (from: ReadonlyArray<string>, block: ReadonlyArray<string>) =>
          Effect.map(
            connection.send(
              "XREADGROUP",
              ...["GROUP", group, consumer, "COUNT", String(count), ...block, "STREAMS", ...streams, ...from]
            ),
            entriesOf
          )
        // First what had been delivered and was not acknowledged, page by page; then what is new.
        let from: ReadonlyArray<string> | undefined = streams.map(() => "0")
        return Effect.gen(function* () {
          if (from === undefined)
            return yield* ask(
              streams.map(() => ">"),
              ["BLOCK", String(blockMillis)]
            )
          const entries: Entries = yield* ask(from, [])
          const lasts = new Map(entries.map(([stream, list]) => [stream, list.at(-1)?.[0]]))
          const before: ReadonlyArray<string> = from
          from = [...lasts.values()].every((last) => last === undefined)
            ? undefined
            : streams.map((stream, index) => lasts.get(stream) ?? before[index]!)
          return entries
        })
      })

      const session = Stream.unwrap(
        Effect.map(Effect.mapError(connected, failed("read")), (ask) =>
          Stream.fromIterableEffectRepeat(Effect.flatMap(Effect.mapError(ask, failed("read")), take))
        )
      )
      const pause = Effect.sleep(options.reconnectAfter ?? "1 second")
      const lasting = (): typeof session =>
        Stream.catch(session, (error) =>
          error._tag === "RedisSourceError" && error.isRetryable
            ? Stream.unwrap(
                Effect.logWarning(`reading again after ${error.message}`).pipe(
                  Effect.andThen(pause),
                  Effect.map(lasting)
                )
              )
            : Stream.fail(error)
        )
      return lasting()
    })
  )
}
