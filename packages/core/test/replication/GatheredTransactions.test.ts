import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import type { ChangeInProgress } from "../../src/change/InProgress.ts"
import type { GatheredBytes, Gathering } from "../../src/change/OutputPlugin.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { SpillFailed } from "../../src/ReplicationError.ts"
import { make } from "../../src/replication/GatheredTransactions.ts"
import { type Spill, layer as spillLayer, TransactionSpill } from "../../src/replication/TransactionSpill.ts"
import { Vitals } from "../../src/replication/Vitals.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Fake from "../support/FakeWalSender.ts"
import { insert as insertMessage, relation as relationMessage } from "../support/PgoutputBytes.ts"
import { block, streamAbort, streamCommit, within } from "../support/StreamingBytes.ts"

const plugin = Pgoutput.make({ publications: ["orders"], streaming: "on" })
const options = { slot: "orders", plugin }

const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 80 }), () => Effect.yieldNow)
)

interface SpiltFile {
  bytes: Uint8Array
  isOpen: boolean
}

/** Files in memory, and what became of them. */
const makeSpill = (limits: { readonly maxBytesInMemory: number; readonly failAfter?: number | undefined }) => {
  const files: Array<SpiltFile> = []
  const { failAfter = Number.POSITIVE_INFINITY, maxBytesInMemory } = limits
  const spill: Spill = {
    maxBytesInMemory,
    makeFile: Effect.acquireRelease(
      Effect.sync(() => {
        const file: SpiltFile = { bytes: new Uint8Array(0), isOpen: true }
        files.push(file)
        return file
      }),
      (file) =>
        Effect.sync(() => {
          file.isOpen = false
        })
    ).pipe(
      Effect.map((file) => ({
        append: (bytes) =>
          file.bytes.length + bytes.length > failAfter
            ? Effect.fail(new SpillFailed({ during: "write", problem: "no space left on device" }))
            : Effect.sync(() => {
                file.bytes = Fake.concat(file.bytes, bytes)
              }),
        read: (position, length) => Effect.sync(() => file.bytes.slice(position, position + length))
      }))
    )
  }
  return { files, layer: Layer.succeed(TransactionSpill, spill) }
}

const wide = relationMessage(1, [{ name: "a", typeOid: 25 }])
const say = (at: string, messages: ReadonlyArray<Uint8Array>) =>
  Fake.concat(...messages.map((each) => Fake.xLogData(at, each)))
/** A block of `count` rows of 10,000 characters each. */
const rows = (xid: number, segment: number, count: number, subxid = xid) =>
  block(
    xid,
    segment,
    within(xid, wide),
    ...Array.from({ length: count }, (_, index) => within(subxid, insertMessage(1, `${index}`.padEnd(10_000))))
  )

const brief = (changes: ReadonlyArray<Change>) =>
  changes.map((change) => (change._tag === "Insert" ? String(change.row.a).trim() : change._tag))

/** Runs a stream over what `script` says, until it has settled. */
const gather = Effect.fnUntraced(function* (spill: ReturnType<typeof makeSpill>) {
  const fake = yield* Fake.make()
  const seen: Array<Change> = []
  const fiber = yield* withLogicalStream(options, (change) => {
    seen.push(change)
    return Effect.succeed(nextLsn(change))
  }).pipe(Effect.provide(Layer.merge(fake.layer, spill.layer)), Effect.forkChild)
  return { fiber, seen, server: yield* fake.accept, fake }
})

