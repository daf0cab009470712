/** What a walsender says beside changes: notices, parameters, notifications, errors, and that it is done. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import * as Fake from "../support/FakeWalSender.ts"
import { attack, beginning, client, ending, frame, ids, settle } from "./Hostile.ts"

interface Logged {
  readonly level: string
  readonly text: string
}

/** Everything that is logged, as text. */
const capture = () => {
  const logged: Array<Logged> = []
  const logger = Logger.make(({ logLevel, message }) => {
    logged.push({ level: logLevel, text: [message].flat().map(String).join(" ") })
  })
  return { logged, layer: Logger.layer([logger]) }
}

/** What could move a cursor, colour a line, or pass for another line. */
const controls = /\p{Cc}/u

const escape = "\u001b[2J\u001b]0;owned\u0007\r\nERROR  all is lost\u009b31m\u0000".slice(0, -1)

describe("beside changes", () => {
  it.effect("[F8] parameters and notifications are passed over, within transactions and outside", () =>
    Effect.gen(function* () {
      const said = Fake.concat(
        frame("S", "TimeZone\0UTC\0"),
        frame("A", new Uint8Array([0, 0, 0, 7, 0x63, 0, 0x70, 0])),
        frame("S", "application_name\0\0")
      )
      const { error, flushes, seen } = yield* attack([
        Fake.concat(
          said,
          Fake.begin("0/200"),
          said,
          Fake.insert("0/210", 2),
          said,
          Fake.commit("0/200", "0/230"),
          said
        ),
        ending
      ])
      assert.isUndefined(error)
      assert.deepStrictEqual(ids(seen), [1, 2, 3])
      assert.strictEqual(flushes.at(-1), "0/430")
    })
  )

  it.effect("[F8, X8] notices are logged, without a character that a terminal obeys, and the stream goes on", () =>
    Effect.gen(function* () {
      const { layer, logged } = capture()
      const notices = [
        { severity: "NOTICE", sqlState: "00000", message: `mind${escape}` },
        { severity: `WARNING${escape}`, sqlState: "01000", message: "mind the severity" },
        { severity: "WARNING", sqlState: `01${escape}`, message: "mind the code" }
      ]
      const said = Fake.concat(...notices.map(BackendMessage.noticeResponse))
      const { error, seen } = yield* Effect.provide(
        attack([Fake.concat(said, Fake.begin("0/200"), said, Fake.insert("0/210", 2)), Fake.commit("0/200", "0/230")]),
        layer
      )
      assert.isUndefined(error)
      assert.deepStrictEqual(ids(seen), [1, 2])
      assert.lengthOf(
        logged.filter(({ text }) => text.includes("mind")),
        6
      )
      for (const { text } of logged) assert.notMatch(text, controls)
    })
  )
})

const errorResponse = (sqlState: string, message = "text"): Uint8Array =>
  BackendMessage.errorResponse({ severity: "ERROR", sqlState, message })

/** Waits for the next connection, as long as the schedule may take. */
const reconnected = Effect.fnUntraced(function* (fake: Fake.FakeWalSender, count = 2) {
  for (let step = 0; fake.connections.length < count && step < 20; step++) {
    yield* TestClock.adjust("100 millis")
    yield* settle
  }
  assert.lengthOf(fake.connections, count)
  return yield* fake.accept
})

