/** Redis Streams as a sink: the laws against a real Redis, and what it says when it will not. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import type { Message } from "@replicant/core/sink"
import { SinkLaws } from "@replicant/core/testing"
import { RedisSink } from "@replicant/redis"
import type { RedisServerShape } from "@replicant/redis/testing"
import { Effect, Option } from "effect"
import * as Redis from "effect/persistence/Redis"
import { fromRedis } from "../../src/sink/RedisFailure.ts"
import * as StreamId from "../../src/sink/StreamId.ts"
import { connectClient, onRedis } from "../onRedis.ts"

const mark = "shop:mark"

const connect = (url: string, more: Partial<RedisSink.Options> = {}) =>
  Effect.flatMap(connectClient(url), (client) =>
    RedisSink.make({ mark, ...more }).pipe(Effect.provideService(Redis.Redis, client))
  )

/** Entries of a stream as Redis answers them. */
type Entries = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

const entriesOf = (url: string, stream: string) =>
  Effect.scoped(Effect.flatMap(connectClient(url), ({ send }) => send<Entries>("XRANGE", stream, "-", "+")))

const subject = (server: RedisServerShape): SinkLaws.Subject =>
  ({
    connect: connect(server.url),
    read: Effect.map(entriesOf(server.url, "laws"), (entries) => entries.map(([, fields]) => fields[1]!)),
    restart: Effect.andThen(server.kill, server.start),
    stop: server.freeze,
    resume: server.thaw,
    fill: server.send("CONFIG", "SET", "maxmemory", "1"),
    empty: server.send("CONFIG", "SET", "maxmemory", "0")
  }) as SinkLaws.Subject

describe("the laws of sinks, of Redis", () => {
  for (const law of SinkLaws.laws) {
    if (!law.needs.includes("loseTail")) onRedis(law.name, (server) => law.holds(subject(server)))
  }
})

const message = (n: number, more: Partial<Message> = {}): Message => ({
  id: `0000000000000100-${n.toString(16).toUpperCase().padStart(8, "0")}`,
  systemId: "7",
  op: "c",
  to: "shop",
  key: `["${n}"]`,
  value: `{"n":${n}}`,
  ...more
})

describe("RedisSink", () => {
  onRedis("writes entries by place, with headers, key and value; a tombstone has no value", (server) =>
    Effect.gen(function* () {
      const writer = yield* (yield* connect(server.url)).open()
      yield* writer.append([message(0), message(1, { op: "d", value: undefined }), message(2, { to: "other" })])
      assert.deepStrictEqual(yield* entriesOf(server.url, "shop"), [
        [
          "256-1",
          ["replicant-id", message(0).id, "replicant-op", "c", "replicant-v", "1", "key", '["0"]', "value", '{"n":0}']
        ],
        ["256-65537", ["replicant-id", message(1).id, "replicant-op", "d", "replicant-v", "1", "key", '["1"]']]
      ] as never)
      assert.lengthOf(yield* entriesOf(server.url, "other"), 1)
    })
  )

  onRedis("knows what it holds though every entry is trimmed or deleted", (server) =>
    Effect.gen(function* () {
      const sink = yield* connect(server.url)
      yield* (yield* sink.open()).append([message(0), message(1)])
      yield* server.send("XTRIM", "shop", "MAXLEN", "0")
      yield* server.send("DEL", "shop")
      const { mark } = yield* sink.open()
      assert.deepStrictEqual(Option.getOrThrow(mark), { id: message(1).id, systemId: "7" })
    })
  )

  onRedis("keeps about so many entries as it is told to", (server) =>
    Effect.gen(function* () {
      const writer = yield* (yield* connect(server.url, { maxLength: 100 })).open()
      for (let n = 0; n < 1000; n += 100)
        yield* writer.append(Array.from({ length: 100 }, (_, index) => message(n + index)) as never)
      assert.isBelow((yield* entriesOf(server.url, "shop")).length, 400)
    })
  )

  onRedis("writes nothing of a batch where one of its streams cannot take it", (server) =>
    Effect.gen(function* () {
      yield* server.send("SET", "text", "x")
      const sink = yield* connect(server.url)
      const kind = yield* Effect.flip((yield* sink.open()).append([message(0), message(1, { to: "text" })]))
      assert.deepInclude(kind, { _tag: "SinkRefused", reason: "Setup" })
      assert.include(kind.message, `"text" is a string and no stream`)
      yield* server.send("XADD", "busy", "99999999999999-0", "a", "b")
      const ahead = yield* Effect.flip((yield* sink.open()).append([message(0), message(1, { to: "busy" })]))
      assert.include(ahead.message, `the stream "busy" ends at 99999999999999-0`)
      assert.lengthOf(yield* entriesOf(server.url, "shop"), 0)
    })
  )

  onRedis("rejects a message that is too large before it is sent, and says which", (server) =>
    Effect.gen(function* () {
      const writer = yield* (yield* connect(server.url, { maxMessageBytes: 1000 })).open()
      const error = yield* Effect.flip(writer.append([message(0), message(1, { value: `"${"é".repeat(600)}"` })]))
      assert.deepInclude(error, { _tag: "SinkRejected", id: message(1).id, size: 1202 })
      assert.lengthOf(yield* entriesOf(server.url, "shop"), 0)
    })
  )

  onRedis("says what is wrong with a right, and how to mend it", (server) =>
    Effect.gen(function* () {
      const url = (user: string) => `redis://${user}@127.0.0.1:${server.port}`
      yield* server.send("ACL", "SETUSER", "reader", "on", ">r", "~*", "+@read", "+@connection")
      const rights = ["+@scripting", "+@stream", "+@hash", "+type", "+@connection"]
      yield* server.send("ACL", "SETUSER", "writer", "on", ">w", "~*", ...rights)
      const refused = yield* Effect.flip((yield* connect(url("reader:r"))).open())
      assert.deepInclude(refused, { _tag: "SinkRefused", reason: "Permission" })
      assert.include((refused as { remedy: string }).remedy, "ACL SETUSER")
      const sink = yield* connect(url("writer:w"))
      yield* (yield* sink.open()).append([message(0)])
    })
  )

  onRedis("goes back as one that lost the tail of its log, and does not hide it", (server) =>
    Effect.gen(function* () {
      yield* Effect.scoped(
        Effect.gen(function* () {
          const writer = yield* (yield* connect(server.url)).open()
          yield* writer.append([message(0)])
          yield* writer.append([message(1), message(2)])
        })
      )
      yield* server.kill
      const log = Path.join(server.directory, "appendonlydir")
      const file = Path.join(log, Fs.readdirSync(log).find((name) => name.endsWith(".incr.aof"))!)
      Fs.truncateSync(file, Fs.statSync(file).size - 10)
      yield* server.start
      const { mark } = yield* (yield* connect(server.url)).open()
      assert.strictEqual(Option.getOrThrow(mark).id, message(0).id)
      assert.lengthOf(yield* entriesOf(server.url, "shop"), 1)
    })
  )
})