describe("transactions in progress", () => {
  it.effect("outgrow memory into files, from where they come in order, with what came after them in memory", () =>
    Effect.gen(function* () {
      const spill = makeSpill({ maxBytesInMemory: 300_000 })
      const { seen, server } = yield* gather(spill)
      yield* server.say(say("0/50", rows(9, 1, 60)))
      yield* settle
      assert.isEmpty(seen)
      assert.lengthOf(spill.files, 1)
      assert.isAbove(spill.files[0]!.bytes.length, 500_000)
      yield* server.say(say("0/60", rows(9, 0, 5)))
      yield* settle
      yield* server.say(say("0/130", [streamCommit(9)]), Fake.relation(), Fake.transaction("0/200", "0/230", 1))
      yield* settle
      const count = (length: number) => Array.from({ length }, (_, index) => `${index}`)
      assert.deepStrictEqual(brief(seen).slice(0, 67), ["Begin", ...count(60), ...count(5), "Commit"])
      assert.lengthOf(seen, 70)
      assert.isFalse(spill.files[0]!.isOpen)
    })
  )

  it.effect("stay in memory while they fit", () =>
    Effect.gen(function* () {
      const spill = makeSpill({ maxBytesInMemory: 1_000_000 })
      const { seen, server } = yield* gather(spill)
      yield* server.say(say("0/50", rows(9, 1, 20)), say("0/130", [streamCommit(9)]))
      yield* settle
      assert.lengthOf(seen, 22)
      assert.isEmpty(spill.files)
    })
  )

  it.effect("let go of their files when they are aborted, and when the connection is lost", () =>
    Effect.gen(function* () {
      const spill = makeSpill({ maxBytesInMemory: 1 })
      const { fiber, seen, server } = yield* gather(spill)
      yield* server.say(say("0/50", [...rows(9, 1, 3), ...rows(10, 1, 3)]))
      yield* settle
      assert.deepStrictEqual(
        spill.files.map(({ isOpen }) => isOpen),
        [true, true]
      )
      yield* server.say(say("0/60", [streamAbort(9)]))
      yield* settle
      assert.deepStrictEqual(spill.files.filter(({ isOpen }) => isOpen).length, 1)
      yield* server.drop
      yield* settle
      assert.isTrue(spill.files.every(({ isOpen }) => !isOpen))
      assert.isEmpty(seen)
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("fail the stream, and are not acknowledged, when there is no room for them", () =>
    Effect.gen(function* () {
      const spill = makeSpill({ maxBytesInMemory: 1, failAfter: 100_000 })
      const { fiber, seen, server } = yield* gather(spill)
      yield* server.say(say("0/50", rows(9, 1, 60)))
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.deepInclude(error, { _tag: "SpillFailed", during: "write", isRetryable: false })
      assert.isTrue(server.isClosed)
      assert.isTrue(spill.files.every(({ isOpen }) => !isOpen))
      assert.isEmpty(seen)
    })
  )

  it.effect("hold back what the walsender is told until their handler is done with them", () =>
    Effect.gen(function* () {
      const spill = makeSpill({ maxBytesInMemory: 1 })
      const fake = yield* Fake.make()
      const gate = yield* Latch.make()
      yield* withLogicalStream(options, (change) =>
        change._tag === "Commit" ? Effect.as(gate.await, nextLsn(change)) : Effect.undefined
      ).pipe(Effect.provide(Layer.merge(fake.layer, spill.layer)), Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(say("0/50", rows(9, 1, 3)), say("0/130", [streamCommit(9)]), Fake.keepAlive("0/500", true))
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.isTrue(server.statuses.every(({ flushed }) => flushed === Lsn.zero))
      yield* gate.open
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(Lsn.format(server.statuses.at(-1)!.flushed), "0/500")
    })
  )

  it.effect("need a place to be gathered in: without one nothing is opened", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const error = yield* withLogicalStream(options, () => Effect.undefined).pipe(
        Effect.provide(fake.layer),
        Effect.flip
      )
      assert.deepInclude(error, { _tag: "InvalidOption", option: "streaming" })
      assert.include(error.message, "provide TransactionSpill.layer()")
    })
  )

  it.effect("that cannot be decoded fail the stream with the place and the transaction, and nothing is handed on", () =>
    Effect.gen(function* () {
      const { fiber, seen, server } = yield* gather(makeSpill({ maxBytesInMemory: 1_000_000 }))
      const torn = insertMessage(1, "a value").slice(0, -3)
      const torned = block(9, 1, within(9, wide), within(9, torn))
      yield* server.say(say("0/50", torned), say("0/130", [streamCommit(9)]))
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert(error._tag === "DecodeError")
      assert.strictEqual(error.lsn, 0x100n)
      assert.isAbove(error.offset, 0)
      assert.isNotEmpty(error.problem)
      assert.isEmpty(seen)
    })
  )

  it.effect("are never passed over: a plugin that gathers them without saying so is refused before it starts", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const error = yield* withLogicalStream(
        { slot: "orders", plugin: { ...plugin, tells: { ...plugin.tells, inProgress: false } } },
        () => Effect.undefined
      ).pipe(Effect.provide(fake.layer), Effect.flip)
      assert.deepInclude(error, { _tag: "InvalidOption", option: "plugin" })
      const commands = fake.connections.flatMap((connection) => connection.commands)
      assert.isEmpty(commands.filter((command) => command.startsWith("START_REPLICATION")))
    })
  )

  it.effect("need none where they are delivered as they come", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const seen: Array<ChangeInProgress["_tag"]> = []
      const done = yield* Deferred.make<void>()
      yield* withLogicalStream({ ...options, inProgress: "deliver" }, (change) => {
        seen.push(change._tag)
        return change._tag === "StreamCommit"
          ? Effect.as(Deferred.succeed(done, undefined), nextLsn(change))
          : Effect.undefined
      }).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(say("0/50", rows(9, 1, 2)), say("0/130", [streamCommit(9)]))
      yield* Deferred.await(done)
      assert.deepStrictEqual(seen, ["StreamStart", "Streamed", "Streamed", "StreamStop", "StreamCommit"])
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(Lsn.format(server.statuses.at(-1)!.flushed), "0/130")
    })
  )
})

/** Bytes that were gathered, and how many of them are in memory still. */
const gathered = (...chunks: ReadonlyArray<number>) => {
  let inMemory = chunks.map((length) => new Uint8Array(length))
  const bytesInMemory = () => inMemory.reduce((sum, { length }) => sum + length, 0)
  const bytes: GatheredBytes = {
    xid: 9,
    get bytesInMemory() {
      return bytesInMemory()
    },
    takeChunks: () => {
      const taken = inMemory
      inMemory = []
      return taken
    }
  }
  const gathering = (aborted: ReadonlyArray<GatheredBytes> = []): Gathering => ({
    get bytesInMemory() {
      return bytesInMemory()
    },
    largest: () => (inMemory.length > 0 ? bytes : undefined),
    takeAborted: () => aborted
  })
  return { bytes, gathering }
}

