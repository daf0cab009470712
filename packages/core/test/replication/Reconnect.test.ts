/** The loop that tries again, alone; which failures of a stream it is for is in `stream/Reconnect.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import * as Errors from "../../src/ReplicationError.ts"
import {
  Attempts,
  defaultReconnect,
  Final,
  isLoud,
  isStumble,
  locate,
  notGettingOn,
  type Retrying,
  retrying,
  retryOf,
  type Verdict
} from "../../src/replication/Reconnect.ts"
import * as Fake from "../support/FakeWalSender.ts"

const lost = new Errors.ConnectionError({ reason: "Reset", detail: "broke" })
const poison = new Errors.ServerError({ severity: "ERROR", sqlState: "54000", serverMessage: "m", stage: "Streaming" })
const missing = new Errors.SlotNotFound({ slot: "orders" })

type Lost = Errors.ConnectionError

/** Runs something that fails until told otherwise, and keeps when it was tried and what was told. */
const trying = <A, F>(
  attempt: (count: number) => Effect.Effect<A, Lost | Final<F>>,
  options: Partial<Retrying<Lost>> = {}
) => {
  const at: Array<number> = []
  const told: Array<number> = []
  let attempts = 0
  const once = Effect.gen(function* () {
    at.push(yield* Clock.currentTimeMillis)
    return yield* attempt(at.length)
  })
  const running = retrying(once, {
    decide: () => Effect.sync((): Verdict<Lost> => ({ _tag: "Again", hasGotOn: false, attempt: ++attempts })),
    onFailure: (_, attempt) => Effect.sync(() => told.push(attempt)),
    ...options
  })
  return { at, running, told }
}

const gaps = (at: ReadonlyArray<number>) => at.slice(1).map((time, index) => time - at[index]!)

const refused = (sqlState: string, stage: Errors.Stage) =>
  new Errors.ServerError({ severity: "ERROR", sqlState, serverMessage: "m", stage })

describe("a failure", () => {
  it("that another attempt may mend is tried again, as often as it takes", () => {
    assert.strictEqual(retryOf(lost), "always")
    assert.strictEqual(retryOf(refused("57P01", "Streaming")), "always")
    assert.strictEqual(retryOf(new Errors.SlotInUse({ slot: "orders" })), "always")
  })

  it("that nothing mends is not, and neither is a wait for a slot that was waited out", () => {
    assert.strictEqual(retryOf(missing), "never")
    assert.strictEqual(retryOf(new Errors.SlotInUse({ slot: "orders", activePid: 7 })), "never")
  })

  it("of what is asked for, or not allowed, is not tried again at any stage", () => {
    for (const sqlState of ["28000", "28P01", "0A000", "22023", "3D000", "42501", "42601", "42602", "42704", "55000"]) {
      for (const stage of ["Connect", "Query", "StartReplication", "Streaming"] as const) {
        assert.strictEqual(retryOf(refused(sqlState, stage)), "never", `${sqlState} at ${stage}`)
      }
    }
  })

  it("of what the server was at as it streamed is tried a few times, and elsewhere not", () => {
    assert.strictEqual(retryOf(refused("22012", "Streaming")), "limited")
    assert.strictEqual(retryOf(refused("22012", "StartReplication")), "never")
    assert.strictEqual(retryOf(refused("08P01", "StartReplication")), "limited")
  })

  it("of the server's own, or its machine's, is tried a few times where nothing of ours was asked for", () => {
    for (const sqlState of ["58030", "58P01", "XX000", "XX001"]) {
      for (const [stage, expected] of [
        ["Connect", "limited"],
        ["IdentifySystem", "limited"],
        ["Query", "limited"],
        ["StartReplication", "never"]
      ] as const) {
        assert.strictEqual(retryOf(refused(sqlState, stage)), expected, `${sqlState} at ${stage}`)
      }
    }
    for (const sqlState of ["XX002", "42P01", "22P58"]) assert.strictEqual(retryOf(refused(sqlState, "Query")), "never")
  })

  it("is told where the stream stands if that is what it cannot get over, and else as it is", () => {
    const done = Fake.lsn("0/100")
    const located = locate(poison, done)
    assert.deepInclude(located, { _tag: "ServerError", sqlState: "54000", stage: "Streaming", lsn: done })
    for (const error of [lost, missing, refused("XX000", "Query"), refused("42501", "Streaming")]) {
      assert.strictEqual(locate(error, done), error)
    }
  })
})

describe("a failure that is final", () => {
  it.effect("bears a tag of its own, by which it is caught beside those that are tried again", () =>
    Effect.gen(function* () {
      const failing = Effect.fail<Lost | Final<string>>(new Final({ error: "the handler's own" }))
      const caught = Effect.catchTag(failing, "Final", ({ error }) => Effect.succeed(error))
      assert.strictEqual(yield* caught, "the handler's own")
    })
  )
})

