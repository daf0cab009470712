import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { leftAt } from "../../src/replication/StartPosition.ts"
import { make, type Options, withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Fake from "../support/FakeWalSender.ts"

/** Lets every fiber run as far as it can without time passing. */
const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

const stream = (fake: Fake.FakeWalSender, options: Partial<Options>) =>
  withLogicalStream({ slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }), ...options }, (change) =>
    Effect.succeed(nextLsn(change))
  ).pipe(Effect.provide(fake.layer))

/** What a stream with these options fails with on a server like this. */
const failure = Effect.fnUntraced(function* (server: Fake.FakeOptions, options: Partial<Options>) {
  const fake = yield* Fake.make(() => server)
  const error = yield* Effect.flip(stream(fake, options))
  assert.isFalse(fake.connections[0]?.commands.some((command) => command.startsWith("START_REPLICATION")))
  return error
})

/** The START_REPLICATION that a stream with these options sends to such a server. */
const started = Effect.fnUntraced(function* (server: Fake.FakeOptions, options: Partial<Options>) {
  const fake = yield* Fake.make(() => server)
  yield* Effect.forkChild(stream(fake, options))
  return (yield* fake.accept).commands.at(-1)
})

const history = "1\t0/A00\tno recovery target specified\n\n2\t0/B00\tbefore 2000-01-01\n"

describe("the history of a timeline", () => {
  it("tells where each was left", () => {
    assert.strictEqual(leftAt(history, 1), Fake.lsn("0/A00"))
    assert.strictEqual(leftAt(history, 2), Fake.lsn("0/B00"))
    assert.isUndefined(leftAt(history, 3))
    assert.isUndefined(leftAt("", 1))
    assert.isUndefined(leftAt("1 nonsense\nnonsense", 1))
    assert.strictEqual(leftAt("  12  aB/CDEF0123  reason", 12), Fake.lsn("AB/CDEF0123"))
    assert.strictEqual(leftAt("3\t12345678/90ABCDEF\n", 3), Fake.lsn("12345678/90ABCDEF"))
    for (const other of [1, 2]) assert.isUndefined(leftAt("12\t0/A00\treason", other))
    assert.isUndefined(leftAt("# 1\t0/A00\treason", 1), "a remark")
    assert.isUndefined(leftAt("10/A00", 1), "a timeline without a space behind it")
  })
})