describe("what is in files", () => {
  /** Transactions that may have so much memory, and how much of them is in files. */
  const making = Effect.fnUntraced(function* (maxBytesInMemory: number) {
    const spill = makeSpill({ maxBytesInMemory })
    const vitals = new Vitals()
    const { settle } = yield* Effect.provide(make(vitals), spill.layer)
    return { settle, files: spill.files, spilled: () => vitals.spillBytes }
  })

  it.effect("is what is beyond memory's budget, and not what just fits", () =>
    Effect.gen(function* () {
      const { files, settle, spilled } = yield* making(300)
      const fits = gathered(100, 200)
      yield* settle(fits.gathering())
      assert.deepStrictEqual([fits.bytes.bytesInMemory, spilled(), files.length], [300, 0, 0])
      const more = gathered(100, 201)
      yield* settle(more.gathering())
      assert.deepStrictEqual([more.bytes.bytesInMemory, spilled(), files.length], [0, 301, 1])
    })
  )

  it.effect("is counted until it is let go of, once; of what is not in files nothing is", () =>
    Effect.gen(function* () {
      const { files, settle, spilled } = yield* making(10)
      const [one, other] = [gathered(100, 200), gathered(50)]
      yield* settle(one.gathering())
      yield* settle(other.gathering())
      assert.strictEqual(spilled(), 350)
      yield* settle(gathered().gathering([one.bytes, gathered(5).bytes]))
      assert.strictEqual(spilled(), 50)
      assert.deepStrictEqual(
        files.map(({ isOpen }) => isOpen),
        [false, true]
      )
      yield* settle(gathered().gathering([one.bytes]))
      assert.strictEqual(spilled(), 50)
    })
  )

  it.effect("is nothing where a plugin gathers nothing, or has nothing to give away", () =>
    Effect.gen(function* () {
      const { settle, spilled } = yield* making(10)
      yield* settle(undefined)
      yield* settle({ ...gathered().gathering(), bytesInMemory: 100 })
      assert.strictEqual(spilled(), 0)
    })
  )
})

describe("prepared transactions", () => {
  it.effect("are not handed on as whole ones: that is refused before anything is opened", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const twoPhase = Pgoutput.make({ publications: ["orders"], twoPhase: true })
      const error = yield* withLogicalStream(
        { slot: "orders", plugin: twoPhase },
        Handler.transactions(() => Effect.void)
      ).pipe(Effect.provide(fake.layer), Effect.flip)
      assert.deepInclude(error, { _tag: "InvalidOption", option: "twoPhase" })
      assert.isEmpty(fake.connections)
    })
  )
})

describe("TransactionSpill.layer", () => {
  const inDirectory = <A, E>(use: (directory: string) => Effect.Effect<A, E>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-test-"))),
      use,
      (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true }))
    )
  /** The modes of the files there that this process has open, by name or without; Linux alone tells. */
  const openModes = (directory: string) =>
    Fs.readdirSync("/proc/self/fd").flatMap((fd) => {
      const path = Path.join("/proc/self/fd", fd)
      const isOurs = Fs.existsSync(path) || Fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined
      return isOurs && Fs.readlinkSync(path).startsWith(directory) ? [Fs.statSync(path).mode & 0o777] : []
    })

  it.live(
    "[C14] keeps rows in files that their owner alone can read, and of which nothing stays when the process is killed",
    () =>
      inDirectory((directory) =>
        Effect.gen(function* () {
          const spill = yield* TransactionSpill
          yield* Effect.scoped(
            Effect.gen(function* () {
              const file = yield* spill!.makeFile
              yield* file.append(Uint8Array.of(1, 2, 3))
              yield* file.append(Uint8Array.of(4, 5))
              assert.deepStrictEqual(yield* file.read(1, 3), Uint8Array.of(2, 3, 4))
              yield* file.append(Uint8Array.of(6))
              assert.deepStrictEqual(yield* file.read(3, 3), Uint8Array.of(4, 5, 6))
              assert.isEmpty(Fs.readdirSync(directory), "no name is left while it is open")
              if (process.platform === "linux") assert.deepStrictEqual(openModes(directory), [0o600])
              const error = yield* Effect.flip(file.read(5, 3))
              assert.deepInclude(error, { _tag: "SpillFailed", during: "read" })
            })
          )
          assert.isEmpty(Fs.readdirSync(directory))
          if (process.platform === "linux") assert.isEmpty(openModes(directory))
        }).pipe(Effect.provide(spillLayer({ directory })), Effect.provide(NodeFileSystem.layer))
      )
  )

  it.live("fails with the directory's trouble where no file can be made", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.scoped((yield* TransactionSpill)!.makeFile))
      assert.deepInclude(error, { _tag: "SpillFailed", during: "open" })
    }).pipe(Effect.provide(spillLayer({ directory: "/nonexistent/place" })), Effect.provide(NodeFileSystem.layer))
  )
})
