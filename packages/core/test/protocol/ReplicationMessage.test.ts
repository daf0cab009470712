import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import * as ReplicationMessage from "../../src/protocol/ReplicationMessage.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { facts, frames } from "../fixtures/replicationMessages.ts"

const { decodeReplicationMessage, decodeStandbyMessage } = ReplicationMessage

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const read = (bytes: Uint8Array) => decodeReplicationMessage(ByteReader.over(bytes))
const readStandby = (bytes: Uint8Array) => decodeStandbyMessage(ByteReader.over(bytes))

const xLogData = (hex: string): ReplicationMessage.XLogData => {
  const message = read(fromHex(hex))
  return message._tag === "XLogData" ? message : assert.fail(`expected XLogData, got ${message._tag}`)
}

const keepAlive = (hex: string): ReplicationMessage.PrimaryKeepAlive => {
  const message = read(fromHex(hex))
  return message._tag === "PrimaryKeepAlive" ? message : assert.fail(`expected a keep-alive, got ${message._tag}`)
}

const assertDecodeError = (run: () => unknown): void => {
  try {
    run()
  } catch (error) {
    assert.instanceOf(error, DecodeError)
    return
  }
  assert.fail("expected a DecodeError")
}

const uint32 = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff }))
const byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
const anyBytes = Arbitrary.map(Arbitrary.array(Arbitrary.schema(byte), { maxLength: 60 }), (bytes) =>
  Uint8Array.from(bytes)
)
const timestamp = Arbitrary.map(
  Arbitrary.schema(
    Schema.Int.check(Schema.isBetween({ minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }))
  ),
  PgTimestamp.make
)

describe("what PostgreSQL said", () => {
  it("is a message at the LSN that pg_logical_emit_message returned", () => {
    const { walData, walEnd, walStart } = xLogData(frames.message.payload)
    assert.strictEqual(Lsn.format(walStart), facts.messageLsn)
    assert.strictEqual(walEnd, walStart)
    assert.strictEqual(String.fromCharCode(walData[0]!), "M")
    assert.strictEqual(Buffer.from(walData.subarray(-7)).toString(), "Grüße")
  })

  it("was sent when the server's clock says so, to the microsecond", () => {
    const times = [frames.message, frames.relation, frames.insert, frames.commit].map(({ payload }) =>
      PgTimestamp.format(xLogData(payload).sendTime)
    )
    assert.deepStrictEqual([facts.sentAfter, ...times, facts.sentBefore].toSorted(), [
      facts.sentAfter,
      ...times,
      facts.sentBefore
    ])
  })

  it("has no position for the description of a relation", () => {
    assert.strictEqual(xLogData(frames.relation.payload).walStart, Lsn.zero)
    assert.strictEqual(xLogData(frames.relation.payload).walEnd, Lsn.zero)
  })

  it("stands at the transaction's end for a commit, whose keep-alive names the same", () => {
    const { walData, walStart } = xLogData(frames.commit.payload)
    const endLsn = new ByteReader().reset(walData, 10, walData.length).lsn()
    assert.strictEqual(walStart, endLsn)
    assert.strictEqual(keepAlive(frames.pong.payload).walEnd, endLsn)
  })

  it("asks for a reply at half the walsender's timeout, and not in answer to a ping", () => {
    assert.isFalse(keepAlive(frames.pong.payload).replyRequested)
    assert.isTrue(keepAlive(frames.demand.payload).replyRequested)
  })

  it("is written again as the same bytes", () => {
    for (const { payload } of [frames.message, frames.relation, frames.insert, frames.commit]) {
      assert.strictEqual(toHex(ReplicationMessage.encodeXLogData(xLogData(payload))), payload)
    }
    for (const { payload } of [frames.pong, frames.demand]) {
      assert.strictEqual(toHex(ReplicationMessage.encodePrimaryKeepAlive(keepAlive(payload))), payload)
    }
  })

  it("has the header lengths that the copy-data loop counts on", () => {
    const { payload } = frames.insert
    const header = 2 * ReplicationMessage.xLogDataHeaderLength
    assert.strictEqual(payload.slice(header, header + 2), Buffer.from("I").toString("hex"))
    assert.strictEqual(frames.pong.payload.length, 2 * ReplicationMessage.primaryKeepAliveLength)
    assert.strictEqual(fromHex(payload)[0], ReplicationMessage.xLogDataTag)
    assert.strictEqual(fromHex(frames.pong.payload)[0], ReplicationMessage.primaryKeepAliveTag)
  })
})

