/**
 * Frames that lie about their length, or are never finished: what is allocated for them, and when the client gives up.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { defaultMaxFrameLength } from "../../src/protocol/Frames.ts"
import { WalSender } from "../../src/server/WalSender.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Fake from "../support/FakeWalSender.ts"
import {
  attack,
  beginning,
  client,
  ending,
  frame,
  header,
  ids,
  maxFrameLength,
  plugin,
  refused,
  settle
} from "./Hostile.ts"

/** A message of the plugin whose frame is `length` long, by its own count. */
const messageOf = (length: number): Uint8Array => {
  const overhead = Fake.xLogData("0/0", Bytes.message("M", [1, 0], [8, 0], { cstring: "p" }, [4, 0])).length
  const content = new Uint8Array(length + 1 - overhead)
  return Fake.xLogData("0/200", Bytes.logicalMessage({ isTransactional: false, lsn: 0x200n, prefix: "p", content }))
}

describe("a length that cannot be", () => {
  for (const [what, length] of [
    ["2^31 - 1", 0x7fff_ffff],
    ["-1", -1],
    ["3", 3],
    ["0", 0],
    ["one beyond the limit", maxFrameLength + 1]
  ] as const) {
    it.effect(`[F1] of ${what} ends the stream as soon as it is read, before a byte of what it promises`, () =>
      Effect.map(attack([header("d", length)]), (outcome) =>
        assert.match(refused(outcome).problem, /claims -?\d+ bytes/)
      )
    )

    it.effect(`[F1] of ${what} is refused of every type of message, and though it comes byte by byte`, () =>
      Effect.forEach(["A", "C", "E", "N", "S", "W", "Z", "c", "z"], (tag) =>
        Effect.map(attack([header(tag, length)], { readLength: 1 }), (outcome) => refused(outcome, tag))
      )
    )
  }

  it.effect("[F1] is not one that is just at the limit", () =>
    Effect.gen(function* () {
      const { error, seen } = yield* attack([Fake.concat(messageOf(maxFrameLength), ending)])
      assert.isUndefined(error)
      assert.deepStrictEqual(ids(seen), [1, 3])
      const longer = refused(yield* attack([Fake.concat(messageOf(maxFrameLength + 1), ending)]))
      assert.include(longer.problem, `claims ${maxFrameLength + 1} bytes; 4 to ${maxFrameLength} can be`)
    })
  )

  it.effect("[F1] is what a program says it is, within reason", () =>
    Effect.gen(function* () {
      const stream = { memory: { maxFrameLength: 2048 } }
      assert.isUndefined((yield* attack([messageOf(2048)], { stream })).error)
      assert.strictEqual((yield* attack([messageOf(2049)], { stream })).error?._tag, "DecodeError")
      for (const wrong of [Number.NaN, 1023, 1024.5, -1, defaultMaxFrameLength + 1, Number.POSITIVE_INFINITY]) {
        const { fake, fiber } = yield* client({ stream: { memory: { maxFrameLength: wrong } } })
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.deepInclude(error, { _tag: "InvalidOption", option: "maxFrameLength" })
        assert.isEmpty(fake.connections, "nothing is opened")
      }
    })
  )
})

