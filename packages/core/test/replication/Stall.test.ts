/** What a warning of the server comes to, by what the catalog says: told once, in state, log and metric. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger, Metric, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { PublicationNotFound } from "../../src/ReplicationError.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import {
  askFindings,
  type Findings,
  isAskedAbout,
  lackedBy,
  nameMissing,
  stallOf,
  standbyNames
} from "../../src/replication/Stall.ts"
import type { QueryRow } from "../../src/server/WalSender.ts"
import { make, type StreamState } from "../../src/stream/LogicalStream.ts"
import { askedWalSender } from "../support/askedWalSender.ts"
import * as Fake from "../support/FakeWalSender.ts"

const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

const warning = (sqlState: string, routine?: string, message = "gewarnt") =>
  BackendMessage.noticeResponse({ severity: "WARNING", sqlState, message, routine })

const standby = (slot_name: string, overrides: Record<string, string | null> = {}) => ({
  slot_name,
  slot_type: "physical",
  active_pid: null as string | null,
  invalidation_reason: null as string | null,
  ...overrides
})

const holding = (standbys: string): Fake.FakeOptions => ({
  hold: { failover: "t", wait_event: "WaitForStandbyConfirmation", standbys }
})

interface Watched {
  readonly publications?: ReadonlyArray<string>
  /** What the connections that ask are told. */
  readonly catalog: () => Fake.FakeOptions
}

const watch = Effect.fnUntraced(function* ({ catalog, publications = ["orders"] }: Watched) {
  const logged: Array<string> = []
  const logger = Logger.make(({ message }) => {
    logged.push([message].flat().map(String).join(" "))
  })
  const fake = yield* Fake.make((attempt) => (attempt === 0 ? { publications } : catalog()))
  const { run, state } = yield* make({ slot: "orders", plugin: Pgoutput.make({ publications }) })
  const states: Array<StreamState> = []
  yield* Effect.forkChild(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => states.push(now))),
    { startImmediately: true }
  )
  const changes: Array<Change> = []
  const fiber = yield* run((change) => {
    changes.push(change)
    return Effect.succeed(nextLsn(change))
  }).pipe(Effect.provide([fake.layer, Logger.layer([logger])]), Effect.forkChild)
  const server = yield* fake.accept
  const say = (...messages: ReadonlyArray<Uint8Array>) => Effect.andThen(server.say(...messages), settle)
  const stalled = () => states.filter((now) => now._tag === "Stalled")
  const rows = () => changes.flatMap((change) => (change._tag === "Insert" ? [change.row.id] : []))
  const failure = Effect.flip(Fiber.join(fiber))
  const last = () => states.at(-1)?._tag
  return { failure, fake, fiber, last, logged, rows, say, server, stalled, states }
})

const gauge = Metric.value(Metric.withAttributes(Metrics.stalled, { slot: "orders" }))

const one = Fake.concat(Fake.relation(), Fake.transaction("0/2000", "0/2030", 1))

describe("a stream that the server holds back", () => {
  for (const [sqlState, routine] of [
    ["55000", "StandbySlotsHaveCaughtup"],
    ["22023", "StandbySlotsHaveCaughtup"],
    ["55000", undefined],
    ["22023", undefined]
  ] as const) {
    it.effect(
      `[V13] is Stalled by a warning ${sqlState} of ${routine ?? "a function unknown"}, told once, and streams again`,
      () =>
        Effect.gen(function* () {
          const { fiber, last, logged, rows, say, stalled } = yield* watch({
            catalog: () => ({ ...holding("a, b"), standbys: [standby("b")] })
          })
          for (let count = 0; count < 3; count++) {
            yield* say(Fake.keepAlive("0/1000"), warning(sqlState, routine))
            yield* TestClock.adjust("10 seconds")
          }
          assert.lengthOf(stalled(), 1)
          const [now] = stalled()
          assert(now?._tag === "Stalled")
          assert.include(now.reason, '"a" does not exist on this server, "b" has no standby connected')
          assert.include(now.remedy, "synchronized_standby_slots")
          assert.lengthOf(
            logged.filter((text) => text.includes("stalled")),
            1
          )
          assert.isEmpty(logged.filter((text) => text.includes("gewarnt")))
          assert.strictEqual((yield* gauge).value, 1)
          yield* say(one)
          assert.deepStrictEqual(rows(), [1])
          assert.strictEqual(last(), "Streaming")
          assert.strictEqual((yield* gauge).value, 0)
          yield* Fiber.interrupt(fiber)
        })
    )
  }

  it.effect("tells of it anew when it waits for another slot, and is done when the position moves", () =>
    Effect.gen(function* () {
      let standbys = "a"
      const { last, say, stalled } = yield* watch({ catalog: () => holding(standbys) })
      yield* say(Fake.keepAlive("0/1000"), warning("22023"))
      standbys = "b"
      yield* say(warning("22023"))
      assert.lengthOf(stalled(), 2)
      yield* say(Fake.keepAlive("0/1000"))
      assert.strictEqual(last(), "Stalled")
      yield* say(Fake.keepAlive("0/1100"))
      assert.strictEqual(last(), "Streaming")
    })
  )

  it.effect("is not held back any more once its connection is lost", () =>
    Effect.gen(function* () {
      const { last, say, server } = yield* watch({ catalog: () => holding("a") })
      yield* say(warning("22023"))
      assert.strictEqual((yield* gauge).value, 1)
      yield* server.drop
      yield* settle
      assert.strictEqual(last(), "Reconnecting")
      assert.strictEqual((yield* gauge).value, 0)
    })
  )

  it.effect("is none where the slot does not wait, and the warning is told as it is", () =>
    Effect.gen(function* () {
      const { last, logged, rows, say } = yield* watch({
        catalog: () => ({ hold: { failover: "t", standbys: "a", wait_event: "WalSenderMain" } })
      })
      yield* say(warning("55000"), one)
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(last(), "Streaming")
      assert.deepStrictEqual(rows(), [1])
      assert.lengthOf(
        logged.filter((text) => text === "WARNING 55000: gewarnt"),
        1
      )
    })
  )

  it.effect("goes on where nobody can be asked", () =>
    Effect.gen(function* () {
      const { last, rows, say } = yield* watch({ catalog: () => ({ isMute: true }) })
      yield* say(warning("55000"), one)
      assert.deepStrictEqual(rows(), [], "asked first")
      yield* TestClock.adjust("20 seconds")
      yield* settle
      assert.deepStrictEqual(rows(), [1])
      assert.strictEqual(last(), "Streaming")
    })
  )
})

