/** JetStream as a sink: the laws against a real NATS, old and current, and what it says when it will not. */
import { assert, describe, it } from "@effect/vitest"
import { DiscardPolicy, RetentionPolicy, StorageType } from "@nats-io/jetstream"
import { headers } from "@nats-io/transport-node"
import type { Message } from "@replicant/core/sink"
import { SinkLaws } from "@replicant/core/testing"
import { NatsSink } from "@replicant/nats"
import type { NatsServerShape } from "@replicant/nats/testing"
import { Effect, Fiber, Option } from "effect"
import { fromApi, fromNats } from "../../src/sink/NatsFailure.ts"
import { matches } from "../../src/sink/NatsStream.ts"
import { client, manage, onNats } from "../onNats.ts"

const stream = "SHOP"
const createStream = { subjects: ["laws", "shop.>"], storage: StorageType.File, discard: DiscardPolicy.New }

const optionsOf = (server: NatsServerShape, more: Partial<NatsSink.Options> = {}): NatsSink.Options => ({
  connection: { servers: server.url },
  stream,
  mark: "shop.mark",
  createStream,
  ...more
})

const sinkOf = (server: NatsServerShape, more: Partial<NatsSink.Options> = {}) => NatsSink.make(optionsOf(server, more))

interface Stored {
  readonly subject: string
  readonly id: string
  readonly epoch: string
  readonly headers: Readonly<Record<string, string>>
  readonly value: string | undefined
}

/** All that stands in the stream, records as well. */
const storedIn = (server: NatsServerShape) =>
  manage(server, async (manager) => {
    const { state } = await manager.streams.info(stream).catch(() => ({ state: { first_seq: 1, last_seq: 0 } }))
    const sequences = Array.from({ length: state.last_seq - state.first_seq + 1 }, (_, n) => state.first_seq + n)
    const found = await Promise.all(sequences.map((seq) => manager.streams.getMessage(stream, { seq })))
    return found.flatMap((message): ReadonlyArray<Stored> => {
      if (message === null) return []
      const { data, header, subject } = message
      const value = data.length === 0 ? undefined : new TextDecoder().decode(data)
      const told = Object.fromEntries(header.keys().map((key) => [key, header.get(key)]))
      return [{ subject, id: header.get("Nats-Msg-Id"), epoch: header.get("replicant-epoch"), headers: told, value }]
    })
  })

const messagesIn = (server: NatsServerShape) =>
  Effect.map(storedIn(server), (all) => all.filter(({ epoch }) => epoch === ""))

const limit = (server: NatsServerShape, more: object) =>
  manage(server, async (manager) => {
    const { config } = await manager.streams.info(stream)
    await manager.streams.update(stream, { ...config, ...more })
  })

/** No message more than there are. */
const fill = (server: NatsServerShape) =>
  manage(server, async (manager) => {
    const { config, state } = await manager.streams.info(stream)
    await manager.streams.update(stream, { ...config, max_msgs: state.messages })
  })

const subject = (server: NatsServerShape): SinkLaws.Subject =>
  ({
    connect: Effect.sync(() => sinkOf(server)),
    read: Effect.map(messagesIn(server), (all) => all.map(({ id }) => id)),
    restart: Effect.andThen(server.kill, server.start),
    stop: server.freeze,
    resume: server.thaw,
    fill: fill(server),
    empty: limit(server, { max_msgs: -1 }),
    loseTail: (kept: number) =>
      manage(server, async (manager) => {
        const { state } = await manager.streams.info(stream)
        // A record stands before them.
        for (let seq = state.last_seq; seq > kept + 1; seq--) await manager.streams.deleteMessage(stream, seq)
      })
  }) as SinkLaws.Subject

describe("the laws of sinks, of JetStream", () => {
  for (const law of SinkLaws.laws) onNats(law.name, (server) => law.holds(subject(server)))
})

const message = (n: number, more: Partial<Message> = {}): Message => ({
  id: `0000000000000100-${n.toString(16).toUpperCase().padStart(8, "0")}`,
  systemId: "7",
  op: "c",
  to: "shop.items",
  key: `["${n}"]`,
  value: `{"n":${n}}`,
  ...more
})

