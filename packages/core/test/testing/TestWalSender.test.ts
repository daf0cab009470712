import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import { Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import * as FrontendMessage from "../../src/protocol/FrontendMessage.ts"
import { startReplicationCommand } from "../../src/protocol/ReplicationCommand.ts"
import { encodeStandbyStatusUpdate } from "../../src/protocol/ReplicationMessage.ts"
import { ConnectionError } from "../../src/ReplicationError.ts"
import { CopyData } from "../../src/replication/CopyData.ts"
import { createReplicationSlot, dropReplicationSlot } from "../../src/server/ReplicationSlot.ts"
import { type CopyBoth, WalSender } from "../../src/server/WalSender.ts"
import { type Options, withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Table from "../../src/stream/Table.ts"
import {
  insert,
  message,
  relation,
  remove,
  type TestServerOptions,
  TestWalSender,
  truncate,
  tx,
  unpublished,
  update
} from "../../src/testing/index.ts"

const Orders = Table.make(
  "public.orders",
  Schema.Struct({ id: Schema.Number, total: Schema.FiniteFromString, note: Schema.NullOr(Schema.String) }),
  { key: ["id"] }
)
const notes = relation("app.notes", { columns: { id: "bigint", body: "text" }, key: ["id"], replicaIdentity: "full" })

const options: Options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }
const server = (more: Partial<TestServerOptions> = {}) =>
  TestWalSender.layer({ slot: "orders", publications: ["orders"], ...more })

const order = (id: number) => tx(insert(Orders, { id, total: id / 2, note: null }))

/** What a change is, in short. */
const told = (change: Change): string => {
  switch (change._tag) {
    case "Insert":
    case "Update":
      return `${change._tag} ${change.row.id}`
    case "Delete":
      return `Delete ${change.old.row.id}`
    case "Message":
      return `Message ${new TextDecoder().decode(change.content)}`
    default:
      return change._tag
  }
}

/** Follows the slot into a list, in a fiber of the test's. */
const follow = Effect.fnUntraced(function* (more: Partial<Options> = {}) {
  const seen: Array<Change> = []
  const fiber = yield* withLogicalStream({ ...options, ...more }, (change) =>
    Effect.sync(() => {
      seen.push(change)
      return nextLsn(change)
    })
  ).pipe(Effect.forkChild)
  return { seen, fiber, rows: () => seen.map(told).filter((what) => what !== "Begin" && what !== "Commit") }
})

const pgoutput = [
  ["proto_version", "1"],
  ["publication_names", '"orders"']
] as const

/** A bare copy stream from that position. */
const copyFrom = Effect.fnUntraced(function* (startLsn: Lsn.Lsn) {
  const connection = yield* (yield* WalSender).connect
  const start = yield* Effect.fromResult(startReplicationCommand({ slot: "orders", startLsn, options: pgoutput }))
  return yield* connection.copyBoth(start)
})

/** How many transactions the first read of a stream holds. */
const commits = Effect.fnUntraced(function* ({ pull }: CopyBoth) {
  const run = new Run()
  const plugin = options.plugin
  const decoder = new CopyData({ plugin, slices: portableText, run, context: {}, serverLsn: Lsn.maxValue })
  return decoder.decode(yield* pull).batch.delivered.length
})

/** Lets the acknowledgement be sent. */
const confirm = Effect.gen(function* () {
  const test = yield* TestWalSender
  yield* TestClock.adjust("1 second")
  yield* test.awaitConfirmed
})

describe("TestWalSender", () => {
  it.effect("streams what is scripted through the real decoders, and sees it confirmed", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const { rows, seen } = yield* follow()
      const [first] = yield* test.write(
        tx(
          insert(Orders, { id: 1, total: 9.5, note: "new" }),
          update(Orders, { id: 2, note: "moved" }, { old: { id: 1 } }),
          remove(Orders, { id: 2 }),
          message("audit", "within")
        )
      )
      yield* test.write(
        tx(insert(notes, { id: 7n, body: "a" }), remove(notes, { id: 7n, body: "a" }), truncate([Orders, notes])),
        message("audit", "alone"),
        unpublished(4096)
      )
      yield* confirm
      assert.deepStrictEqual(rows(), [
        "Insert 1",
        "Update 2",
        "Delete 2",
        "Message within",
        "Insert 7",
        "Delete 7",
        "Truncate",
        "Message alone"
      ])
      const [, created, changed, deleted] = seen
      assert.deepInclude(created, { _tag: "Insert", row: { id: 1, total: "9.5", note: "new" } })
      assert.deepInclude(changed, {
        _tag: "Update",
        row: { id: 2, note: "moved" },
        unchanged: ["total"],
        old: { _tag: "Key", row: { id: 1 } }
      })
      assert.deepInclude(deleted, { _tag: "Delete", old: { _tag: "Key", row: { id: 2 } } })
      const commit = seen.find((change) => change._tag === "Commit")
      assert.strictEqual(commit?.endLsn, first.endLsn)
      assert.deepStrictEqual(yield* test.unconfirmed, [])
      const { flushed } = (yield* test.statusUpdates).at(-1)!
      assert.strictEqual(flushed, yield* test.confirmedFlushLsn)
    }).pipe(Effect.provide(server()))
  )

  it.effect("sends again what was not confirmed, and tells which transactions these are", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const gate = yield* Latch.make()
      const seen: Array<string> = []
      yield* withLogicalStream(options, (change) =>
        Effect.gen(function* () {
          if (change._tag === "Insert") seen.push(told(change))
          if (change._tag === "Insert" && change.row.id === 2) yield* gate.await
          return nextLsn(change)
        })
      ).pipe(Effect.forkChild)
      const [one, two, three] = yield* test.write(order(1), order(2), order(3))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* test.confirmedFlushLsn, one.endLsn)
      assert.deepStrictEqual(yield* test.unconfirmed, [two, three])
      yield* test.drop
      yield* gate.open
      yield* TestClock.adjust("1 second")
      yield* confirm
      assert.deepStrictEqual(seen, ["Insert 1", "Insert 2", "Insert 2", "Insert 3"])
      assert.strictEqual(yield* test.attempts, 2)
    }).pipe(Effect.provide(server()))
  )

  it.effect("skips what begins before the confirmed position, and nothing that begins there", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const [one, two] = yield* test.write(order(1), order(2))
      assert.strictEqual(two.commitLsn, one.endLsn)
      /** Confirms a position on one connection, and tells how many transactions the next one gets. */
      const confirmAndCount = Effect.fnUntraced(function* (flushed: bigint) {
        const lsn = Lsn.make(flushed)!
        const positions = { written: lsn, flushed: lsn, applied: lsn }
        const status = encodeStandbyStatusUpdate({ ...positions, sendTime: PgTimestamp.make(0), replyRequested: false })
        yield* Effect.scoped(Effect.flatMap(copyFrom(Lsn.zero), ({ send }) => send(FrontendMessage.copyData(status))))
        return yield* Effect.scoped(Effect.flatMap(copyFrom(Lsn.zero), commits))
      })
      assert.strictEqual(yield* Effect.scoped(Effect.flatMap(copyFrom(Lsn.zero), commits)), 2)
      assert.strictEqual(yield* Effect.scoped(Effect.flatMap(copyFrom(one.commitLsn), commits)), 2)
      assert.strictEqual(yield* Effect.scoped(Effect.flatMap(copyFrom(one.endLsn), commits)), 1)
      assert.strictEqual(yield* Effect.scoped(Effect.flatMap(copyFrom(Lsn.add(one.endLsn, 1n)!), commits)), 0)
      assert.strictEqual(yield* confirmAndCount(one.endLsn), 1)
      // A slot never goes back, and one byte too far loses the transaction that begins there.
      assert.strictEqual(yield* confirmAndCount(one.commitLsn), 1)
      assert.strictEqual(yield* confirmAndCount(one.endLsn + 1n), 0)
    }).pipe(Effect.provide(server()))
  )

  it.effect("loses nothing, at whatever byte the connection breaks and however small the reads are", () =>
    Effect.gen(function* () {
      const script = [order(1), message("m", "one"), order(2), unpublished(), order(3)]
      const run = (bytes: number) =>
        Effect.gen(function* () {
          const test = yield* TestWalSender
          yield* test.dropAfter(bytes)
          yield* test.write(...script)
          // A backlog is read at leisure, which takes its time where a read is one byte.
          const { fiber, rows } = yield* follow({ timing: { maxReadWait: 0 } })
          yield* TestClock.adjust("2 seconds")
          yield* test.awaitStreaming
          yield* confirm
          yield* Fiber.interrupt(fiber)
          const firsts = [...new Set(rows())]
          assert.deepStrictEqual(firsts, ["Insert 1", "Message one", "Insert 2", "Insert 3"], `broken at ${bytes}`)
          return yield* test.attempts
        }).pipe(Effect.provide(server({ maxReadBytes: 1 + (bytes % 97) })))
      let bytes = 0
      // Until the connection breaks no more: the whole of the stream was shorter.
      while ((yield* run(bytes)) === 2) bytes += 7
      assert.isAbove(bytes, 600)
    })
  )

  it.effect("delays by the Clock, and keeps the order when a delay becomes shorter", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const { rows } = yield* follow()
      yield* test.awaitStreaming
      yield* TestClock.adjust(0)
      yield* test.delay("3 seconds")
      yield* test.write(order(1))
      yield* test.delay(0)
      yield* test.write(order(2))
      yield* TestClock.adjust("2999 millis")
      assert.deepStrictEqual(rows(), [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(rows(), ["Insert 1", "Insert 2"])
    }).pipe(Effect.provide(server()))
  )

  it.effect("refuses as many connections as it is told to", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.refuse(new ConnectionError({ reason: "Refused", detail: "not now" }), 3)
      yield* follow()
      yield* TestClock.adjust("1 minute")
      yield* test.awaitStreaming
      assert.strictEqual(yield* test.attempts, 4)
    }).pipe(Effect.provide(server()))
  )

  it.effect("an invalidated slot ends the stream, and the next connection fails for good", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const { fiber } = yield* follow()
      yield* test.awaitStreaming
      yield* test.invalidateSlot("idle_timeout")
      yield* TestClock.adjust("1 second")
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.deepInclude(error, { _tag: "SlotInvalidated", reason: "idle_timeout" })
    }).pipe(Effect.provide(server()))
  )

  it.effect("a slot in use is waited for until it is free", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.occupySlot
      yield* test.write(order(1))
      const { rows } = yield* follow()
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(rows(), [])
      yield* test.freeSlot
      yield* TestClock.adjust("2 seconds")
      yield* confirm
      assert.deepStrictEqual(rows(), ["Insert 1"])
    }).pipe(Effect.provide(server()))
  )

  it.effect("stops once its client has confirmed all, lets nobody in meanwhile, and starts again", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const gate = yield* Latch.make()
      yield* withLogicalStream(options, (change) =>
        Effect.as(change._tag === "Message" ? gate.await : Effect.void, nextLsn(change))
      ).pipe(Effect.forkChild)
      yield* test.write(order(1))
      yield* confirm
      yield* test.write(message("wait", "here"))
      yield* TestClock.adjust("1 second")
      yield* test.stop
      const late = yield* Effect.scoped(Effect.flatMap(WalSender, ({ connect }) => connect)).pipe(Effect.flip)
      assert.deepInclude(late, { _tag: "ServerError", sqlState: "57P03" })
      yield* gate.open
      yield* TestClock.adjust("1 second")
      yield* test.awaitConfirmed
      const gone = yield* Effect.scoped(Effect.flatMap(WalSender, ({ connect }) => connect)).pipe(Effect.flip)
      assert.deepInclude(gone, { _tag: "ConnectionError", reason: "Refused" })
      yield* test.start
      yield* TestClock.adjust("1 minute")
      yield* test.awaitStreaming
    }).pipe(Effect.provide(server()))
  )

  it.effect("a crash forgets what was confirmed since the last checkpoint, so that a new process sees it again", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const first = yield* follow()
      yield* test.write(order(1))
      yield* confirm
      yield* test.checkpoint
      yield* test.write(order(2))
      yield* confirm
      yield* Fiber.interrupt(first.fiber)
      yield* test.crash
      yield* test.start
      const second = yield* follow()
      yield* TestClock.adjust("1 second")
      yield* test.awaitConfirmed
      assert.deepStrictEqual(first.rows(), ["Insert 1", "Insert 2"])
      assert.deepStrictEqual(second.rows(), ["Insert 2"])
    }).pipe(Effect.provide(server()))
  )

  it.effect("within one process what was finished does not come again after a crash", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const { rows } = yield* follow()
      yield* test.write(order(1))
      yield* confirm
      yield* test.crash
      yield* test.start
      yield* test.write(order(2))
      yield* TestClock.adjust("1 second")
      yield* confirm
      assert.deepStrictEqual(rows(), ["Insert 1", "Insert 2"])
    }).pipe(Effect.provide(server()))
  )

  it.effect("asks a silent client for a reply at half of wal_sender_timeout, and leaves it after all of it", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const copy = yield* copyFrom(Lsn.zero)
      yield* copy.pull
      yield* TestClock.adjust("3 seconds")
      const demand = yield* copy.pull
      assert.strictEqual(demand.at(-1), 1)
      yield* TestClock.adjust("3 seconds")
      assert.deepInclude(yield* Effect.flip(copy.pull), { _tag: "ConnectionError", reason: "Closed" })
      assert.strictEqual((yield* test.slot)?.activePid, undefined)
    }).pipe(Effect.scoped, Effect.provide(server({ walSenderTimeout: 6000 })))
  )

  it.effect("demands a status update, and gets it at once", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* follow({ timing: { statusInterval: 0 } })
      yield* test.awaitStreaming
      yield* TestClock.adjust("150 millis")
      const before = (yield* test.statusUpdates).length
      yield* test.demandStatus
      yield* TestClock.adjust(0)
      assert.strictEqual((yield* test.statusUpdates).length, before + 1)
    }).pipe(Effect.provide(server()))
  )
})

