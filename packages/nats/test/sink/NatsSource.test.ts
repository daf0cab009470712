/** The other end of a sink in JetStream: typed, acknowledged by its reader, and each message once to a reader that lives. */
import { assert, describe } from "@effect/vitest"
import { StorageType } from "@nats-io/jetstream"
import { Table } from "@replicant/core"
import type { Message } from "@replicant/core/sink"
import { NatsSink, NatsSource } from "@replicant/nats"
import type { NatsServerShape } from "@replicant/nats/testing"
import { Effect, Fiber, Logger, Queue, Schema, Stream } from "effect"
import { manage, onNats } from "../onNats.ts"

const Items = Table.make("public.items", Schema.Struct({ id: Schema.BigInt }), { key: ["id"] })

const message = (n: number, table = "items"): Message => ({
  id: `0000000000000100-${n.toString(16).toUpperCase().padStart(8, "0")}`,
  op: "c",
  to: `shop.${table}`,
  key: `["${n}"]`,
  value: `{"op":"c","key":{"id":"${n}"},"after":{"id":"${n}"},"before":null,"source":{"schema":"public","table":"${table}","lsn":"0/100"}}`
})

const append = (server: NatsServerShape, ...messages: [Message, ...Array<Message>]) =>
  Effect.scoped(
    Effect.gen(function* () {
      const sink = NatsSink.make({
        connection: { servers: server.url },
        stream: "SHOP",
        mark: "shop.mark",
        createStream: { subjects: ["shop.>"], storage: StorageType.File }
      })
      yield* (yield* sink.open()).append(messages)
    })
  )

/** A reader in the scope: what it is given comes in a queue. */
const reading = (server: NatsServerShape, consumer = "mailer", more: { readonly subject?: string } = {}) =>
  Effect.gen(function* () {
    const queue = yield* Queue.unbounded<NatsSource.Delivery<typeof Items>>()
    const connection = { servers: server.url, reconnectTimeWait: 20 }
    const options = { tables: [Items], connection, stream: "SHOP", consumer, count: 2, ...more } as const
    const fiber = yield* NatsSource.changes({ ...options, reconnectAfter: "20 millis" }).pipe(
      Stream.runForEach((delivery) => Queue.offer(queue, delivery)),
      // Of a NATS that is killed it warns.
      Effect.provide(Logger.layer([])),
      Effect.forkScoped
    )
    return { fiber, take: Queue.take(queue) }
  })

const idOf = ({ change }: NatsSource.Delivery<typeof Items>) => (change._tag === "Insert" ? change.row.id : undefined)

const takes = (count: number, take: Effect.Effect<NatsSource.Delivery<typeof Items>>) =>
  Effect.map(Effect.all(Array.from({ length: count }, () => take)), (all) => all.map(idOf))

/** A consumer that brings again at once what is not acknowledged. */
const hasty = (server: NatsServerShape, millis: number) =>
  manage(server, (manager) =>
    manager.consumers.add("SHOP", {
      durable_name: "mailer",
      ack_policy: "explicit",
      ack_wait: millis * 1_000_000
    } as never)
  )

const left = (server: NatsServerShape) =>
  manage(server, async (manager) => {
    const { num_ack_pending, num_pending } = await manager.consumers.info("SHOP", "mailer")
    return num_ack_pending + num_pending
  })

describe("NatsSource", () => {
  onNats("gives each consumer all changes of declared tables, typed and in order", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1), message(2, "others"), message(3))
      for (const consumer of ["mailer", "search"])
        assert.deepStrictEqual(yield* takes(2, (yield* reading(server, consumer)).take), [1n, 3n])
    })
  )

  onNats("reads one subject where it is told to", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1), { ...message(2), to: "shop.archive" }, message(3))
      const { take } = yield* reading(server, "archivist", { subject: "shop.archive" })
      assert.deepStrictEqual(yield* takes(1, take), [2n])
    })
  )

  onNats("waits for what is appended while it reads", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1))
      const { take } = yield* reading(server)
      const fiber = yield* Effect.forkChild(takes(3, take))
      yield* append(server, message(2), message(3))
      assert.deepStrictEqual(yield* Fiber.join(fiber), [1n, 2n, 3n])
    })
  )

  onNats("brings again after a restart what was not acknowledged, and nothing else", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1), message(2), message(3), message(4))
      yield* hasty(server, 500)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { take } = yield* reading(server)
          const [first, , third] = yield* Effect.all([take, take, take])
          yield* first!.acknowledge
          yield* third!.acknowledge
        })
      )
      const { take } = yield* reading(server)
      assert.deepStrictEqual((yield* takes(2, take)).sort(), [2n, 4n])
    })
  )

  onNats("brings nothing twice to a reader that lives, though it takes its time and NATS is killed", (server) =>
    Effect.gen(function* () {
      yield* append(server, message(1), message(2))
      yield* hasty(server, 200)
      const { fiber, take } = yield* reading(server)
      const slow = yield* Effect.all([take, take])
      yield* server.kill
      yield* server.start
      yield* append(server, message(3))
      const third = yield* take
      assert.deepStrictEqual([...slow, third].map(idOf), [1n, 2n, 3n])
      // Sent again several times by then.
      for (const { acknowledge } of [...slow, third])
        yield* Effect.retry(acknowledge, { while: ({ isRetryable }) => isRetryable, times: 100 })
      while ((yield* left(server)) > 0) yield* Effect.sleep("20 millis")
      yield* append(server, message(4))
      assert.deepStrictEqual(yield* takes(1, take), [4n])
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  onNats("fails with what is no envelope of ours, and where there is no such stream", (server) =>
    Effect.gen(function* () {
      const missing = yield* Effect.flip(Fiber.join((yield* reading(server)).fiber))
      assert.deepInclude(missing, { _tag: "NatsSourceError", during: "read", isRetryable: false })
      yield* append(server, { ...message(1), value: "{}" })
      const { fiber } = yield* reading(server)
      assert.deepInclude(yield* Effect.flip(Fiber.join(fiber)), { _tag: "EnvelopeMismatch", id: message(1).id })
    })
  )
})
