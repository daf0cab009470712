/** The fiber that reports, alone: a socket that is written to, a progress that somebody moves, and a clock. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as TestClock from "effect/testing/TestClock"
import { NextLsn } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { decodeStandbyMessage, type StandbyStatusUpdate } from "../../src/protocol/ReplicationMessage.ts"
import type { ReplicationError } from "../../src/ReplicationError.ts"
import { keepAliveHandler, sendStatusUpdate, type WalReceiver } from "../../src/replication/KeepAlive.ts"
import { Vitals } from "../../src/replication/Vitals.ts"
import * as WalProgress from "../../src/replication/WalProgress.ts"
import * as Fake from "../support/FakeWalSender.ts"

const timings = { statusInterval: 10_000, acknowledgeDelay: 1000, receiverTimeout: 30_000, answerTimeout: 60_000 }

interface Receiving extends WalReceiver {
  /** Everything that was sent. */
  readonly sent: Array<StandbyStatusUpdate>
  readonly update: (change: (progress: WalProgress.WalProgress) => WalProgress.WalProgress) => Effect.Effect<void>
}

/** What the fibers of a stream share, over a socket that takes everything. */
const receiving = Effect.fnUntraced(function* (overrides: Partial<WalReceiver> = {}) {
  const sent: Array<StandbyStatusUpdate> = []
  const progress = yield* WalProgress.make
  const receiver: Receiving = {
    copy: {
      pull: Effect.never,
      send: (bytes) =>
        Effect.sync(() => {
          // Behind the frame's tag and its length.
          const reader = new ByteReader(portableText).reset(bytes, 5, bytes.length)
          sent.push(decodeStandbyMessage(reader) as StandbyStatusUpdate)
        })
    },
    progress,
    demands: yield* Queue.sliding<void>(1),
    demanded: { isSo: false },
    timings,
    askStanding: Effect.never,
    startLsn: Lsn.zero,
    reading: { since: undefined },
    vitals: new Vitals(),
    ...overrides,
    sent,
    update: (change) => WalProgress.updateWalProgress(progress, change)
  }
  return receiver
})

const run = (receiver: WalReceiver) => Effect.forkChild(keepAliveHandler(receiver), { startImmediately: true })

/** As the fiber that reads hands a demand on. */
const demand = ({ demanded, demands }: WalReceiver) =>
  Effect.suspend(() => {
    demanded.isSo = true
    return Queue.offer(demands, undefined)
  })

const failure = (fiber: Fiber.Fiber<never, ReplicationError>): ReplicationError | undefined => {
  const exit = fiber.pollUnsafe()
  return exit !== undefined && Exit.isFailure(exit) && exit.cause.reasons[0]?._tag === "Fail"
    ? exit.cause.reasons[0].error
    : undefined
}

/** Delivers a unit that ends there and has it acknowledged. */
const done = (lsn: Lsn.Lsn) => (progress: WalProgress.WalProgress) => {
  const unit = NextLsn.deliver(lsn, progress.run)
  const delivered = WalProgress.receiveWal(progress, { received: lsn, isOpen: false, delivered: [unit] })
  return WalProgress.acknowledge(delivered, unit)
}

const receive = (received: Lsn.Lsn, isOpen: boolean) => (progress: WalProgress.WalProgress) =>
  WalProgress.receiveWal(progress, { received, isOpen, delivered: [] })

describe("a status update", () => {
  it.effect("tells apart how far was received and how far is done, and the time", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      yield* receiver.update(done(Fake.lsn("0/100")))
      yield* receiver.update(receive(Fake.lsn("0/300"), true))
      yield* TestClock.setTime(946_684_800_000 + 5)
      assert.strictEqual(yield* sendStatusUpdate(receiver), Fake.lsn("0/100"))
      const [status] = receiver.sent
      assert.deepInclude(status, {
        written: Fake.lsn("0/300"),
        flushed: Fake.lsn("0/100"),
        applied: Fake.lsn("0/100"),
        replyRequested: false
      })
      assert.strictEqual(Number(status!.sendTime), 5000, "microseconds since 2000")
      assert.strictEqual((yield* Ref.get(receiver.progress)).reported, Fake.lsn("0/100"))
    })
  )

  it.effect("asks for a reply where it is a ping", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      yield* sendStatusUpdate(receiver, { ping: true })
      assert.isTrue(receiver.sent[0]!.replyRequested)
    })
  )

  it.effect("says that the stream gets on once more than its beginning is done, and not before", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving({ startLsn: Fake.lsn("0/100") })
      const { vitals } = receiver
      vitals.attempts = 3
      yield* receiver.update(done(Fake.lsn("0/100")))
      yield* sendStatusUpdate(receiver)
      assert.strictEqual(vitals.attempts, 3)
      yield* receiver.update(done(Fake.lsn("0/101")))
      yield* sendStatusUpdate(receiver)
      assert.strictEqual(vitals.attempts, 0)
      assert.strictEqual(WalProgress.flushed(yield* Ref.get(receiver.progress)), Fake.lsn("0/101"))
    })
  )

  it.effect("of what is read beside the stream confirms nothing, and gets nothing on", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      receiver.vitals.attempts = 3
      yield* receiver.update((progress) => ({ ...progress, confirm: "nothing", reported: Fake.lsn("0/100") }))
      yield* receiver.update(receive(Fake.lsn("0/300"), false))
      assert.strictEqual(yield* sendStatusUpdate(receiver), Lsn.zero)
      assert.deepInclude(receiver.sent[0], { written: Fake.lsn("0/300"), flushed: Lsn.zero })
      assert.strictEqual(receiver.vitals.attempts, 3)
    })
  )
})