describe("what it refuses", () => {
  /** The answer to START_REPLICATION with these options: the letter of its first message, and its text. */
  const start = Effect.fnUntraced(function* (slot: string, options: ReadonlyArray<readonly [string, string]>) {
    const connection = yield* (yield* WalSender).connect
    const command = yield* Effect.fromResult(startReplicationCommand({ slot, startLsn: Lsn.zero, options }))
    const bytes = yield* (yield* connection.copyBoth(command)).pull
    return new TextDecoder().decode(bytes)
  })

  it.effect("START_REPLICATION as a server does: no slot, a slot in use, options it does not know", () =>
    Effect.gen(function* () {
      assert.match(yield* start("others", pgoutput), /^E.*C42704/s)
      assert.match(yield* start("orders", []), /^E.*C22023/s)
      assert.match(yield* start("orders", [["proto_version", "1"]]), /^E.*C22023/s)
      assert.match(yield* start("orders", [...pgoutput, ["color", "red"]]), /^E.*CXX000/s)
      assert.match(yield* start("orders", [...pgoutput, ["binary", "true"]]), /^E.*C0A000/s)
      assert.match(yield* start("orders", pgoutput), /^W/)
      assert.match(yield* start("orders", pgoutput), /^E.*C55006/s)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.effect("a slot that is there already, an unknown plugin, dropping a slot in use or a missing one", () =>
    Effect.gen(function* () {
      const connection = yield* (yield* WalSender).connect
      const create = (slot: string, plugin: string) =>
        Effect.flip(createReplicationSlot(connection, { slot, plugin, snapshot: "nothing" }))
      assert.strictEqual((yield* create("orders", "pgoutput"))._tag, "SlotAlreadyExists")
      assert.deepInclude(yield* create("new", "wal2json"), { _tag: "ServerError", sqlState: "58P01" })
      assert.strictEqual((yield* Effect.flip(dropReplicationSlot(connection, "none")))._tag, "SlotNotFound")
      const test = yield* TestWalSender
      yield* test.occupySlot
      assert.strictEqual((yield* Effect.flip(dropReplicationSlot(connection, "orders")))._tag, "SlotInUse")
      const waiting = yield* Effect.forkChild(dropReplicationSlot(connection, "orders", { wait: true }))
      yield* TestClock.adjust(0)
      yield* test.freeSlot
      yield* Fiber.join(waiting)
      assert.isUndefined(yield* test.slot)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.effect("a query it does not know, by name", () =>
    Effect.gen(function* () {
      const connection = yield* (yield* WalSender).connect
      const error = yield* Effect.flip(connection.query("SELECT 1"))
      assert.include(error.message, "SELECT 1")
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.effect("a stream from a slot or a publication that is not there", () =>
    Effect.gen(function* () {
      const { fiber } = yield* follow()
      assert.strictEqual((yield* Effect.flip(Fiber.join(fiber)))._tag, "SlotNotFound")
      const other = yield* follow({ createSlot: "permanent", plugin: Pgoutput.make({ publications: ["nothing"] }) })
      assert.strictEqual((yield* Effect.flip(Fiber.join(other.fiber)))._tag, "PublicationNotFound")
    }).pipe(Effect.provide(server({ slotExists: "no" })))
  )
})

describe("what it publishes", () => {
  it.effect("makes a slot where it is asked to, which begins there", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.write(order(1))
      const { rows } = yield* follow({ createSlot: "permanent" })
      yield* test.awaitStreaming
      yield* test.write(order(2))
      yield* confirm
      assert.deepStrictEqual(rows(), ["Insert 2"])
    }).pipe(Effect.provide(server({ slotExists: "no" })))
  )

  it.effect("leaves out tables and operations that are not in the publication, and transactions without others", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const { rows, seen } = yield* follow()
      yield* test.write(
        tx(insert(notes, { id: 1n, body: "not published" })),
        tx(remove(Orders, { id: 1 })),
        tx(truncate([notes, Orders]), insert(Orders, { id: 2, total: 1, note: null }))
      )
      yield* confirm
      assert.deepStrictEqual(rows(), ["Truncate", "Insert 2"])
      assert.lengthOf(seen, 4)
      const truncated = seen.find((change) => change._tag === "Truncate")
      assert.deepStrictEqual(
        truncated?.relations.map(({ name }) => name),
        ["orders"]
      )
    }).pipe(
      Effect.provide(
        server({ publications: [{ name: "orders", tables: ["orders"], operations: ["insert", "truncate"] }] })
      )
    )
  )

  it.effect("describes a relation again when it is another, and types of its own before", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const { seen } = yield* follow()
      const before = relation("moods", { columns: { id: "integer" }, key: ["id"] })
      const after = relation("moods", { columns: { id: "integer", mood: "app.mood" }, key: ["id"] })
      yield* test.write(tx(insert(before, { id: 1 }), insert(after, { id: 2, mood: "glad" })))
      yield* confirm
      const changed = seen.find((change) => change._tag === "RelationChanged")
      assert.deepStrictEqual(
        changed?.relation.columns.map(({ name, typeName }) => [name, typeName]),
        [
          ["id", "integer"],
          ["mood", "mood"]
        ]
      )
      assert.deepInclude(seen.at(-2), { _tag: "Insert", row: { id: 2, mood: "glad" } })
    }).pipe(Effect.provide(server()))
  )
})
