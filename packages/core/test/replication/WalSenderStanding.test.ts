import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger, References } from "effect"
import { TestClock } from "effect/testing"
import { ConnectionError } from "../../src/ReplicationError.ts"
import {
  askElsewhere,
  askInSession,
  askStanding,
  type StandingRow,
  standingOf
} from "../../src/replication/WalSenderStanding.ts"
import { type Answer, askedWalSender } from "../support/askedWalSender.ts"

const backend = { slot: "orders", pid: 42, serverStart: "1767225600.5" }

const row = (overrides: Partial<StandingRow> = {}): StandingRow => ({
  server_start: backend.serverStart,
  active_pid: 42,
  backend_type: "walsender",
  wait_event_type: null,
  ...overrides
})

describe("standingOf", () => {
  it("[N13] takes one that waits for nothing, or for anything but its client, for one at work", () => {
    for (const wait_event_type of [null, "IO", "LWLock", "Lock", "IPC", "Timeout", "BufferPin", "Extension"]) {
      assert.strictEqual(standingOf(row({ wait_event_type }), backend), "Working")
    }
  })

  it("[N3] takes one at its socket, or in its main loop, for one that waits for us", () => {
    for (const wait_event_type of ["Client", "Activity"]) {
      assert.strictEqual(standingOf(row({ wait_event_type }), backend), "Waiting")
    }
  })

  it("[N3] takes one that has not got the slot for gone, whoever has it", () => {
    const nobody = { active_pid: null, backend_type: null }
    assert.strictEqual(standingOf(row(nobody), backend), "Gone")
    assert.strictEqual(standingOf(row({ active_pid: 43 }), backend), "Gone")
  })

  it("[N13] knows nothing from another server, nor from a row that is hidden", () => {
    assert.strictEqual(standingOf(row({ server_start: "1767225600.6" }), backend), "Unknown")
    assert.strictEqual(standingOf(row({ backend_type: null }), backend), "Unknown")
  })
})

const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

const as = (wait_event_type: string | null, overrides: Record<string, string | null> = {}): Answer =>
  Effect.succeed([{ ...row({ wait_event_type }), active_pid: "42", ...overrides }])

/** Asks for at most a second, of one whose looks give these, the last for ever; what is told in the log is kept. */
const asking = Effect.fnUntraced(function* (...looks: ReadonlyArray<Answer>) {
  const asked = askedWalSender(() => looks[Math.min(asked.texts.length, looks.length) - 1])
  const told: Array<string> = []
  const logger = Logger.layer([Logger.make(({ message }) => void told.push([message].flat().join(" ")))])
  const fiber = yield* askStanding(backend, "1 second").pipe(
    Effect.provide([asked.layer, logger]),
    Effect.provideService(References.MinimumLogLevel, "Debug"),
    Effect.forkChild
  )
  yield* settle
  return { ...asked, fiber, told }
})

describe("a walsender that is asked about", () => {
  it.effect("[N13] is at work once one look has it so, over a connection that is closed then", () =>
    Effect.gen(function* () {
      const { fiber, open, opened, texts } = yield* asking(as("Client"), as("IO"))
      assert.lengthOf(texts, 1)
      assert.include(texts[0], "s.slot_name = 'orders'")
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* Fiber.join(fiber), "Working")
      assert.lengthOf(texts, 2)
      assert.deepStrictEqual([opened, open()], [["connection"], 0])
    })
  )

  it.effect("[N3] waits for us if three looks have it so, with a pause between them", () =>
    Effect.gen(function* () {
      const { fiber, texts } = yield* asking(as("Client"))
      yield* TestClock.adjust(199)
      yield* settle
      assert.lengthOf(texts, 2)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(fiber), "Waiting")
      assert.lengthOf(texts, 3)
    })
  )

  it.effect("[N3] is gone at the first look that has it so", () =>
    Effect.gen(function* () {
      const { fiber, texts } = yield* asking(as(null, { active_pid: null, backend_type: null }))
      assert.strictEqual(yield* Fiber.join(fiber), "Gone")
      assert.lengthOf(texts, 1)
    })
  )

  it.effect("[N13] is unknown where nobody answers in time", () =>
    Effect.gen(function* () {
      const { fiber, open } = yield* asking(Effect.never)
      yield* TestClock.adjust(999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(fiber), "Unknown")
      assert.strictEqual(open(), 0)
    })
  )

  for (const [what, answer, problem] of [
    [
      "nobody can be asked",
      Effect.fail(new ConnectionError({ reason: "Refused", detail: "nobody listens" })),
      "nobody listens"
    ],
    ["nothing is answered", Effect.succeed([]), "no row in the answer to pg_stat_activity"],
    [
      "something is answered that PostgreSQL does not say",
      Effect.succeed([{ server_start: backend.serverStart }]),
      "pg_stat_activity that PostgreSQL does not give"
    ]
  ] as const) {
    it.effect(`[N13] is unknown where ${what}, which fails no stream and is told to who looks closely`, () =>
      Effect.gen(function* () {
        const { fiber, told } = yield* asking(answer)
        assert.strictEqual(yield* Fiber.join(fiber), "Unknown")
        assert.lengthOf(told, 1)
        assert.include(told[0], "cannot ask what the walsender is doing: ")
        assert.include(told[0], problem)
      })
    )
  }
})

describe("a question that is put elsewhere", () => {
  it.effect("takes a connection of a walsender, or none of them", () =>
    Effect.gen(function* () {
      const { layer, opened } = askedWalSender(() => undefined)
      const options = { deadline: "1 second", fallback: 0, what: "how much" } as const
      const version = ({ serverVersion }: { readonly serverVersion: number }) => Effect.succeed(serverVersion)
      assert.strictEqual(yield* Effect.provide(askElsewhere(version, options), layer), 180_000)
      assert.strictEqual(yield* Effect.provide(askInSession(version, options), layer), 180_000)
      assert.deepStrictEqual(opened, ["connection", "session"])
    })
  )

  it.effect("has the answer that was left for it where nobody answers in time", () =>
    Effect.gen(function* () {
      const { layer } = askedWalSender(() => undefined)
      const asking = askInSession(() => Effect.never, { deadline: "1 second", fallback: 7, what: "how much" })
      const fiber = yield* Effect.forkChild(Effect.provide(asking, layer))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), 7)
    })
  )
})