describe("an error amid the copy", () => {
  const begun = Fake.concat(Fake.begin("0/200"), Fake.insert("0/210", 2))
  const whole = Fake.transaction("0/200", "0/230", 2)

  for (const sqlState of ["57014", "57P01", "57P02", "57P03", "53300", "08006"]) {
    for (const ending of ["with the end of the connection", "and then nothing: the connection stays open"]) {
      it.effect(`[F9] ${sqlState} ${ending} is one after which the client connects again`, () =>
        Effect.gen(function* () {
          const { fake, fiber, seen } = yield* client()
          const first = yield* fake.accept
          yield* first.say(beginning, begun)
          yield* settle
          yield* first.say(errorResponse(sqlState))
          if (ending.startsWith("with")) yield* first.drop
          yield* settle
          assert.isTrue(first.isClosed, "by the client, which waits for nobody")
          assert.isFalse(first.isDone, "there is nobody left to say goodbye to")
          assert.isTrue(first.statuses.every(({ flushed }) => flushed <= Fake.lsn("0/130")))
          const second = yield* reconnected(fake)
          assert.include(second.commands.at(-1), "LOGICAL 0/130")
          yield* second.say(Fake.relation(), whole)
          yield* settle
          assert.deepStrictEqual(ids(seen), [1, 2, 2], "begun anew")
          yield* Fiber.interrupt(fiber)
        })
      )
    }
  }

  for (const sqlState of ["28000", "28P01", "42501", "0A000", "22023", "55000", "3D000"]) {
    it.effect(`[F9] ${sqlState} is one that ends the stream`, () =>
      Effect.gen(function* () {
        const outcome = yield* attack([Fake.concat(begun, errorResponse(sqlState), whole)])
        assert.isFalse(outcome.error?.isRetryable)
        assert.isTrue(outcome.server.isClosed)
        assert.lengthOf(outcome.connections, 1)
        assert.strictEqual(outcome.flushes.at(-1), "0/130")
      })
    )
  }

  it.effect("[F9, X8] is logged without a character that a terminal obeys", () =>
    Effect.gen(function* () {
      const { layer, logged } = capture()
      yield* Effect.gen(function* () {
        const { fake, fiber } = yield* client()
        const first = yield* fake.accept
        yield* first.say(beginning, errorResponse("57014", `gone${escape}`))
        yield* settle
        yield* reconnected(fake)
        yield* Fiber.interrupt(fiber)
      }).pipe(Effect.provide(layer))
      assert.isTrue(logged.some(({ text }) => text.includes("gone")))
      for (const { text } of logged) assert.notMatch(text, controls)
    })
  )
})

describe("a server that is done, though nobody asked", () => {
  const says: Readonly<Record<string, Uint8Array>> = {
    CopyDone: BackendMessage.copyDone,
    "CopyDone and CommandComplete": Fake.concat(BackendMessage.copyDone, BackendMessage.commandComplete("COPY 0")),
    CommandComplete: BackendMessage.commandComplete("START_STREAMING"),
    ReadyForQuery: BackendMessage.readyForQuery
  }
  for (const [what, bytes] of Object.entries(says)) {
    it.effect(`[F10] says ${what}: the client says what it has done, and connects again`, () =>
      Effect.gen(function* () {
        const { fake, fiber, seen } = yield* client()
        const first = yield* fake.accept
        yield* first.say(beginning)
        yield* settle
        yield* first.say(bytes, ending)
        yield* settle
        const second = yield* reconnected(fake)
        assert.isTrue(first.isClosed)
        assert.strictEqual(first.statuses.at(-1)?.flushed, Fake.lsn("0/130"))
        assert.notInclude(ids(seen), 3, "what follows the end is no part of the stream")
        yield* second.say(Fake.relation(), ending)
        yield* settle
        assert.deepStrictEqual(ids(seen), [1, 3])
        yield* Fiber.interrupt(fiber)
      })
    )
  }

  it.effect("[F10] is asked again and again, later each time, and no connection is left behind", () =>
    Effect.gen(function* () {
      const { fake, fiber } = yield* client()
      const times: Array<number> = []
      for (let round = 1; round <= 8; round++) {
        const server = yield* Effect.raceFirst(fake.accept, Effect.andThen(TestClock.adjust("1 minute"), Effect.never))
        times.push(fake.connections.length)
        assert.isTrue(fake.connections.slice(0, -1).every(({ isClosed }) => isClosed))
        yield* server.say(BackendMessage.copyDone)
        yield* settle
      }
      assert.deepStrictEqual(times, [1, 2, 3, 4, 5, 6, 7, 8])
      yield* Fiber.interrupt(fiber)
    })
  )
})