describe("a publication that is missing", () => {
  it.effect("ends the stream before anything that may lack it, and is named alone", () =>
    Effect.gen(function* () {
      const { failure, rows, say } = yield* watch({
        publications: ["here", "gone"],
        catalog: () => ({ publications: ["here"] })
      })
      yield* say(one, warning("55000", "LoadPublications"), Fake.transaction("0/2100", "0/2130", 2))
      assert.deepInclude(yield* failure, { _tag: "PublicationNotFound", publications: ["gone"] })
      assert.deepStrictEqual(rows(), [1])
    })
  )

  it.effect("is named alone where the server refuses to go on without it, too", () =>
    Effect.gen(function* () {
      const { failure, say } = yield* watch({
        publications: ["here", "gone"],
        catalog: () => ({ publications: ["here"] })
      })
      yield* say(BackendMessage.errorResponse({ severity: "ERROR", sqlState: "42704", message: "gibt es nicht" }))
      assert.deepInclude(yield* failure, { _tag: "PublicationNotFound", publications: ["gone"] })
    })
  )

  const found = (missing: ReadonlyArray<string>): Findings => ({ missing, stall: undefined })
  const said = (sqlState: string, routine?: string, message = "") => ({
    severity: "WARNING",
    sqlState,
    message,
    routine
  })

  it("was missing all the same where it has been made meanwhile", () => {
    const skipped = said("55000", "LoadPublications", "Publikation «gone» übersprungen")
    assert.deepStrictEqual(lackedBy(skipped, ["here", "gone"], found([])), ["gone"])
    assert.deepStrictEqual(
      lackedBy(
        skipped,
        ["a", "b"].map((name) => `${name}-1`),
        found([])
      ),
      ["a-1", "b-1"]
    )
  })

  it("is not what a warning of the wait for standbys means, nor one of another code", () => {
    assert.isEmpty(lackedBy(said("55000", "StandbySlotsHaveCaughtup"), ["gone"], found(["gone"])))
    assert.isEmpty(lackedBy(said("22023"), ["gone"], found(["gone"])))
    assert.isEmpty(lackedBy(said("55000"), ["here"], found([])))
    assert.isEmpty(lackedBy(said("55000"), [], found(["gone"])), "of a stream without publications")
    assert.deepStrictEqual(lackedBy(said("55000"), ["gone"], found(["gone"])), ["gone"])
  })

  it("is the one that the catalog lacks, whatever the text of the warning names", () => {
    const skipped = said("55000", "LoadPublications", "here")
    assert.deepStrictEqual(lackedBy(skipped, ["here", "gone"], found(["gone"])), ["gone"])
  })

  it("is named alone in a failure where the catalog tells which it is, and else as the failure has it", () => {
    const both = new PublicationNotFound({ publications: ["here", "gone"] })
    assert.deepStrictEqual(nameMissing(both, found(["gone"])).publications, ["gone"])
    assert.strictEqual(nameMissing(both, found([])), both)
  })
})

describe("a message of the server's", () => {
  const told = (severity: string, sqlState: string) => isAskedAbout({ severity, sqlState, message: "" })

  it("is asked about if it is a warning of the wait or of a publication, by its code, and no other is", () => {
    assert.isTrue(told("WARNING", "55000"))
    assert.isTrue(told("WARNING", "22023"))
    assert.isFalse(told("WARNING", "01000"))
    assert.isFalse(told("NOTICE", "55000"))
    assert.isFalse(told("NOTICE", "22023"))
  })
})