describe("a frame that is never finished", () => {
  it.effect("[F1] takes memory as it comes, and not as it promises", () =>
    Effect.gen(function* () {
      const stream = { memory: { maxFrameLength: undefined }, timing: { receiverTimeout: 0 } }
      const { fake, fiber, seen } = yield* client({ stream })
      const server = yield* fake.accept
      yield* server.say(beginning)
      yield* settle
      const before = process.memoryUsage().arrayBuffers
      yield* server.say(header("d", defaultMaxFrameLength))
      const read = new Uint8Array(64 * 1024)
      for (let sent = 1; sent <= 128; sent++) {
        yield* server.say(read)
        yield* settle
        const grown = process.memoryUsage().arrayBuffers - before
        // What was said, the copies that the fake makes, and what growing leaves behind until it is collected.
        assert.isBelow(grown, 8 * 65_536 * (sent + 8))
      }
      assert.isUndefined(fiber.pollUnsafe())
      assert.deepStrictEqual(ids(seen), [1])
      const leaving = yield* Effect.forkChild(Fiber.interrupt(fiber))
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(leaving)
      assert.isTrue(server.isClosed)
    })
  )

  const half = Fake.transaction("0/200", "0/230", 2)
  for (const [what, length] of [
    ["its type", 1],
    ["its length", 3],
    ["its header", 5],
    ["the header of its payload", 20],
    ["its payload", 45],
    ["the last frame but one", half.length - 20]
  ] as const) {
    it.effect(`[F11] and then silence amid ${what}: the client pings, gives up within its limit, and begins anew`, () =>
      Effect.gen(function* () {
        const { fake, fiber, seen } = yield* client({ script: () => ({ isDeaf: true }) })
        const first = yield* fake.accept
        yield* first.say(beginning)
        yield* settle
        yield* first.say(half.subarray(0, length))
        let seconds = 0
        for (; fake.connections.length < 2 && seconds < 60; seconds++) {
          yield* TestClock.adjust("1 second")
          yield* settle
        }
        assert.isAtMost(seconds, 31)
        assert.isTrue(first.isClosed)
        assert.isTrue(
          first.statuses.some(({ replyRequested }) => replyRequested),
          "it asked"
        )
        assert.isTrue(first.statuses.every(({ flushed }) => flushed <= Fake.lsn("0/130")))
        const second = yield* fake.accept
        assert.include(second.commands.at(-1), "LOGICAL 0/130")
        yield* second.say(Fake.relation(), half)
        yield* settle
        const before = what === "the last frame but one" ? [1, 2] : [1]
        assert.deepStrictEqual(
          ids(seen),
          [...before, 2],
          "the fragment is thrown away, and the transaction comes again"
        )
        yield* Fiber.interrupt(fiber)
      })
    )
  }

  it.effect("[F11] is no silence while it goes on coming, however slowly", () =>
    Effect.gen(function* () {
      const { fake, fiber, seen } = yield* client({ script: () => ({ isDeaf: true }) })
      const server = yield* fake.accept
      yield* server.say(beginning)
      yield* settle
      for (const byte of half) {
        yield* server.say(new Uint8Array([byte]))
        yield* TestClock.adjust("10 seconds")
        yield* settle
      }
      assert.deepStrictEqual(ids(seen), [1, 2])
      assert.lengthOf(fake.connections, 1)
      yield* Fiber.interrupt(fiber)
    })
  )
})

describe("a peer that takes nothing of what it is told", () => {
  /** Every write to it waits for ever, as to a socket whose buffers are full. */
  const stuck = (layer: Layer.Layer<WalSender>): Layer.Layer<WalSender> =>
    Layer.effect(
      WalSender,
      Effect.map(WalSender, (sender) => ({
        ...sender,
        connect: Effect.map(sender.connect, (connection) => ({
          ...connection,
          copyBoth: (command: string) =>
            Effect.map(connection.copyBoth(command), (copy) => ({ ...copy, send: () => Effect.never }))
        }))
      }))
    ).pipe(Layer.provide(layer))

  for (const [what, bytes] of [
    ["and says nothing", new Uint8Array(0)],
    ["and sends bytes that are none of the protocol", frame("z")],
    ["and says that it is done", BackendMessage.copyDone]
  ] as const) {
    it.effect(`[F11] ${what} is left within the limit of its silence`, () =>
      Effect.gen(function* () {
        const fake = yield* Fake.make()
        const fiber = yield* withLogicalStream({ slot: "orders", plugin }, (change) =>
          Effect.succeed(nextLsn(change))
        ).pipe(Effect.provide(stuck(fake.layer)), Effect.forkChild)
        const server = yield* fake.accept
        yield* server.say(beginning)
        yield* settle
        yield* server.say(bytes)
        let seconds = 0
        for (; !server.isClosed && seconds < 120; seconds++) {
          yield* TestClock.adjust("1 second")
          yield* settle
        }
        // 15 s to a ping, then the server's own patience, where nobody can tell what it is doing.
        assert.isAtMost(seconds, 80)
        const leaving = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(leaving)
      })
    )
  }
})

describe("frames without anything in them", () => {
  it.effect("[F1] are no reason to wait, loop or grow, 100,000 of them in one read", () =>
    Effect.gen(function* () {
      const parameter = frame("S", "TimeZone\0UTC\0")
      const many = new Uint8Array(parameter.length * 100_000)
      for (let at = 0; at < many.length; at += parameter.length) many.set(parameter, at)
      const { error, millis, seen } = yield* attack([many, ending])
      assert.isUndefined(error)
      assert.deepStrictEqual(ids(seen), [1, 3])
      assert.isBelow(millis, 2000)
    })
  )
})