describe("a checkpoint of the consumer's own", () => {
  const endLsn = Fake.lsn("0/800")
  const behind = { slot: { confirmed_flush_lsn: "0/700" } }

  it.effect("[V2] is where the stream starts, and is confirmed once the server is beyond it", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make(() => behind)
      yield* Effect.forkChild(stream(fake, { checkpoint: { endLsn, systemId: "7000", timeline: 1 } }))
      const server = yield* fake.accept
      assert.include(server.commands.at(-1), "LOGICAL 0/800")
      yield* settle
      yield* server.say(Fake.relation(), Fake.begin("0/900"), Fake.keepAlive("0/850", true))
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(Lsn.format(server.statuses.at(-1)!.flushed), "0/800")
    })
  )

  it.effect("[V9] of another cluster, or beyond its WAL, is refused before anything is started", () =>
    Effect.gen(function* () {
      const other = yield* failure(behind, { checkpoint: { endLsn, systemId: "6999" } })
      assert.deepInclude(other, { _tag: "SystemMismatch", property: "systemId", expected: "6999", found: "7000" })
      const ahead = yield* failure({ ...behind, xLogPos: "0/7FF" }, { checkpoint: { endLsn } })
      assert.deepInclude(ahead, { _tag: "SystemMismatch", property: "position", expected: "0/800", found: "0/7FF" })
    })
  )

  it.effect("[V7, V9] of an earlier timeline holds if that was left at or after it, and only then", () =>
    Effect.gen(function* () {
      const promoted = { ...behind, timeline: 3, history }
      const options = (lsn: string) => ({ checkpoint: { endLsn: Fake.lsn(lsn), timeline: 1 } })
      assert.include(yield* started(promoted, options("0/800")), "LOGICAL 0/800")
      assert.include(yield* started(promoted, options("0/A00")), "LOGICAL 0/A00")
      const diverged = yield* failure(promoted, options("0/A01"))
      assert.deepInclude(diverged, { _tag: "SystemMismatch", property: "timeline", expected: "1", found: "3" })
      const older = yield* failure(behind, { checkpoint: { endLsn, timeline: 2 } })
      assert.deepInclude(older, { _tag: "SystemMismatch", property: "timeline", expected: "2", found: "1" })
    })
  )

  it.effect("[V7] keeps the place of the stream across a promotion, where the history proves that it holds", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make((attempt) => ({
        ...behind,
        timeline: attempt + 1,
        serverStart: String(attempt),
        history
      }))
      yield* Effect.forkChild(stream(fake, { checkpoint: { endLsn } }))
      const first = yield* fake.accept
      yield* first.say(Fake.relation(), Fake.transaction("0/900", "0/930", 1))
      yield* settle
      yield* first.drop
      yield* settle
      yield* TestClock.adjust("250 millis")
      assert.include((yield* fake.accept).commands.at(-1), "LOGICAL 0/930")
    })
  )

  it.effect("that the slot has left behind fails, unless that was idle or is accepted", () =>
    Effect.gen(function* () {
      const ahead = { slot: { confirmed_flush_lsn: "0/900" } }
      const error = yield* failure(ahead, { checkpoint: { endLsn } })
      const confirmedFlushLsn = Fake.lsn("0/900")
      assert.deepInclude(error, { _tag: "SlotAheadOfCheckpoint", checkpoint: endLsn, confirmedFlushLsn })
      const short = yield* failure(ahead, { checkpoint: { endLsn, idleFlush: Fake.lsn("0/8FF") } })
      assert.deepInclude(short, { _tag: "SlotAheadOfCheckpoint", checkpoint: Fake.lsn("0/8FF") })
      const idle = { checkpoint: { endLsn, idleFlush: Fake.lsn("0/900") } }
      assert.include(yield* started(ahead, idle), "LOGICAL 0/800", "and the server takes the slot's own")
      const accepted = { checkpoint: { endLsn }, slotAheadOfCheckpoint: "accept" } as const
      assert.include(yield* started(ahead, accepted), "LOGICAL 0/800")
      const none = { checkpoint: { endLsn: Lsn.zero } }
      assert.include(yield* started(ahead, none), "LOGICAL 0/0", "nothing is stored yet")
    })
  )

  it.effect("[V12] that a standby has not replayed yet is waited for; a primary that is behind is another server", () =>
    Effect.gen(function* () {
      const checkpoint = { endLsn: Fake.lsn("0/900"), systemId: "7000", timeline: 2 }
      for (const behind of [
        { xLogPos: "0/800", timeline: 2 },
        { xLogPos: "0/1000", timeline: 1 }
      ]) {
        const primary = yield* failure(behind, { checkpoint })
        assert.strictEqual(primary._tag, "SystemMismatch")
        const standby = yield* failure({ ...behind, isInRecovery: true }, { checkpoint, reconnect: Schedule.recurs(0) })
        const found = Fake.lsn(behind.xLogPos)
        assert.deepInclude(standby, { _tag: "StandbyBehind", isRetryable: true, expected: checkpoint.endLsn, found })
      }
      const other = yield* failure({ systemId: "8000", xLogPos: "0/800", isInRecovery: true }, { checkpoint })
      assert.deepInclude(other, { _tag: "SystemMismatch", property: "systemId" })
    })
  )

  it.effect("[V7] that a standby before PostgreSQL 16 cannot stream is waited for until it is promoted", () =>
    Effect.gen(function* () {
      const standby = { serverVersion: 150_000, isInRecovery: true, xLogPos: "0/1000" }
      const checkpoint = { endLsn: Fake.lsn("0/900") }
      const early = yield* failure(standby, { checkpoint, reconnect: Schedule.recurs(0) })
      assert.deepInclude(early, { _tag: "StandbyBehind", isRetryable: true, found: Fake.lsn("0/1000") })
      assert.include(early.message, "a standby still, at 0/1000")
    })
  )

  it.effect(
    "[V7] is streamed from a standby of PostgreSQL 16, and of an earlier one where nobody has streamed yet",
    () =>
      Effect.gen(function* () {
        const standby = { isInRecovery: true, xLogPos: "0/1000", slot: { confirmed_flush_lsn: "0/900" } }
        const checkpoint = { endLsn: Fake.lsn("0/900") }
        assert.include(yield* started({ ...standby, serverVersion: 160_000 }, { checkpoint }), "LOGICAL 0/900")
        const earlier = { ...standby, serverVersion: 159_999 }
        assert.include(yield* started(earlier, {}), "LOGICAL 0/0")
        assert.include(yield* started(earlier, { checkpoint: { endLsn: Lsn.zero } }), "LOGICAL 0/0")
        const behind = yield* failure(earlier, { checkpoint, reconnect: Schedule.recurs(0) })
        assert.strictEqual(behind._tag, "StandbyBehind")
        assert.include(yield* started({ ...earlier, isInRecovery: false }, { checkpoint }), "LOGICAL 0/900")
      })
  )

  it.effect("[V12] goes on by itself once the standby has replayed it, and says meanwhile what it waits for", () =>
    Effect.gen(function* () {
      const checkpoint = { endLsn: Fake.lsn("0/900") }
      const fake = yield* Fake.make((attempt) => ({
        slot: { confirmed_flush_lsn: "0/900" },
        isInRecovery: true,
        xLogPos: attempt < 5 ? "0/800" : "0/900"
      }))
      const { run, state } = yield* make({
        slot: "orders",
        plugin: Pgoutput.make({ publications: ["orders"] }),
        checkpoint
      })
      yield* Effect.forkChild(
        Effect.provide(
          run(() => Effect.succeed(undefined)),
          fake.layer
        )
      )
      yield* TestClock.adjust("1 second")
      const waiting = yield* SubscriptionRef.get(state)
      assert(waiting._tag === "Reconnecting")
      assert.strictEqual(waiting.cause._tag, "StandbyBehind")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* SubscriptionRef.get(state))._tag, "Streaming")
    })
  )

  it.effect("[S1] says that there was a slot: it is not made anew", () =>
    Effect.gen(function* () {
      const error = yield* failure({ slot: "missing" }, { checkpoint: { endLsn }, createSlot: "permanent" })
      assert.strictEqual(error._tag, "SlotNotFound")
    })
  )
})

