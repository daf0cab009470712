/** The other end of a sink in Redis: typed, acknowledged by its reader, and each message once to a reader that lives. */
import { assert, describe } from "@effect/vitest"
import { Table } from "@replicant/core"
import type { Message } from "@replicant/core/sink"
import { RedisSink, RedisSource } from "@replicant/redis"
import type { RedisServerShape } from "@replicant/redis/testing"
import { Effect, Fiber, Logger, Queue, Schema, type Scope, Stream } from "effect"
import * as Redis from "effect/persistence/Redis"
import { connectClient, onRedis } from "../onRedis.ts"

const Items = Table.make("public.items", Schema.Struct({ id: Schema.BigInt }), { key: ["id"] })

const message = (n: number, table = "items"): Message => ({
  id: `0000000000000100-${n.toString(16).toUpperCase().padStart(8, "0")}`,
  op: "c",
  to: "shop",
  key: `["${n}"]`,
  value: `{"op":"c","key":{"id":"${n}"},"after":{"id":"${n}"},"before":null,"source":{"schema":"public","table":"${table}","lsn":"0/100"}}`
})

const append = (server: RedisServerShape, ...messages: [Message, ...Array<Message>]) =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connectClient(server.url)
      const sink = yield* RedisSink.make({ mark: "mark" }).pipe(Effect.provideService(Redis.Redis, client))
      yield* (yield* sink.open()).append(messages)
    })
  )

/** A reader in the scope: what it is given comes in a queue. */
const reading = (server: RedisServerShape, group = "mailer") =>
  Effect.gen(function* () {
    const client = yield* connectClient(server.url)
    const queue = yield* Queue.unbounded<RedisSource.Delivery<typeof Items>>()
    const options = { tables: [Items], streams: ["shop"], group, consumer: "a", count: 2 } as const
    const fiber = yield* RedisSource.changes({ ...options, reconnectAfter: "20 millis" }).pipe(
      Stream.runForEach((delivery) => Queue.offer(queue, delivery)),
      Effect.provideService(Redis.Redis, client),
      // Of a Redis that is killed it warns.
      Effect.provide(Logger.layer([])),
      Effect.forkScoped
    )
    return { fiber, take: Queue.take(queue) }
  })

const idOf = ({ change }: RedisSource.Delivery<typeof Items>) => (change._tag === "Insert" ? change.row.id : undefined)

const takes = (count: number, take: Effect.Effect<RedisSource.Delivery<typeof Items>>) =>
  Effect.map(Effect.all(Array.from({ length: count }, () => take)), (all) => all.map(idOf))

const within = <A, E>(body: Effect.Effect<A, E, Scope.Scope>) => Effect.scoped(body)

describe("RedisSource", () => {
  onRedis("gives each group all changes of declared tables, typed and in order", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1), message(2, "others"), message(3))
      for (const group of ["mailer", "search"])
        assert.deepStrictEqual(yield* takes(2, (yield* reading(server, group)).take), [1n, 3n])
    })
  )

  onRedis("waits for what is appended while it reads", (server) =>
    Effect.gen(function* () {
      const { take } = yield* reading(server)
      const fiber = yield* Effect.forkChild(takes(2, take))
      yield* append(server, message(1), message(2))
      assert.deepStrictEqual(yield* Fiber.join(fiber), [1n, 2n])
    })
  )

  onRedis("brings again after a restart what was not acknowledged, and nothing else", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1), message(2), message(3), message(4), message(5))
      yield* within(
        Effect.gen(function* () {
          const { take } = yield* reading(server)
          const [first, , third] = yield* Effect.all([take, take, take])
          yield* first!.acknowledge
          yield* third!.acknowledge
        })
      )
      const { take } = yield* reading(server)
      assert.deepStrictEqual(yield* takes(3, take), [2n, 4n, 5n])
    })
  )

  onRedis("goes on when Redis was killed, and brings nothing twice to a reader that lives", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1), message(2), message(3))
      const { fiber, take } = yield* reading(server)
      assert.deepStrictEqual(yield* takes(3, take), [1n, 2n, 3n])
      yield* server.kill
      yield* server.start
      yield* append(server, message(4))
      assert.deepStrictEqual(yield* takes(1, take), [4n])
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  onRedis("fails with what is no envelope of ours", (server) =>
    Effect.gen(function* () {
      yield* append(server, { ...message(1), value: "{}" })
      const { fiber } = yield* reading(server)
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.deepInclude(error, { _tag: "EnvelopeMismatch", id: message(1).id })
    })
  )
})