describe("keepAliveHandler", () => {
  it.effect("answers a demand, once", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      yield* run(receiver)
      yield* TestClock.adjust("1 second")
      assert.lengthOf(receiver.sent, 0)
      yield* demand(receiver)
      yield* TestClock.adjust(1)
      assert.lengthOf(receiver.sent, 1)
      assert.isFalse(receiver.demanded.isSo)
      yield* TestClock.adjust("9 seconds")
      assert.lengthOf(receiver.sent, 1, "and not again until the interval is over")
    })
  )

  it.effect("answers a demand that came too soon after the last once it may", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      yield* run(receiver)
      yield* TestClock.adjust("1 second")
      yield* demand(receiver)
      yield* TestClock.adjust(10)
      yield* demand(receiver)
      yield* TestClock.adjust(50)
      assert.lengthOf(receiver.sent, 1)
      yield* TestClock.adjust(50)
      assert.lengthOf(receiver.sent, 2)
    })
  )

  it.effect("a demand that came while the last answer was being sent is not forgotten", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      let count = 0
      const { copy } = receiver
      const send = (bytes: Uint8Array) =>
        Effect.andThen(
          copy.send(bytes),
          Effect.suspend(() => (count++ === 0 ? demand(receiver) : Effect.void))
        )
      yield* run({ ...receiver, copy: { ...copy, send } })
      yield* TestClock.adjust("1 second")
      yield* demand(receiver)
      yield* TestClock.adjust(200)
      assert.lengthOf(receiver.sent, 2)
    })
  )

  it.effect("reports what is acknowledged, within the delay, and once", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      yield* run(receiver)
      yield* TestClock.adjust("2500 millis")
      yield* receiver.update(done(Fake.lsn("0/100")))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        receiver.sent.map(({ flushed }) => flushed),
        [Fake.lsn("0/100")]
      )
      yield* TestClock.adjust("9 seconds")
      assert.lengthOf(receiver.sent, 1)
    })
  )

  it.effect("looks often for what is to be reported at once, just after something was delivered or reported", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving({ timings: { ...timings, acknowledgeDelay: 0 } })
      yield* run(receiver)
      yield* TestClock.adjust("5 seconds")
      // Delivered, and acknowledged a moment later.
      yield* Queue.offer(receiver.demands, undefined)
      yield* TestClock.adjust(1)
      yield* receiver.update(done(Fake.lsn("0/100")))
      yield* TestClock.adjust(2)
      assert.lengthOf(receiver.sent, 1, "woken by what was delivered")
      yield* TestClock.adjust("1 second")
      yield* receiver.update(done(Fake.lsn("0/200")))
      yield* TestClock.adjust(100)
      assert.lengthOf(receiver.sent, 2)
      yield* receiver.update(done(Fake.lsn("0/250")))
      yield* TestClock.adjust(20)
      assert.lengthOf(receiver.sent, 3, "having just reported")
      // A report of nothing new is no sign that more will come.
      yield* TestClock.adjust("10 seconds")
      assert.lengthOf(receiver.sent, 4)
      yield* receiver.update(done(Fake.lsn("0/300")))
      yield* TestClock.adjust(2)
      assert.lengthOf(receiver.sent, 4)
      yield* TestClock.adjust(100)
      assert.lengthOf(receiver.sent, 5)
    })
  )

  it.effect("gives nobody up while nobody reads, however long the consumer holds the socket back", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving()
      const fiber = yield* run(receiver)
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined(fiber.pollUnsafe())
      assert.isAtLeast(receiver.sent.length, 55)
      assert.isTrue(receiver.sent.every(({ replyRequested }) => !replyRequested))
    })
  )

  it.effect("counts a silence from the moment that reading began", () =>
    Effect.gen(function* () {
      const receiver = yield* receiving({ askStanding: Effect.succeed("Waiting") })
      const fiber = yield* run(receiver)
      yield* TestClock.adjust("10 minutes")
      receiver.reading.since = 600_000
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      assert.strictEqual(receiver.sent.filter(({ replyRequested }) => replyRequested).length, 1)
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(failure(fiber), {
        _tag: "WalReceiverTimeout",
        receiverTimeout: 30_000,
        walSender: "Waiting"
      })
    })
  )

  it.effect("gives up a socket that takes nothing, for as long as a peer may be silent", () =>
    Effect.gen(function* () {
      const stuck = { pull: Effect.never, send: () => Effect.never }
      const fiber = yield* run(yield* receiving({ copy: stuck }))
      yield* TestClock.adjust("84 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      const error = failure(fiber)
      assert.deepInclude(error, { _tag: "ConnectionError", reason: "TimedOut" })
      assert.include(error!.message, "75000 ms")
      const patient = yield* run(
        yield* receiving({ copy: stuck, timings: { ...timings, receiverTimeout: 0, answerTimeout: 0 } })
      )
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(patient.pollUnsafe(), "where it may be silent for ever")
    })
  )

  it.effect("takes the answer to an earlier question for none to the one that is asked now", () =>
    Effect.gen(function* () {
      const answers = ["Working", "Waiting"] as const
      let asked = 0
      const receiver = yield* receiving({
        reading: { since: 0 },
        // The first takes longer than the silence in which it was asked.
        askStanding: Effect.suspend(() => {
          const index = asked++
          return Effect.as(Effect.sleep(index === 0 ? "40 seconds" : "1 hour"), answers[index]!)
        })
      })
      const fiber = yield* run(receiver)
      yield* TestClock.adjust("31 seconds")
      assert.strictEqual(asked, 1)
      // The walsender spoke, and fell silent again.
      receiver.reading.since = 32_000
      yield* TestClock.adjust("32 seconds")
      assert.strictEqual(asked, 2)
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(asked, 2, "nothing was heard of the second question yet")
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  it.effect("takes no silence for the server's while it was itself busy sending", () =>
    Effect.gen(function* () {
      let asked = 0
      const receiver = yield* receiving({
        reading: { since: 0 },
        timings: { ...timings, statusInterval: 14_000 },
        askStanding: Effect.suspend(() => {
          asked++
          return Effect.never
        })
      })
      const { copy, sent } = receiver
      // Reports at 14 s, the ping at 15, and a report at 29 that takes two seconds.
      const pause = Effect.suspend(() => (sent.length === 3 ? Effect.sleep("2 seconds") : Effect.void))
      const send = (bytes: Uint8Array) => Effect.andThen(copy.send(bytes), pause)
      yield* run({ ...receiver, copy: { ...copy, send } })
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(
        sent.map(({ replyRequested }) => replyRequested),
        [false, true, false]
      )
      yield* TestClock.adjust(240)
      assert.strictEqual(asked, 0, "reads first")
      yield* TestClock.adjust(20)
      assert.strictEqual(asked, 1)
    })
  )

  it.effect(
    "says that it waits for one at work, and for how long, louder as it lasts and anew after each silence",
    () =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
        const receiver = yield* receiving({ reading: { since: 0 }, askStanding: Effect.succeed("Working") })
        yield* run(receiver).pipe(Effect.provide(Logger.layer([logger])))
        yield* TestClock.adjust("31 seconds")
        assert.isEmpty(lines, "not before it is asked about again")
        yield* TestClock.adjust("95 seconds")
        const silences = lines.map((line) =>
          /^(\w+) the walsender is at work and has said nothing for (\d+) s:/.exec(line)
        )
        assert.deepStrictEqual(
          silences.map((found) => [found?.[1], found?.[2]]),
          [
            ["Info", "60"],
            ["Warn", "120"]
          ]
        )
        lines.length = 0
        receiver.reading.since = 126_000
        yield* TestClock.adjust("62 seconds")
        assert.lengthOf(lines, 1)
        assert.include(lines[0], "Info the walsender is at work and has said nothing for 6")
      })
  )
})