describe("a stream without a checkpoint that is failed over", () => {
  /** What the second connection is told, and how it starts or fails, after a unit up to 0/930 and `more` at the first. */
  const failedOver = Effect.fnUntraced(function* (
    left: string,
    {
      before = {},
      more = [],
      same = false
    }: {
      readonly before?: Fake.FakeOptions
      readonly more?: ReadonlyArray<Uint8Array>
      readonly same?: boolean
    } = {}
  ) {
    const fake = yield* Fake.make((attempt) =>
      attempt === 0
        ? before
        : { timeline: 2, serverStart: same ? "1" : "2", history: `1\t${left}\tno recovery target specified\n` }
    )
    const fiber = yield* Effect.forkChild(stream(fake, {}))
    const first = yield* fake.accept
    yield* first.say(Fake.relation(), Fake.transaction("0/900", "0/930", 1), ...more)
    yield* settle
    yield* TestClock.adjust("1 second")
    yield* settle
    yield* first.drop
    yield* settle
    yield* TestClock.adjust("250 millis")
    yield* settle
    const exit = fiber.pollUnsafe()
    return exit === undefined
      ? fake.connections.at(-1)!.commands.filter((command) => command.startsWith("START_REPLICATION"))[0]
      : yield* Effect.flip(Fiber.join(fiber))
  })

  it.effect("[V7] keeps its place where the history proves that it holds: nothing comes twice", () =>
    Effect.gen(function* () {
      assert.include(yield* failedOver("0/930"), "LOGICAL 0/930")
      assert.include(yield* failedOver("0/A00", { more: [Fake.keepAlive("0/980")] }), "LOGICAL 0/980")
    })
  )

  it.effect("[V7] drops an idle position beyond that history, which is no data, and keeps what is done", () =>
    Effect.gen(function* () {
      assert.include(yield* failedOver("0/950", { more: [Fake.keepAlive("0/980", true)] }), "LOGICAL 0/930")
    })
  )

  it.effect("[V9] fails where the timeline was left before what is done: no primary has those rows any more", () =>
    Effect.gen(function* () {
      const error = yield* failedOver("0/92F")
      assert.deepInclude(error, { _tag: "SystemMismatch", property: "timeline", expected: "1", found: "2" })
      assert.include((error as { remedy: string }).remedy, "new snapshot")
    })
  )

  it.effect(
    "[V7] takes the word of a server that was streamed from as a standby: what came after its promotion is its own",
    () =>
      Effect.gen(function* () {
        assert.include(yield* failedOver("0/900", { same: true }), "LOGICAL 0/930", "the same server")
        assert.include(yield* failedOver("0/900", { before: { isInRecovery: true } }), "LOGICAL 0/0", "restarted since")
      })
  )
})