/** One writer, closed when the body ends. */
const appending = (sink: ReturnType<typeof sinkOf>, ...batches: ReadonlyArray<[Message, ...Array<Message>]>) =>
  Effect.scoped(
    Effect.flatMap(sink.open(), ({ append }) => Effect.forEach(batches, (batch) => append(batch), { discard: true }))
  )

const markOf = (sink: ReturnType<typeof sinkOf>) =>
  Effect.scoped(Effect.map(sink.open(), ({ mark }) => Option.getOrUndefined(mark)))

describe("NatsSink", () => {
  onNats(
    "writes messages with their place for an id, with headers, key and value; a tombstone has no value",
    (server) =>
      Effect.gen(function* () {
        const tombstone = message(1, { op: "d", value: undefined, key: '["é"]' })
        yield* appending(sinkOf(server), [message(0), tombstone, message(2, { to: "shop.others" })])
        const [first, second, third] = yield* messagesIn(server)
        assert.deepInclude(first, { subject: "shop.items", id: message(0).id, value: '{"n":0}' })
        assert.deepInclude(first!.headers, {
          "replicant-op": "c",
          "replicant-v": "1",
          "replicant-key": '["0"]',
          "replicant-system": "7"
        })
        assert.deepInclude(second, { id: message(1).id, value: undefined })
        assert.strictEqual(second!.headers["replicant-key"], '["é"]')
        assert.strictEqual(third!.subject, "shop.others")
      })
  )

  onNats(
    "knows what it holds though every message has expired or was deleted, so long as one process lives",
    (server) =>
      Effect.gen(function* () {
        const sink = sinkOf(server)
        yield* appending(sink, [message(0), message(1)])
        yield* manage(server, (manager) => manager.streams.purge(stream))
        assert.deepStrictEqual(yield* markOf(sink), { id: message(1).id, systemId: "7" })
        // And the record of that opening tells it to others.
        assert.deepStrictEqual(yield* markOf(sinkOf(server)), { id: message(1).id, systemId: "7" })
      })
  )

  onNats("keeps what it holds where messages expire, while it writes nothing", (server) =>
    Effect.gen(function* () {
      const age = { ...createStream, max_age: 1_000_000_000, duplicate_window: 500_000_000 }
      const writer = yield* sinkOf(server, { createStream: age }).open()
      yield* writer.append([message(0)])
      const isRenewed = Effect.map(storedIn(server), (all) => {
        const marks = all.map(({ headers: told }) => told["replicant-mark"])
        return all.every(({ epoch }) => epoch !== "") && marks.includes(message(0).id)
      })
      while (!(yield* isRenewed)) yield* Effect.sleep("50 millis")
      // Behind records as behind messages.
      yield* writer.append([message(1)])
    })
  )

  onNats("is opened by many at once, one after the other, and the last of them writes", (server) =>
    Effect.gen(function* () {
      yield* appending(sinkOf(server), [message(0)])
      const sinks = Array.from({ length: 4 }, () => sinkOf(server))
      const writers = yield* Effect.all(
        sinks.map((sink) => sink.open()),
        { concurrency: "unbounded" }
      )
      const epochs = (yield* storedIn(server)).flatMap(({ epoch }) => (epoch === "" ? [] : [epoch]))
      // The first is of who wrote the message.
      assert.sameMembers(
        epochs.slice(1),
        writers.map(({ epoch }) => epoch)
      )
      for (const { append, epoch, mark } of writers) {
        assert.strictEqual(Option.getOrThrow(mark).id, message(0).id)
        const exit = yield* Effect.exit(append([message(1)]))
        assert.strictEqual(exit._tag, epoch === epochs.at(-1) ? "Success" : "Failure")
      }
    })
  )

  onNats("goes on from an earlier message where the last ones were deleted, and does not hide it", (server) =>
    Effect.gen(function* () {
      yield* appending(sinkOf(server), [message(0), message(1), message(2)])
      yield* manage(server, async ({ streams }) => {
        for (const seq of [4, 3]) await streams.deleteMessage(stream, seq)
      })
      assert.deepStrictEqual(yield* markOf(sinkOf(server)), { id: message(0).id, systemId: "7" })
    })
  )

  onNats("rejects a message that is too large before it is sent, and says which", (server) =>
    Effect.gen(function* () {
      const writer = yield* sinkOf(server, { maxMessageBytes: 2000 }).open()
      const error = yield* Effect.flip(writer.append([message(0), message(1, { value: `"${"é".repeat(900)}"` })]))
      assert.deepInclude(error, { _tag: "SinkRejected", id: message(1).id, size: 1802 + 5 + 512 })
      const broken = yield* Effect.flip(
        Effect.flatMap(sinkOf(server).open(), ({ append }) => append([message(1, { key: '["1"]\r\nreplicant-op: d' })]))
      )
      assert.deepInclude(broken, { _tag: "SinkRejected", id: message(1).id })
      const whole = yield* sinkOf(server).open()
      const larger = yield* Effect.flip(whole.append([message(1, { value: "x".repeat(1024 * 1024) })]))
      assert.deepInclude(larger, { _tag: "SinkRejected", id: message(1).id })
      assert.lengthOf(yield* messagesIn(server), 0)
    })
  )

  onNats("says which message of many the server rejects, and stores none behind it", (server) =>
    Effect.gen(function* () {
      const writer = yield* sinkOf(server).open()
      // Smaller than it was as the writer looked.
      yield* limit(server, { max_msg_size: 2000 })
      const batch = [message(0), message(1, { value: "x".repeat(3000) }), message(2)] as const
      const first = yield* Effect.forkChild(Effect.flip(writer.append([...batch])), { startImmediately: true })
      const second = yield* Effect.flip(writer.append([message(3)]))
      assert.deepInclude(yield* Fiber.join(first), { _tag: "SinkRejected", id: message(1).id })
      assert.deepInclude(second, { _tag: "SinkRejected", id: message(1).id })
      assert.deepStrictEqual(
        (yield* messagesIn(server)).map(({ id }) => id),
        [message(0).id]
      )
    })
  )

  onNats("waits where the stream is full, and says how to mend it", (server) =>
    Effect.gen(function* () {
      const writer = yield* sinkOf(server).open()
      yield* fill(server)
      const error = yield* Effect.flip(writer.append([message(0), message(1)]))
      assert.strictEqual(error._tag, "SinkFull")
      assert.strictEqual((yield* Effect.flip(Effect.scoped(sinkOf(server).open())))._tag, "SinkFull")
    })
  )

  onNats(
    "names a predecessor by its id, for where a sequence would fit a message behind one that was refused",
    (server) =>
      Effect.gen(function* () {
        yield* appending(sinkOf(server), [message(0)])
        const nc = yield* client(server)
        const put = (id: string, lastSequence: number, lastId?: string) =>
          Effect.promise(async () => {
            const made = headers()
            made.set("Nats-Msg-Id", id)
            made.set("Nats-Expected-Last-Sequence", String(lastSequence))
            if (lastId !== undefined) made.set("Nats-Expected-Last-Msg-Id", lastId)
            const answer = await nc.request("shop.items", "{}", { headers: made, timeout: 10_000 })
            return answer.json<{ seq?: number; error?: { err_code: number } }>()
          })
        // Of three that are under way the first was refused, and another writer's record stands there then.
        assert.deepInclude(yield* put("another's record", 2), { seq: 3 })
        assert.deepInclude((yield* put(message(2).id, 3, message(1).id)).error, { err_code: 10_070 })
      })
  )

  const setups: ReadonlyArray<readonly [what: string, more: Partial<NatsSink.Options>, expected: RegExp]> = [
    ["is not there", { createStream: undefined }, /stream not found/],
    ["does not take the mark", { mark: "other.mark" }, /takes "laws", "shop.>", and not "other.mark"/]
  ]
  for (const [what, more, expected] of setups) {
    onNats(`says so where the stream ${what}`, (server) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(sinkOf(server, more).open())
        assert.deepInclude(error, { _tag: "SinkRefused", reason: "Setup" })
        assert.match(error.message, expected)
      })
    )
  }

  onNats("says so where a stream forgets what was read, or others write to it, or it takes no such subject", (server) =>
    Effect.gen(function* () {
      const writer = yield* sinkOf(server).open()
      const untaken = yield* Effect.flip(writer.append([message(0, { to: "elsewhere" })]))
      assert.match(untaken.message, /refuses us \(Setup\): the stream takes "laws", "shop.>", and not "elsewhere"/)
      const other = yield* sinkOf(server).open()
      const spaced = yield* Effect.flip(other.append([message(0, { to: "shop.a b" })]))
      assert.match(spaced.message, /and not "shop.a b"/)
      const nc = yield* client(server)
      yield* Effect.promise(() => nc.request("shop.x", "x"))
      assert.match((yield* Effect.flip(sinkOf(server).open())).message, /of the subject "shop.x", is of no sink/)
      const queue = { name: "QUEUE", subjects: ["queue.>"], retention: RetentionPolicy.Workqueue }
      yield* manage(server, (manager) => manager.streams.add(queue))
      const error = yield* Effect.flip(sinkOf(server, { stream: "QUEUE", mark: "queue.mark" }).open())
      assert.match(error.message, /its retention is "workqueue"/)
    })
  )

  const users = `authorization { users: [
    { user: writer, password: w }
    { user: reader, password: r, permissions: { publish: ["$JS.API.>"], subscribe: ["_INBOX.>"] } } ] }`
  onNats(
    "says what is wrong with a password or a right, and how to mend it, and tells no password",
    (server) =>
      Effect.gen(function* () {
        const as = (user: string, pass: string) => sinkOf(server, { connection: { servers: server.url, user, pass } })
        const wrong = yield* Effect.flip(as("writer", "hidden").open())
        assert.deepInclude(wrong, { _tag: "SinkRefused", reason: "Authentication" })
        assert.notInclude(JSON.stringify(wrong), "hidden")
        yield* appending(as("writer", "w"), [message(0)])
        const refused = yield* Effect.flip(as("reader", "r").open())
        assert.deepInclude(refused, { _tag: "SinkRefused", reason: "Permission" })
        assert.include(refused.remedy, 'let the user publish to "shop.mark"')
      }),
    { config: users }
  )

  onNats("is not available while there is no server, and then it is", (server) =>
    Effect.gen(function* () {
      const sink = sinkOf(server)
      yield* server.kill
      assert.deepInclude(yield* Effect.flip(sink.open()), { _tag: "SinkUnavailable", reason: "Refused" })
      yield* server.start
      const writer = yield* sink.open()
      yield* writer.append([message(0)])
      yield* server.kill
      assert.deepInclude(yield* Effect.flip(writer.append([message(1)])), { _tag: "SinkUnavailable" })
    })
  )
})

