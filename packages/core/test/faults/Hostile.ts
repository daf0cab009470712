/**
 * A walsender that means harm, against the whole client: a good beginning, then whatever a test makes of the rest, and
 * what became of both sides. Not a test.
 */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import type { ChangeInProgress } from "../../src/change/InProgress.ts"
import type { OutputPlugin } from "../../src/change/OutputPlugin.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { encodeFrame } from "../../src/protocol/Frames.ts"
import type { DecodeError, ReplicationError } from "../../src/ReplicationError.ts"
import { TransactionSpill } from "../../src/replication/TransactionSpill.ts"
import { type Options, withLogicalStream } from "../../src/stream/LogicalStream.ts"
import { cpuMillis } from "../support/cpuMillis.ts"
import * as Fake from "../support/FakeWalSender.ts"

/** Longer frames are refused in these tests, so that a lie about a length need not be a large one. */
export const maxFrameLength = 64 * 1024

export const plugin = Pgoutput.make({ publications: ["orders"] })

/** Protocol 4, with two-phase commit: every message there is. */
export const streamingPlugin = Pgoutput.make({ publications: ["orders"], streaming: "parallel", twoPhase: true })

/** Where the last unit ends that arrives unharmed: what is acknowledged, and no byte more. */
export const finishedLsn = "0/130"

/** What every attack begins with: one whole transaction, which is handled. */
export const beginning: Uint8Array = Fake.concat(Fake.relation(), Fake.transaction("0/100", finishedLsn, 1))

/** A whole transaction that comes too late. */
export const ending: Uint8Array = Fake.transaction("0/400", "0/430", 3)

/** Text as the bytes of a frame of that type: `R` or 0x52. */
export const frame = (tag: string | number, payload: string | Uint8Array = ""): Uint8Array =>
  encodeFrame(
    typeof tag === "number" ? tag : tag.charCodeAt(0),
    typeof payload === "string" ? new TextEncoder().encode(payload) : payload
  )

/**
 * Enough to complete any frame that is taken: where a length lies, what follows may pass for a frame's beginning, and
 * only its end shows what it is.
 */
export const filler: Uint8Array = new Uint8Array(maxFrameLength)

/** A frame's header that promises so many bytes. */
export const header = (tag: string, length: number): Uint8Array => {
  const bytes = new Uint8Array(5)
  bytes[0] = tag.charCodeAt(0)
  new DataView(bytes.buffer).setInt32(1, length)
  return bytes
}

/** Lets every fiber run as far as it can without time passing. */
export const settle = Effect.gen(function* () {
  yield* TestClock.adjust(0)
  for (let step = 0; step < 30; step++) yield* Effect.yieldNow
})

/** How transactions in progress are taken, where the plugin sends them. */
export type Mode = "gather" | "deliver"

export interface AttackOptions {
  readonly plugin?: OutputPlugin | undefined
  readonly mode?: Mode | undefined
  readonly stream?: Partial<Options> | undefined
  /** How many bytes the client is given at a time: all there are, unless told otherwise. */
  readonly readLength?: number | undefined
  /** What comes before the attack: {@link beginning}, unless the plugin is another one. */
  readonly begins?: Uint8Array | undefined
  /** How the fake behaves, connection by connection. */
  readonly script?: ((attempt: number) => Fake.FakeOptions | ReplicationError) | undefined
}

/** Both sides, once everything was said. */
export interface Outcome {
  /** What the stream failed with; `undefined` while it goes on. */
  readonly error: ReplicationError | undefined
  readonly seen: ReadonlyArray<ChangeInProgress>
  readonly server: Fake.FakeConnection
  readonly connections: ReadonlyArray<Fake.FakeConnection>
  /** Every flush position that the server was told, on all connections. */
  readonly flushes: ReadonlyArray<string>
  /** How long the rest took, in real time. */
  readonly millis: number
}

/** Spills to nowhere: these transactions are small. */
const spill = { maxBytesInMemory: 1 << 20, makeFile: Effect.die("nothing is to be spilled") }