describe("storeIdleFlush", () => {
  it.effect("[C15] is given an idle position before the server is, and what is not stored is not confirmed", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const stored: Array<string> = []
      let isBroken = true
      const storeIdleFlush = (lsn: Lsn.Lsn): Effect.Effect<unknown, string> =>
        isBroken ? Effect.fail("no disk") : Effect.sync(() => stored.push(Lsn.format(lsn)))
      yield* Effect.forkChild(stream(fake, { storeIdleFlush }))
      const server = yield* fake.accept
      const flushed = () => server.statuses.map((status) => Lsn.format(status.flushed))
      const pass = Effect.andThen(settle, Effect.andThen(TestClock.adjust("3 seconds"), settle))
      yield* server.say(Fake.keepAlive("0/500", true))
      yield* pass
      assert.isNotEmpty(flushed())
      assert.isTrue(flushed().every((lsn) => lsn === "0/0"))
      yield* server.say(Fake.relation(), Fake.transaction("0/600", "0/630", 1), Fake.keepAlive("0/700", true))
      yield* pass
      assert.strictEqual(flushed().at(-1), "0/630", "what is handled is confirmed all the same")
      isBroken = false
      yield* pass
      assert.deepStrictEqual(stored, ["0/700"])
      assert.strictEqual(flushed().at(-1), "0/700")
    })
  )

  it.effect("need not be given again what it stored in an earlier process, and is given what lies beyond", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make(() => ({ slot: { confirmed_flush_lsn: "0/700" } }))
      const stored: Array<string> = []
      const storeIdleFlush = (lsn: Lsn.Lsn) =>
        Effect.andThen(
          Effect.sync(() => stored.push(Lsn.format(lsn))),
          Effect.never
        )
      const checkpoint = { endLsn: Fake.lsn("0/800"), idleFlush: Fake.lsn("0/900") }
      yield* Effect.forkChild(stream(fake, { checkpoint, storeIdleFlush }))
      const server = yield* fake.accept
      assert.include(server.commands.at(-1), "LOGICAL 0/800")
      yield* server.say(Fake.keepAlive("0/950", true))
      yield* settle
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(Lsn.format(server.statuses.at(-1)!.flushed), "0/900")
      assert.deepStrictEqual(stored, ["0/950"])
    })
  )

  it.effect("that fails is tried ever more slowly, told less and less, and told of when it is well again", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const logged: Array<string> = []
      const logger = Logger.make(({ message }) => {
        logged.push([message].flat().map(String).join(" "))
      })
      let calls = 0
      let isBroken = true
      const storeIdleFlush = () => {
        calls++
        return isBroken ? Effect.fail("no disk") : Effect.void
      }
      const following = stream(fake, { storeIdleFlush, timing: { acknowledgeDelay: 0 } })
      yield* Effect.forkChild(Effect.provide(following, Logger.layer([logger])))
      const server = yield* fake.accept
      yield* server.say(Fake.keepAlive("0/500"))
      yield* settle
      for (let second = 0; second < 600; second++) yield* TestClock.adjust("1 second")
      assert.isBelow(calls, 20)
      const warnings = logged.filter((text) => text.includes("could not be stored"))
      assert.isAbove(warnings.length, 1)
      assert.isBelow(warnings.length, 5)
      isBroken = false
      for (let second = 0; second < 61; second++) yield* TestClock.adjust("1 second")
      assert.lengthOf(
        logged.filter((text) => text.includes("stored again")),
        1
      )
    })
  )

  it.effect("that hangs holds back idle positions, and no status update", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const fiber = yield* Effect.forkChild(stream(fake, { storeIdleFlush: () => Effect.never }))
      const server = yield* fake.accept
      yield* server.say(Fake.keepAlive("0/500", true))
      yield* settle
      for (let second = 0; second < 60; second++) yield* TestClock.adjust("1 second")
      assert.isAtLeast(server.statuses.length, 5)
      assert.isTrue(server.statuses.every((status) => status.flushed === Lsn.zero))
      yield* Fiber.interrupt(fiber)
      assert.isTrue(server.isDone)
    })
  )
})