describe("what an answer means", () => {
  const cases: ReadonlyArray<readonly [code: number, error: number, expected: object]> = [
    [503, 10_008, { _tag: "SinkUnavailable", reason: "NotReady" }],
    [503, 10_077, { _tag: "SinkFull" }],
    [400, 10_047, { _tag: "SinkFull" }],
    [404, 10_059, { _tag: "SinkRefused", reason: "Setup" }],
    [400, 10_054, { _tag: "SinkRejected", id: "1", size: 2 }],
    [400, 10_039, { _tag: "SinkRefused", reason: "Setup" }]
  ]
  for (const [code, err_code, expected] of cases)
    it(`${err_code}`, () => assert.deepInclude(fromApi("nats", { code, err_code }, { id: "1", size: 2 }), expected))

  it("a certificate that is not trusted", () => {
    const cause = new Error("connection", {
      cause: Object.assign(new Error("self"), { code: "SELF_SIGNED_CERT_IN_CHAIN" })
    })
    assert.deepInclude(fromNats("nats", cause), { _tag: "SinkRefused", reason: "Tls" })
  })
})

describe("subjects", () => {
  it("are named by patterns", () => {
    const all = ["shop", "shop.a", "shop.a.b", "other.a"]
    const named = (pattern: string) => all.filter((name) => matches(pattern, name))
    assert.deepStrictEqual(named("shop.>"), ["shop.a", "shop.a.b"])
    assert.deepStrictEqual(named("shop.*"), ["shop.a"])
    assert.deepStrictEqual(named("*.a"), ["shop.a", "other.a"])
    assert.deepStrictEqual(named("shop"), ["shop"])
    assert.deepStrictEqual(named(">"), all)
  })
})
