/**
 * Positions that go back, stand still or run ahead, and keep-alives without number: what is told the server of them.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import { cpuMillis } from "../support/cpuMillis.ts"
import * as Fake from "../support/FakeWalSender.ts"
import { attack, beginning, client, ending, ids, plugin, refused, settle } from "./Hostile.ts"

const flushes = (connection: Fake.FakeConnection) => connection.statuses.map(({ flushed }) => Lsn.format(flushed))

/** Says the beginning, then these one after the other, and gives what was reported after each. */
const reported = Effect.fnUntraced(function* (...reads: ReadonlyArray<Uint8Array>) {
  const { fake, fiber, seen } = yield* client()
  const server = yield* fake.accept
  const last: Array<string | undefined> = []
  for (const read of [beginning, ...reads]) {
    yield* server.say(read)
    yield* settle
    yield* TestClock.adjust("1 second")
    yield* settle
    last.push(flushes(server).at(-1))
  }
  assert.isUndefined(fiber.pollUnsafe())
  const all = server.statuses.map(({ flushed }) => flushed)
  assert.deepStrictEqual(
    all,
    all.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
    "never back"
  )
  yield* Fiber.interrupt(fiber)
  return { last: last.slice(1), seen }
})

const max = "FFFFFFFF/FFFFFFFF"