/** A client that handles everything at once, and the fake that it is connected to. */
export const client = Effect.fnUntraced(function* (options: AttackOptions = {}) {
  const seen: Array<ChangeInProgress> = []
  const fake = yield* Fake.make(options.script)
  const streamOptions = {
    slot: "orders",
    plugin: options.plugin ?? plugin,
    memory: { maxFrameLength },
    inProgress: options.mode,
    ...options.stream
  }
  const handler = (change: ChangeInProgress) => {
    seen.push(change)
    return Effect.succeed(nextLsn(change))
  }
  const fiber = yield* withLogicalStream(streamOptions, handler).pipe(
    Effect.provide(fake.layer),
    Effect.provideService(TransactionSpill, spill),
    Effect.forkChild
  )
  return { fake, fiber, seen }
})

/** Says the beginning, then each of `reads` by itself, and looks at what has become of the client. */
export const attack = Effect.fnUntraced(function* (
  reads: ReadonlyArray<Uint8Array>,
  options: AttackOptions = {}
): Effect.fn.Return<Outcome> {
  const { fake, fiber, seen } = yield* client(options)
  const server = yield* fake.accept
  yield* server.say(options.begins ?? beginning)
  yield* settle
  const start = cpuMillis()
  for (const read of reads) {
    const length = options.readLength ?? read.length
    const pieces = Math.max(1, Math.ceil(read.length / length))
    for (let piece = 0; piece < pieces; piece++) {
      yield* server.say(read.subarray(piece * length, (piece + 1) * length))
    }
    for (let step = 0; step < 30 + 10 * pieces && fiber.pollUnsafe() === undefined; step++) yield* Effect.yieldNow
  }
  const exit = fiber.pollUnsafe()
  const error = exit === undefined ? undefined : yield* Effect.flip(Fiber.join(fiber))
  const millis = cpuMillis() - start
  if (exit === undefined) {
    // Amid a frame it would wait for the server's goodbye as long as it may.
    const leaving = yield* Effect.forkChild(Fiber.interrupt(fiber))
    yield* TestClock.adjust("10 seconds")
    yield* Fiber.join(leaving)
  } else assert.isTrue(Exit.isFailure(exit))
  const flushes = fake.connections.flatMap(({ statuses }) => statuses.map(({ flushed }) => Lsn.format(flushed)))
  return { error, seen, server, connections: fake.connections, flushes, millis }
})

/**
 * What is promised of every fault in the bytes: the stream fails with a `DecodeError` that tells where, within a
 * second; the connection is closed, and not made again, for a peer that speaks so once will again; and nothing is
 * acknowledged beyond the last unit that was handled before. Gives the error.
 */
export const refused = (outcome: Outcome, what = "the fault"): DecodeError => {
  const { connections, error, flushes, millis, seen, server } = outcome
  if (error?._tag !== "DecodeError") return assert.fail(`${what} is not refused: ${error ?? "the stream goes on"}`)
  assert.isFalse(error.isRetryable)
  assert.isTrue(Number.isSafeInteger(error.offset) && error.offset >= 0, `${what} has no offset: ${error.offset}`)
  assert.isTrue(server.isClosed, `after ${what} the connection is open`)
  assert.strictEqual(connections.length, 1, `after ${what} the server was asked again`)
  assert.strictEqual(flushes.at(-1), finishedLsn, `after ${what} what was handled is reported, and nothing else`)
  const most = Fake.lsn(finishedLsn)
  assert.isTrue(
    flushes.every((flushed) => Fake.lsn(flushed) <= most),
    `${what} is acknowledged: ${flushes}`
  )
  assert.deepStrictEqual(ids(seen).slice(0, 1), [1])
  assert.notInclude(ids(seen), 3, `what came after ${what} is delivered`)
  assert.isBelow(millis, 1000, `${what} takes its time`)
  return error
}

/** The ids of inserted rows, in order, in progress or not. */
export const ids = (seen: ReadonlyArray<ChangeInProgress>): ReadonlyArray<unknown> =>
  seen.flatMap((change) => {
    const inner = change._tag === "Streamed" ? change.change : change
    return inner._tag === "Insert" ? [inner.row.id] : []
  })