describe("a server that is asked what it warns of", () => {
  const waits = "WaitForStandbyConfirmation"
  const held = { failover: "t", wait_event: waits, standbys: "a, b" }

  const published = {
    pubname: "orders",
    puballtables: "f",
    pubinsert: "t",
    pubupdate: "t",
    pubdelete: "t",
    pubtruncate: "t"
  }

  /** What it says of the stream at each look, the last for ever; and of the slots of its standbys. */
  const asking = Effect.fnUntraced(function* (
    looks: ReadonlyArray<QueryRow>,
    { serverVersion = 180_000, slots = [] }: { serverVersion?: number; slots?: ReadonlyArray<QueryRow> } = {}
  ) {
    const held = () => asked.texts.filter((text) => text.includes("synchronized_standby_slots"))
    const asked = askedWalSender((text) => {
      if (text.includes("pg_publication")) return Effect.succeed([published])
      if (text.includes("slot_name IN")) return Effect.succeed(slots)
      return Effect.succeed([looks[Math.min(held().length, looks.length) - 1]!])
    }, serverVersion)
    const fiber = yield* askFindings({ slot: "orders", publications: ["orders"] }, "10 seconds").pipe(
      Effect.provide(asked.layer),
      Effect.forkChild
    )
    yield* settle
    return { ...asked, fiber, looks: () => held().length }
  })

  it.effect("[V13] waits for the standbys that its setting names, and their slots are looked up", () =>
    Effect.gen(function* () {
      const { fiber, looks, open, texts } = yield* asking([held], { slots: [standby("b")] })
      const { stall } = yield* Fiber.join(fiber)
      assert.include(stall?.reason, '"a" does not exist on this server, "b" has no standby connected')
      assert.include(texts.at(-1), "slot_name IN ('a', 'b')")
      assert.deepStrictEqual([looks(), open()], [1, 0])
    })
  )

  it.effect("[V13] is looked at again for a moment: its warning comes just before the wait", () =>
    Effect.gen(function* () {
      const { fiber, looks } = yield* asking([
        { ...held, wait_event: "WalSenderMain" },
        { ...held, wait_event: null },
        held
      ])
      yield* TestClock.adjust(199)
      yield* settle
      assert.strictEqual(looks(), 2)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.isDefined((yield* Fiber.join(fiber)).stall)
    })
  )

  it.effect("holds nothing back if three looks have it at something else", () =>
    Effect.gen(function* () {
      const { fiber, looks } = yield* asking([{ ...held, wait_event: "WalSenderMain" }])
      yield* TestClock.adjust(200)
      assert.deepStrictEqual(yield* Fiber.join(fiber), { missing: [], stall: undefined })
      assert.strictEqual(looks(), 3)
    })
  )

  for (const [what, row] of [
    ["the slot is no failover slot", { failover: "f" }],
    ["the slot is not there", { failover: null }],
    ["the setting is empty", { standbys: "" }],
    ["the server knows no such setting", { standbys: null }]
  ] as const) {
    it.effect(`holds nothing back where ${what}, whatever it waits for; one look tells`, () =>
      Effect.gen(function* () {
        const { fiber, looks } = yield* asking([{ ...held, ...row }])
        assert.isUndefined((yield* Fiber.join(fiber)).stall)
        assert.strictEqual(looks(), 1)
      })
    )
  }

  it.effect("is asked of a wait for standbys from PostgreSQL 17 on, which was the first to have it", () =>
    Effect.gen(function* () {
      for (const [serverVersion, expected] of [
        [160_010, 0],
        [170_000, 1]
      ] as const) {
        const { fiber, looks } = yield* asking([{ ...held, failover: "f" }], { serverVersion })
        yield* Fiber.join(fiber)
        assert.strictEqual(looks(), expected)
      }
    })
  )

  it.effect("holds nothing back, as far as is known, where it answers what PostgreSQL does not", () =>
    Effect.gen(function* () {
      const { fiber } = yield* asking([held], { slots: [{ slot_name: "b" }] })
      assert.deepStrictEqual(yield* Fiber.join(fiber), { missing: [], stall: undefined })
    })
  )
})

describe("stallOf", () => {
  it("names the slots that hold the stream up, each with what it lacks", () => {
    const rows = [
      standby("up", { active_pid: "7" }),
      standby("down"),
      standby("logical", { slot_type: "logical", active_pid: "8" }),
      standby("lost", { invalidation_reason: "wal_removed" })
    ]
    const { reason, remedy } = stallOf(["up", "down", "logical", "lost", "none"], rows)
    assert.include(
      reason,
      '"down" has no standby connected, "logical" is not a physical slot, "lost" is invalidated, "none" does not exist on this server'
    )
    assert.include(remedy, 'take "down", "logical", "lost", "none" out of')
    assert.notInclude(reason, '"up"')
  })

  it("names all where each has its standby: one of them has not confirmed yet", () => {
    assert.include(stallOf(["up"], [standby("up", { active_pid: "7" })]).reason, '"up" has not confirmed')
  })

  it("reads the setting as the server does", () => {
    assert.deepStrictEqual(standbyNames(' "sb1",SB2 , sb3'), ["sb1", "sb2", "sb3"])
    assert.deepStrictEqual(standbyNames(""), [])
  })
})