describe("a position", () => {
  it.effect("[F6] at the end of all WAL is refused in an idle keep-alive, and in one within a transaction", () =>
    Effect.gen(function* () {
      for (const before of [[], [Fake.begin("0/200")]]) {
        const outcome = yield* attack([Fake.concat(...before, Fake.keepAlive(max, true), ending)])
        assert.match(refused(outcome).problem, /WAL ends at FFFFFFFF\/FFFFFFFF, far beyond 0\/1000/)
      }
    })
  )

  it.effect("[F6] of a message is refused where a keep-alive's would be: a terabyte ahead of all that is known", () =>
    Effect.gen(function* () {
      const content = new Uint8Array(0)
      const message = (at: string) =>
        Fake.xLogData(at, Bytes.logicalMessage({ isTransactional: false, lsn: Fake.lsn(at), prefix: "p", content }))
      for (const say of [message, (at: string) => Fake.keepAlive(at)]) {
        assert.isUndefined((yield* attack([say("100/0")])).error, "a terabyte may be: nobody said anything for long")
        refused(yield* attack([say("102/0")]))
        refused(yield* attack([say("80000000/0")]))
        const again = yield* attack([Fake.concat(say("100/0"), say("200/0"))])
        assert.isUndefined(again.error, "from there on another")
      }
    })
  )

  it.effect("[F6] that goes back, or is zero, takes nothing back", () =>
    Effect.gen(function* () {
      const { last, seen } = yield* reported(
        Fake.keepAlive("0/50"),
        Fake.keepAlive("0/0", true),
        Fake.relation(),
        Fake.concat(Fake.begin("0/200"), Fake.insert("0/10", 2), Fake.insert("0/0", 3), Fake.commit("0/200", "0/230")),
        Fake.concat(Fake.begin("0/90"), Fake.insert("0/80", 4), Fake.commit("0/90", "0/98")),
        Fake.keepAlive("0/98")
      )
      assert.deepStrictEqual(last, ["0/130", "0/130", "0/130", "0/230", "0/230", "0/230"])
      assert.deepStrictEqual(ids(seen), [1, 2, 3, 4])
    })
  )

  it.effect("[F6] of a keep-alive is acknowledged where nothing is open or under way, and not before", () =>
    Effect.gen(function* () {
      const { last } = yield* reported(
        Fake.keepAlive("0/300"),
        Fake.concat(Fake.begin("0/400"), Fake.keepAlive("0/350")),
        Fake.concat(Fake.insert("0/380", 2), Fake.keepAlive("0/390", true)),
        Fake.commit("0/400", "0/430"),
        Fake.keepAlive("0/500")
      )
      assert.deepStrictEqual(last, ["0/300", "0/300", "0/300", "0/430", "0/500"])
    })
  )

  it.effect("[F6] of a keep-alive is not acknowledged while a handler is under way", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const gate = yield* Latch.make()
      const fiber = yield* withLogicalStream({ slot: "orders", plugin }, (change) =>
        Effect.as(change._tag === "Insert" && change.row.id === 2 ? gate.await : Effect.void, nextLsn(change))
      ).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(beginning)
      yield* settle
      yield* server.say(Fake.transaction("0/200", "0/230", 2), Fake.keepAlive("0/500", true))
      for (let second = 0; second < 60; second++) yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(flushes(server).at(-1), "0/130")
      yield* gate.open
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(flushes(server).at(-1), "0/500")
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("[F6] is not taken from a description, which has none", () =>
    Effect.gen(function* () {
      const { last } = yield* reported(
        Fake.keepAlive("0/300"),
        Fake.relation(),
        Fake.xLogData("0/0", Bytes.type(16_500, "public", "mood"))
      )
      assert.deepStrictEqual(last, ["0/300", "0/300", "0/300"])
    })
  )
})

/** So many keep-alives that ask for a reply, in one read. */
const demands = (count: number): Uint8Array => {
  const one = Fake.keepAlive("0/140", true)
  const many = new Uint8Array(one.length * count)
  for (let at = 0; at < many.length; at += one.length) many.set(one, at)
  return many
}

describe("keep-alives that ask for a reply", () => {
  it.effect("[F7] are answered ten times a second and once more, though 100,000 come", () =>
    Effect.gen(function* () {
      const { fake, fiber, seen } = yield* client()
      const server = yield* fake.accept
      yield* server.say(beginning)
      yield* settle
      const before = server.statuses.length
      const thousand = demands(1000)
      for (let read = 0; read < 100; read++) {
        yield* server.say(thousand)
        yield* TestClock.adjust("10 millis")
        yield* settle
      }
      const answers = server.statuses.length - before
      assert.isAtLeast(answers, 9)
      assert.isAtMost(answers, 11)
      yield* server.say(ending)
      yield* settle
      assert.deepStrictEqual(ids(seen), [1, 3])
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(flushes(server).at(-1), "0/430")
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("[F7] do not hold up what comes among them, each in a read of its own", () =>
    Effect.gen(function* () {
      const { fake, fiber, seen } = yield* client()
      const server = yield* fake.accept
      yield* server.say(beginning)
      const one = demands(1)
      const start = cpuMillis()
      for (let id = 2; id < 22; id++) {
        for (let count = 0; count < 500; count++) yield* server.say(one)
        yield* server.say(Fake.transaction(`0/${id}00`, `0/${id}30`, id))
      }
      while (ids(seen).length < 21) yield* Effect.yieldNow
      assert.isBelow(cpuMillis() - start, 5000)
      assert.isAtMost(server.statuses.length, 1, "no time has passed")
      yield* TestClock.adjust("100 millis")
      yield* settle
      assert.isAtMost(server.statuses.length, 2)
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("[F7] are answered while the handler is busy, and say nothing of what it has not done", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const stream = withLogicalStream({ slot: "orders", plugin, timing: { shutdownTimeout: 0 } }, () => Effect.never)
      const fiber = yield* Effect.forkChild(Effect.provide(stream, fake.layer))
      const server = yield* fake.accept
      yield* server.say(beginning, demands(100_000))
      yield* settle
      for (let tenth = 0; tenth < 10; tenth++) yield* TestClock.adjust("100 millis")
      yield* settle
      assert.isAtLeast(server.statuses.length, 1)
      assert.isAtMost(server.statuses.length, 11)
      assert.deepStrictEqual(new Set(flushes(server)), new Set(["0/0"]))
      yield* Fiber.interrupt(fiber)
    })
  )
})
