/**
 * Recorded streams, damaged at random, through the whole client: frames, copy stream, decoders, handler,
 * acknowledgements. What single decoders do with damaged bytes is tried in test/fuzz; here it is what becomes of the
 * program.
 *
 * `FUZZ_SEED=…` runs the same again, `STREAM_MUTATIONS=…` more or fewer than 10,000.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import { nextLsn } from "../../src/change/Change.ts"
import type { ChangeInProgress } from "../../src/change/InProgress.ts"
import type { OutputPlugin } from "../../src/change/OutputPlugin.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import { TransactionSpill } from "../../src/replication/TransactionSpill.ts"
import { type CopyBoth, WalSender } from "../../src/server/WalSender.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import { cpuMillis } from "../support/cpuMillis.ts"
import * as Fake from "../support/FakeWalSender.ts"
import { fuzzSeed } from "../support/Fuzz.ts"
import * as Goldens from "../support/Goldens.ts"
import { mutate, mutateSequence } from "../support/Mutation.ts"
import { Random } from "../support/Random.ts"
import { type Mode, maxFrameLength } from "./Hostile.ts"

const rounds = Number(process.env.STREAM_MUTATIONS ?? 10_000)

/** What was recorded of one plugin, as frames, a list a stream. */
interface Recording {
  readonly plugin: OutputPlugin
  readonly modes: ReadonlyArray<Mode>
  readonly streams: ReadonlyArray<ReadonlyArray<Uint8Array>>
  /** Whether frames tell, to who does not decode them, when a transaction is open. */
  readonly tellsOpen: boolean
}

const letterOf = (message: Uint8Array): string => String.fromCharCode(message[0] ?? 0)

/** Where the end of a unit is told, its end; elsewhere where the last one was. */
const positionOf = (message: Uint8Array, last: Lsn.Lsn): Lsn.Lsn => {
  const at = { C: 10, c: 14, M: 2 }[letterOf(message)]
  return at === undefined ? last : Lsn.max(last, new ByteReader().reset(message, at, message.length).lsn())
}

