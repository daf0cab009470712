/** Damaged frames and messages of the protocol. */
import { assert, describe } from "@effect/vitest"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import { decodeServerMessage, errorResponseTag, noticeResponseTag } from "../../src/protocol/BackendMessage.ts"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import { encodeFrame, Frames } from "../../src/protocol/Frames.ts"
import * as ReplicationMessage from "../../src/protocol/ReplicationMessage.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { fuzz } from "../support/Fuzz.ts"
import { backendMessages } from "../support/Goldens.ts"
import { mutate } from "../support/Mutation.ts"
import type { Random } from "../support/Random.ts"

const stream = Buffer.concat(backendMessages.map(({ payload, tag }) => encodeFrame(tag, payload)))

interface Walked {
  readonly frames: ReadonlyArray<{ readonly tag: number; readonly payload: Uint8Array }>
  readonly problem: string | undefined
  readonly pending: number
}

/** Steps through all frames of `reads`; each is overwritten once it is used up, as a driver's buffer is. */
const walk = (reads: ReadonlyArray<Uint8Array>): Walked => {
  const frames = new Frames()
  const seen: Array<Walked["frames"][number]> = []
  try {
    for (const lent of reads) {
      const read = lent.slice()
      frames.push(read)
      while (frames.next()) {
        assert.isTrue(frames.start <= frames.end && frames.end <= frames.bytes.length)
        seen.push({ tag: frames.tag, payload: frames.bytes.slice(frames.start, frames.end) })
      }
      read.fill(0x2a)
    }
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    return { frames: seen, problem: error.problem, pending: 0 }
  }
  return { frames: seen, problem: undefined, pending: frames.pending }
}

const cut = (bytes: Uint8Array, random: Random): ReadonlyArray<Uint8Array> => {
  const reads: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length; ) {
    const length = random.chance(30) ? 1 + random.below(6) : 1 + random.below(bytes.length)
    reads.push(bytes.subarray(at, at + length))
    at += length
  }
  return reads
}

describe("Frames, of a damaged stream,", () => {
  fuzz({
    title: "are the same however it is cut into reads, or end in the same DecodeError",
    share: 10,
    input: (random) => [mutate([stream], random)],
    decode: ([bytes], random) => {
      const whole = walk([bytes!])
      assert.deepStrictEqual(walk(cut(bytes!, random)), whole)
      if (whole.problem === undefined) {
        const framed = whole.frames.reduce((sum, { payload }) => sum + payload.length + 5, 0)
        assert.strictEqual(framed + whole.pending, bytes!.length, "every byte is in a frame, or waits for more")
      }
      return whole
    }
  })
})

const copyData = backendMessages.filter(({ tag }) => tag === 0x64).map(({ payload }) => payload)
const standby = [
  ReplicationMessage.encodeStandbyStatusUpdate({
    written: Lsn.fromHalves(0, 0x17d1f20),
    flushed: Lsn.fromHalves(0, 0x17d1ef0),
    applied: Lsn.zero,
    sendTime: PgTimestamp.make(849_837_297_411_167),
    replyRequested: true
  }),
  ReplicationMessage.encodeHotStandbyFeedback({
    sendTime: PgTimestamp.make(849_837_297_411_167),
    xmin: 7,
    xminEpoch: 0,
    catalogXmin: 0xffff_ffff,
    catalogXminEpoch: 1
  })
]
const serverMessages = backendMessages
  .filter(({ tag }) => tag === errorResponseTag || tag === noticeResponseTag)
  .map(({ payload }) => payload)

describe("a damaged message of the protocol", () => {
  fuzz({
    title: "from the walsender is a message or a DecodeError",
    share: 8,
    input: (random) => [mutate(copyData, random)],
    decode: ([bytes]) => ReplicationMessage.decodeReplicationMessage(ByteReader.over(bytes!))
  })

  fuzz({
    title: "from a standby is a message or a DecodeError",
    share: 4,
    input: (random) => [mutate(standby, random)],
    decode: ([bytes]) => ReplicationMessage.decodeStandbyMessage(ByteReader.over(bytes!))
  })

  fuzz({
    title: "that is an error or a notice is a ServerMessage or a DecodeError",
    share: 6,
    input: (random) => [mutate(serverMessages, random)],
    decode: ([bytes]) => decodeServerMessage(ByteReader.over(bytes!))
  })
})