describe("what a reply means", () => {
  const told = (cause: unknown) => fromRedis("redis", new Redis.RedisError({ cause }))
  const cases: ReadonlyArray<readonly [reply: string, expected: object]> = [
    ["NOAUTH Authentication required.", { _tag: "SinkRefused", reason: "Authentication" }],
    ["WRONGPASS invalid username-password pair", { _tag: "SinkRefused", reason: "Authentication" }],
    ["NOPERM this user has no permissions to run the 'eval' command", { _tag: "SinkRefused", reason: "Permission" }],
    ["OOM command not allowed when used memory > 'maxmemory'.", { _tag: "SinkFull" }],
    ["MISCONF Errors writing to the AOF file: No space left on device", { _tag: "SinkFull" }],
    ["LOADING Redis is loading the dataset in memory", { _tag: "SinkUnavailable", reason: "NotReady" }],
    ["READONLY You can't write against a read only replica.", { _tag: "SinkUnavailable", reason: "NotReady" }],
    ["WRONGTYPE Operation against a key holding the wrong kind of value", { _tag: "SinkRefused", reason: "Setup" }],
    ["ERR unknown command 'XADD'", { _tag: "SinkRefused", reason: "Setup" }],
    ["Socket closed unexpectedly", { _tag: "SinkUnavailable", reason: "Closed" }]
  ]
  for (const [reply, expected] of cases) it(reply, () => assert.deepInclude(told(new Error(reply)), expected))

  it("ECONNREFUSED", () => {
    const cause = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" })
    assert.deepInclude(told(cause), { _tag: "SinkUnavailable", reason: "Refused" })
  })
})

describe("StreamId", () => {
  it("grows as places do", () => {
    const places = [
      "0000000000000130",
      "0000000000000130-00000000",
      "0000000000000130-00000000.0001",
      "0000000000000130-00000001",
      "0000000000000130-FFFFFFFF.0002",
      "0000000000000138"
    ]
    const ids = places.map((place) => StreamId.fromPlace(place)!.split("-").map(Number))
    for (const [index, [lsn, ordinal]] of ids.entries()) {
      const [lsnBefore = -1, ordinalBefore = -1] = ids[index - 1] ?? []
      assert.isTrue(lsn! > lsnBefore || (lsn === lsnBefore && ordinal! > ordinalBefore), places[index])
      assert.isTrue(Number.isSafeInteger(ordinal))
    }
    assert.isUndefined(StreamId.fromPlace("256-1"))
    const read = StreamId.reader()
    for (const place of [...places, ...places]) assert.strictEqual(read(place), StreamId.fromPlace(place))
  })
})