describe("attempts at one position", () => {
  const [here, there] = [Fake.lsn("0/100"), Fake.lsn("0/200")]

  it("are told loudly at the third, and then after twice as many each time", () => {
    const counts = Array.from({ length: 50 }, (_, index) => index)
    assert.deepStrictEqual(counts.filter(isLoud), [3, 6, 12, 24, 48])
  })

  it("are counted, and begin anew as the stream gets on", () => {
    const attempts = new Attempts()
    for (let count = 1; count <= 5; count++) {
      assert.isTrue(attempts.next(lost, here))
      assert.strictEqual(attempts.count, count)
    }
    attempts.next(lost, there)
    assert.strictEqual(attempts.count, 1)
    assert.isFalse(attempts.next(missing, there))
  })

  it("are three where the server stumbles, whatever else fails in between, and three again elsewhere", () => {
    const attempts = new Attempts()
    const tried = [poison, lost, poison, lost, lost].map((error) => attempts.next(error, here))
    assert.deepStrictEqual(tried, [true, true, true, true, true])
    assert.isFalse(attempts.next(poison, here))
    assert.isTrue(attempts.next(poison, there))
    assert.isTrue(attempts.next(poison, there))
    assert.isFalse(attempts.next(poison, there))
  })

  it("have more patience with silence after each that was given up for it, until the stream gets on", () => {
    const attempts = new Attempts()
    const silence = new Errors.WalReceiverTimeout({ receiverTimeout: 1000 })
    const patience = [lost, silence, lost, silence].map((error) => {
      attempts.next(error, here)
      return attempts.patience
    })
    assert.deepStrictEqual(patience, [1, 2, 2, 4])
    attempts.next(lost, there)
    assert.strictEqual(attempts.patience, 1)
  })
})

describe("retrying", () => {
  it.effect("tries until it succeeds, and gives what it succeeded with, also where that is nothing", () =>
    Effect.gen(function* () {
      const schedule = Schedule.spaced("1 second")
      for (const value of ["done", undefined]) {
        const { at, running, told } = trying((count) => (count < 3 ? Effect.fail(lost) : Effect.succeed(value)), {
          schedule
        })
        const fiber = yield* Effect.forkChild(running)
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(value))
        assert.deepStrictEqual(gaps(at), [1000, 1000])
        assert.deepStrictEqual(told, [1, 2])
      }
    })
  )

  it.effect(
    "never tries again what fails for good, be it the handler's own or by the verdict, and tells of neither",
    () =>
      Effect.gen(function* () {
        const own = trying(() => Effect.fail(new Final({ error: "handler" })))
        assert.strictEqual(yield* Effect.flip(own.running), "handler")
        assert.lengthOf(own.at, 1)
        const broken = new Errors.ConnectionError({ reason: "Tls", detail: "expired" })
        const given = trying(() => Effect.fail(lost), {
          decide: () => Effect.succeed({ _tag: "GiveUp", error: broken })
        })
        assert.strictEqual(yield* Effect.flip(given.running), broken)
        assert.lengthOf(given.at, 1)
        assert.deepStrictEqual([...own.told, ...given.told], [])
      })
  )

  it.effect("begins its schedule anew, at once, after what has got on", () =>
    Effect.gen(function* () {
      let attempt = 0
      const { at, running, told } = trying(() => Effect.fail(lost), {
        schedule: Schedule.exponential("1 second"),
        decide: () => Effect.sync(() => ({ _tag: "Again", hasGotOn: ++attempt === 3, attempt }))
      })
      const fiber = yield* Effect.forkChild(running)
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual(gaps(at), [1000, 2000, 0, 1000, 2000])
      assert.deepStrictEqual(told, [1, 2, 3, 4, 5, 6])
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("ends with its schedule, and fails with the last failure", () =>
    Effect.gen(function* () {
      const { at, running } = trying(() => Effect.fail(lost), { schedule: Schedule.recurs(2) })
      assert.strictEqual(yield* Effect.flip(running), lost)
      assert.lengthOf(at, 3)
    })
  )

  it.effect("waits by default a fifth of a second first, give or take a fifth, and ten seconds at last, for ever", () =>
    Effect.gen(function* () {
      const runs: Array<ReadonlyArray<number>> = []
      for (const schedule of [undefined, defaultReconnect]) {
        const { at, running } = trying(() => Effect.fail(lost), schedule === undefined ? {} : { schedule })
        const fiber = yield* Effect.forkChild(running)
        yield* TestClock.adjust("10 minutes")
        yield* Fiber.interrupt(fiber)
        runs.push(gaps(at))
      }
      for (const waits of runs) {
        for (const [index, wait] of waits.entries()) {
          const middle = Math.min(10_000, 200 * 2 ** index)
          assert.isAtLeast(wait, Math.floor(0.8 * middle))
          assert.isAtMost(wait, Math.ceil(1.2 * middle))
        }
        assert.isAtLeast(waits.length, 50)
        assert.isAbove(new Set(waits.slice(6)).size, 20, "not all at one beat")
      }
    })
  )
})

describe("a stumble", () => {
  it("is the server's, over what it cannot send, and no loss, no refusal, no defect", () => {
    assert.isTrue(isStumble(Cause.fail(poison)))
    assert.isFalse(isStumble(Cause.fail(lost)))
    assert.isFalse(isStumble(Cause.fail(missing)))
    assert.isFalse(isStumble(Cause.die(poison)))
    assert.isFalse(isStumble(Cause.interrupt(1)))
    assert.isTrue(isStumble(Cause.combine(Cause.interrupt(1), Cause.fail(poison))))
  })
})

describe("what is told of a stream that does not get on", () => {
  it("says how often, where, by what, and what helps", () => {
    const at = Fake.lsn("1/AB")
    assert.strictEqual(
      notGettingOn(missing, 6, at),
      `the stream does not get on: 6 attempts at LSN 1/AB have failed, the last by SlotNotFound: ${missing.message}; remedy: ${missing.remedy}. Reconnecting; the server keeps WAL for the slot meanwhile`
    )
    assert.isUndefined(lost.remedy)
    assert.strictEqual(
      notGettingOn(lost, 3, at),
      `the stream does not get on: 3 attempts at LSN 1/AB have failed, the last by ConnectionError: ${lost.message}. Reconnecting; the server keeps WAL for the slot meanwhile`
    )
  })
})