describe("decodeReplicationMessage", () => {
  it.prop(
    "reads every XLogData it writes",
    { walStart: Lsn.Lsn, walEnd: Lsn.Lsn, sendTime: timestamp, walData: anyBytes },
    (fields) => {
      assert.deepStrictEqual(read(ReplicationMessage.encodeXLogData(fields)), { _tag: "XLogData", ...fields })
    }
  )

  it.prop(
    "reads every keep-alive it writes",
    { walEnd: Lsn.Lsn, sendTime: timestamp, replyRequested: Schema.Boolean },
    (fields) => {
      assert.deepStrictEqual(read(ReplicationMessage.encodePrimaryKeepAlive(fields)), {
        _tag: "PrimaryKeepAlive",
        ...fields
      })
    }
  )

  it("keeps walData when the read it came in is gone", () => {
    const bytes = fromHex(frames.insert.payload)
    const message = read(bytes)
    const before = structuredClone(message)
    bytes.fill(0)
    assert.deepStrictEqual(message, before)
  })

  it("reads a message in the middle of a read, and no byte of its neighbours", () => {
    const bytes = fromHex(frames.pong.payload)
    const whole = new Uint8Array(bytes.length + 20).fill(0xff)
    whole.set(bytes, 10)
    const reader = new ByteReader().reset(whole, 10, 10 + bytes.length)
    assert.deepStrictEqual(decodeReplicationMessage(reader), keepAlive(frames.pong.payload))
    assert.strictEqual(reader.remaining, 0)
  })

  it("takes any byte but zero for a demand: an unheard one ends the connection", () => {
    const bytes = fromHex(frames.pong.payload)
    bytes[17] = 2
    assert.isTrue(keepAlive(toHex(bytes)).replyRequested)
  })

  it("refuses every truncation of a header", () => {
    for (const { payload } of [frames.insert, frames.pong]) {
      const bytes = fromHex(payload)
      const header = Math.min(ReplicationMessage.xLogDataHeaderLength, bytes.length)
      for (let length = 0; length < header; length++) assertDecodeError(() => read(bytes.subarray(0, length)))
    }
  })

  it("refuses a byte too many after a keep-alive", () => {
    assertDecodeError(() => read(fromHex(`${frames.pong.payload}00`)))
  })

  it("refuses every other type of message", () => {
    for (let tag = 0; tag < 256; tag++) {
      if (tag === ReplicationMessage.xLogDataTag || tag === ReplicationMessage.primaryKeepAliveTag) continue
      const bytes = new Uint8Array(40)
      bytes[0] = tag
      assertDecodeError(() => read(bytes))
    }
  })
})

describe("decodeStandbyMessage", () => {
  it.prop(
    "reads every status update it writes",
    { written: Lsn.Lsn, flushed: Lsn.Lsn, applied: Lsn.Lsn, sendTime: timestamp, replyRequested: Schema.Boolean },
    (fields) => {
      assert.deepStrictEqual(readStandby(ReplicationMessage.encodeStandbyStatusUpdate(fields)), {
        _tag: "StandbyStatusUpdate",
        ...fields
      })
    }
  )

  it.prop(
    "reads every hot standby feedback it writes",
    { sendTime: timestamp, xmin: uint32, xminEpoch: uint32, catalogXmin: uint32, catalogXminEpoch: uint32 },
    (fields) => {
      assert.deepStrictEqual(readStandby(ReplicationMessage.encodeHotStandbyFeedback(fields)), {
        _tag: "HotStandbyFeedback",
        ...fields
      })
    }
  )

  it("refuses every truncation, trailing bytes and every other type", () => {
    const status = ReplicationMessage.encodeStandbyStatusUpdate({
      written: Lsn.zero,
      flushed: Lsn.zero,
      applied: Lsn.zero,
      sendTime: PgTimestamp.make(0),
      replyRequested: false
    })
    const feedback = ReplicationMessage.encodeHotStandbyFeedback({
      sendTime: PgTimestamp.make(0),
      xmin: 1,
      xminEpoch: 0,
      catalogXmin: 2,
      catalogXminEpoch: 0
    })
    for (const bytes of [status, feedback]) {
      for (let length = 0; length < bytes.length; length++)
        assertDecodeError(() => readStandby(bytes.subarray(0, length)))
      assertDecodeError(() => readStandby(Uint8Array.of(...bytes, 0)))
      assertDecodeError(() => readStandby(Uint8Array.of(0x77, ...bytes.subarray(1))))
    }
  })
})

describe("encodeStandbyStatusUpdate", () => {
  it("lays the fields out as the documentation does: written, flushed, applied, clock, reply", () => {
    const bytes = ReplicationMessage.encodeStandbyStatusUpdate({
      written: Lsn.fromString("1/2")!,
      flushed: Lsn.fromString("3/4")!,
      applied: Lsn.fromString("5/6")!,
      sendTime: PgTimestamp.make(-1),
      replyRequested: true
    })
    const expected = ["72", "0000000100000002", "0000000300000004", "0000000500000006", "ffffffffffffffff", "01"]
    assert.strictEqual(toHex(bytes), expected.join(""))
  })

  it("takes a clock with fractions of a microsecond", () => {
    const bytes = ReplicationMessage.encodeStandbyStatusUpdate({
      written: Lsn.maxValue,
      flushed: Lsn.maxValue,
      applied: Lsn.maxValue,
      sendTime: PgTimestamp.make(1.5),
      replyRequested: false
    })
    assert.deepInclude(readStandby(bytes), { sendTime: PgTimestamp.make(1), flushed: Lsn.maxValue })
  })
})

describe("every decoder here", () => {
  const startingWith = Arbitrary.schema(Schema.Literals([0x77, 0x6b, 0x72, 0x68, 0x00]))
  it.prop(
    "gives a message or a DecodeError for any bytes",
    { anyBytes, startingWith },
    ({ anyBytes, startingWith }) => {
      const bytes = Uint8Array.of(startingWith, ...anyBytes)
      for (const decode of [read, readStandby]) {
        try {
          assert.isString(decode(bytes)._tag)
        } catch (error) {
          assert.instanceOf(error, DecodeError)
        }
      }
    },
    { arbitrary: { runs: 1000 } }
  )
})