const framed = (messages: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> => {
  let position = Lsn.zero
  return messages.flatMap((message, index) => {
    position = positionOf(message, position)
    const frame = Fake.xLogData(Lsn.format(position), message)
    return index % 5 === 4 ? [frame, Fake.keepAlive(Lsn.format(position), index % 2 === 0)] : [frame]
  })
}

/** The position of a wal2json message is anybody's guess: it only has to be behind those that it tells. */
const framedJson = (messages: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> =>
  messages.map((message) => Fake.xLogData("F0/0", message))

const publications = ["orders"]
const recordings: ReadonlyArray<Recording> = [
  {
    plugin: Pgoutput.make({ publications }),
    modes: ["gather"],
    streams: Goldens.pgoutputText.map(framed),
    tellsOpen: true
  },
  {
    plugin: Pgoutput.make({ publications, format: "binary", enums: ["mood"] }),
    modes: ["gather"],
    streams: Goldens.pgoutputBinary.map(framed),
    tellsOpen: true
  },
  {
    plugin: Pgoutput.make({ publications, streaming: "parallel", twoPhase: true }),
    modes: ["gather", "deliver"],
    streams: Goldens.pgoutputInProgress.map(framed),
    tellsOpen: true
  },
  {
    plugin: Wal2Json.make(),
    modes: ["gather"],
    streams: Goldens.wal2JsonMessages(2).map(framedJson),
    tellsOpen: false
  },
  {
    plugin: Wal2Json.make({ formatVersion: 1 }),
    modes: ["gather"],
    streams: Goldens.wal2JsonMessages(1).map(framedJson),
    tellsOpen: false
  }
]

/** Reads of random sizes, or one a frame. */
const cut = (frames: ReadonlyArray<Uint8Array>, random: Random): ReadonlyArray<Uint8Array> => {
  if (random.chance(50)) return frames
  const whole = Fake.concat(...frames)
  const reads: Array<Uint8Array> = []
  for (let at = 0; at < whole.length; ) {
    const end = at + 1 + random.below(random.chance(80) ? 400 : 20)
    reads.push(whole.slice(at, end))
    at = end
  }
  return reads
}

/** Damages frames with their headers, the order they come in, or the whole stream as one piece. */
const damaged = ({ streams }: Recording, random: Random): ReadonlyArray<Uint8Array> =>
  random.chance(60)
    ? mutateSequence(streams, random)
    : [mutate([Fake.concat(...random.pick(streams)), Fake.concat(...random.pick(streams))], random)]

/**
 * The furthest position that may be acknowledged after these bytes, were every unit in them handled: where the stream
 * was when nothing was open. Told from the frames alone, without the decoders that are tried.
 */
const capOf = (bytes: Uint8Array, tellsOpen: boolean): Lsn.Lsn => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let [cap, position, isOpen] = [0n, 0n, false]
  for (let at = 0; at + 5 <= bytes.length; ) {
    const length = view.getInt32(at + 1)
    if (length < 4 || length > maxFrameLength || at + 1 + length > bytes.length) break
    if (bytes[at] === 0x64 /* d */ && length >= 13) {
      const told = view.getBigUint64(at + 6)
      if (told > position) position = told
      const letter = length >= 30 ? String.fromCharCode(bytes[at + 30]!) : ""
      if (bytes[at + 5] === 0x77 /* w */ && tellsOpen) {
        if ("BbS".includes(letter)) isOpen = true
        else if ("CPE".includes(letter)) isOpen = false
      }
    }
    if (!isOpen && position > cap) cap = position
    at += 1 + length
  }
  return cap as Lsn.Lsn
}

/** Notices and reconnections are logged, and a test's console keeps what is written to it. */
const silent = Logger.layer([])

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

/** What is held in memory when all that can be collected is. */
const heldBytes = (): number => {
  collectGarbage()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return arrayBuffers + heapUsed
}

const spill = { maxBytesInMemory: 1 << 24, makeFile: Effect.die("nothing is to be spilled") }

/** What the client was given so far, and how much of it in its last read. */
interface Pulled {
  total: number
  last: number
}

const watched = (fake: Fake.FakeWalSender, pulled: Pulled): Layer.Layer<WalSender> =>
  Layer.effect(
    WalSender,
    Effect.map(WalSender, (sender) => ({
      ...sender,
      connect: Effect.map(sender.connect, (connection) => ({
        ...connection,
        copyBoth: (command: string) =>
          Effect.map(
            connection.copyBoth(command),
            (copy): CopyBoth => ({
              ...copy,
              pull: Effect.tap(copy.pull, ({ length }) =>
                Effect.sync(() => {
                  pulled.total += length
                  pulled.last = length
                })
              )
            })
          )
      }))
    }))
  ).pipe(Layer.provide(fake.layer))

/** CopyBothResponse, which comes before all that is damaged. */
const answerLength = 8

/** One damaged stream through a client. Gives what is wrong with what became of it. */
const run = Effect.fnUntraced(function* (recording: Recording, mode: Mode, reads: ReadonlyArray<Uint8Array>) {
  const fake = yield* Fake.make(() => ({ slot: { plugin: recording.plugin.name } }))
  const pulled: Pulled = { total: 0, last: 0 }
  let handled = Lsn.zero
  const handler = (change: ChangeInProgress) => {
    const next = nextLsn(change)
    if (next !== undefined) handled = Lsn.max(handled, next.lsn)
    return Effect.succeed(next)
  }
  const options = {
    slot: "orders",
    plugin: recording.plugin,
    inProgress: mode,
    memory: { maxFrameLength },
    timing: { maxReadWait: 0 },
    reconnect: Schedule.recurs(0)
  }
  const fiber = yield* withLogicalStream(options, handler).pipe(
    Effect.provide(watched(fake, pulled)),
    Effect.provideService(TransactionSpill, spill),
    Effect.forkChild
  )
  const server = yield* fake.accept
  const start = cpuMillis()
  for (const read of reads) yield* server.say(read)
  yield* server.drop
  let steps = 200 + 20 * reads.length
  while (fiber.pollUnsafe() === undefined && steps-- > 0) yield* Effect.yieldNow
  const exit = fiber.pollUnsafe()
  const millis = cpuMillis() - start
  if (exit === undefined) return "it hangs"
  if (exit._tag === "Success") return "it succeeds"
  const [reason] = exit.cause.reasons
  if (exit.cause.reasons.length !== 1 || !Cause.isFailReason(reason!)) return `it dies: ${Cause.pretty(exit.cause)}`
  const { _tag } = reason.error
  if (!["DecodeError", "ConnectionError", "ServerError", "PublicationNotFound"].includes(_tag))
    return `it fails by ${_tag}`
  if (millis > 1000) return `it takes ${millis} ms`
  if (!server.isClosed) return "the connection is open"
  if (fake.connections.length > 1) return "there is another connection"
  const bytes = Fake.concat(...reads).subarray(0, pulled.total - answerLength)
  const before = capOf(
    _tag === "DecodeError" ? bytes.subarray(0, bytes.length - pulled.last) : bytes,
    recording.tellsOpen
  )
  const most = Lsn.max(before, handled)
  const beyond = server.statuses.find(({ flushed }) => flushed > most)
  return beyond === undefined ? undefined : `${Lsn.format(beyond.flushed)} is acknowledged, ${Lsn.format(most)} may be`
})

describe("a recorded stream", () => {
  it.effect("[F12] that is not damaged is handled to its end", () =>
    Effect.gen(function* () {
      for (const recording of recordings) {
        for (const stream of recording.streams) {
          for (const mode of recording.modes) assert.isUndefined(yield* run(recording, mode, stream))
        }
      }
    })
  )

  it.effect(
    `[F12] that is damaged, ${rounds} times, is a typed failure at once, and nothing of it acknowledged (seed ${fuzzSeed})`,
    () =>
      Effect.gen(function* () {
        const part = Math.ceil(rounds / 4)
        const held: Array<number> = []
        for (let round = 0; round < rounds; round++) {
          if (round % part === 0) held.push(heldBytes())
          const random = new Random((fuzzSeed ^ Math.imul(round + 1, 0x9e37_79b1)) >>> 0)
          const recording = random.pick(recordings)
          const mode = random.pick(recording.modes)
          const reads = cut(damaged(recording, random), random)
          const wrong = yield* run(recording, mode, reads)
          if (wrong !== undefined) {
            const hex = reads.map((read) => Buffer.from(read).toString("hex")).join("\n")
            assert.fail(`FUZZ_SEED=${fuzzSeed}, round ${round}, ${mode}: ${wrong}\n${hex.slice(0, 20_000)}`)
          }
        }
        held.push(heldBytes())
        // What is compiled or remembered once grows in some part; what is kept of each round grows in every one.
        const grown = held.slice(1).map((bytes, index) => bytes - held[index]!)
        assert.isBelow(Math.min(...grown), Math.max(1 << 20, part * 400), `bytes more in each part: ${grown}`)
      }).pipe(Effect.provide(silent)),
    600_000 + rounds * 3
  )
})
