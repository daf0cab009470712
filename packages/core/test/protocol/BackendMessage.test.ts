import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import { encodeFrame, Frames } from "../../src/protocol/Frames.ts"
import { DecodeError, type ServerMessage } from "../../src/ReplicationError.ts"
import * as fixture from "../fixtures/replicationMessages.ts"

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))
const decode = (payload: Uint8Array): ServerMessage => BackendMessage.decodeServerMessage(ByteReader.over(payload))
const fields = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Tag and payload of the one frame that these bytes are. */
const only = (bytes: Uint8Array): { readonly tag: number; readonly payload: Uint8Array } => {
  const frames = new Frames()
  frames.push(bytes)
  assert.isTrue(frames.next())
  return { tag: frames.tag, payload: frames.bytes.slice(frames.start, frames.end) }
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

describe("decodeServerMessage", () => {
  it("reads what PostgreSQL says to a slot that is not there", () => {
    assert.deepStrictEqual(decode(fromHex(fixture.frames.errorResponse.payload)), {
      severity: "ERROR",
      sqlState: "42704",
      message: 'replication slot "no_such_slot" does not exist',
      detail: undefined,
      hint: undefined,
      routine: "ReplicationSlotAcquire"
    })
  })

  it("reads a notice of PostgreSQL's", () => {
    assert.deepInclude(decode(fromHex(fixture.frames.noticeResponse.payload)), {
      severity: "NOTICE",
      sqlState: "00000",
      message: 'table "no_such_table" does not exist, skipping'
    })
  })

  it("takes the severity that is not translated", () => {
    assert.strictEqual(decode(fields("SFEHLER\0VERROR\0C42704\0Mx\0\0")).severity, "ERROR")
    assert.strictEqual(decode(fields("VFATAL\0SFATALE\0C57P01\0Mx\0\0")).severity, "FATAL")
    assert.strictEqual(decode(fields("SWARNUNG\0C01000\0Mx\0\0")).severity, "WARNUNG")
  })

  it("passes over fields it does not know, in any order", () => {
    const message = decode(fields("q1\0Ffile.c\0Hhint\0L7\0Mmessage\0zé\0Ddetail\0C08006\0VPANIC\0\0"))
    assert.deepStrictEqual(message, {
      severity: "PANIC",
      sqlState: "08006",
      message: "message",
      detail: "detail",
      hint: "hint",
      routine: undefined
    })
  })

  it("makes something of a message with no fields at all", () => {
    assert.deepInclude(decode(Uint8Array.of(0)), { severity: "ERROR", sqlState: "XX000", message: "" })
  })

  it("refuses every truncation, and bytes after the end", () => {
    const payload = fromHex(fixture.frames.errorResponse.payload)
    for (let length = 0; length < payload.length; length++) assertDecodeError(() => decode(payload.subarray(0, length)))
    assertDecodeError(() => decode(Uint8Array.of(...payload, 0)))
  })

  it("refuses text that is not UTF-8", () => {
    assertDecodeError(() => decode(Uint8Array.of(0x4d, 0xff, 0, 0)))
  })

  const byte = Arbitrary.schema(Schema.Literals([0, 0, 0, 0x53, 0x56, 0x43, 0x4d, 0x44, 0x48, 0x41, 0xc3, 0xa9, 0xff]))
  it.prop(
    "gives a message or a DecodeError for any bytes",
    { bytes: Arbitrary.array(byte, { maxLength: 40 }) },
    ({ bytes }) => {
      try {
        assert.isString(decode(Uint8Array.from(bytes)).severity)
      } catch (error) {
        assert.instanceOf(error, DecodeError)
      }
    },
    { arbitrary: { runs: 1000 } }
  )

  const text = Arbitrary.map(Arbitrary.schema(Schema.String), (value) => value.toWellFormed().replaceAll("\0", ""))
  const optional = Arbitrary.schema(Schema.Boolean)
  it.prop(
    "reads every error and notice it writes",
    { message: text, detail: text, hint: text, hasDetail: optional, hasHint: optional },
    ({ detail, hasDetail, hasHint, hint, message }) => {
      const written: ServerMessage = {
        severity: "WARNING",
        sqlState: "55000",
        message,
        detail: hasDetail ? detail : undefined,
        hint: hasHint ? hint : undefined,
        routine: hasHint ? "Routine" : undefined
      }
      const error = only(BackendMessage.errorResponse(written))
      const notice = only(BackendMessage.noticeResponse(written))
      assert.strictEqual(error.tag, BackendMessage.errorResponseTag)
      assert.strictEqual(notice.tag, BackendMessage.noticeResponseTag)
      assert.deepStrictEqual(decode(error.payload), written)
      assert.deepStrictEqual(decode(notice.payload), written)
    }
  )
})

describe("a scripted walsender", () => {
  const written = {
    copyBothResponse: BackendMessage.copyBothResponse,
    insert: BackendMessage.copyData(fromHex(fixture.frames.insert.payload)),
    copyDone: BackendMessage.copyDone,
    commandComplete: BackendMessage.commandComplete("COPY 0"),
    readyForQuery: BackendMessage.readyForQuery
  }
  it.each(Object.entries(written))("says %s byte for byte as PostgreSQL does", (name, bytes) => {
    const { payload, tag } = fixture.frames[name as keyof typeof written]
    assert.deepStrictEqual(bytes, encodeFrame(tag.charCodeAt(0), fromHex(payload)))
  })

  it("bears the letters that PostgreSQL sends", () => {
    const letters = {
      W: BackendMessage.copyBothResponseTag,
      d: BackendMessage.copyDataTag,
      c: BackendMessage.copyDoneTag,
      C: BackendMessage.commandCompleteTag,
      Z: BackendMessage.readyForQueryTag,
      E: BackendMessage.errorResponseTag,
      N: BackendMessage.noticeResponseTag,
      S: BackendMessage.parameterStatusTag,
      A: BackendMessage.notificationResponseTag
    }
    for (const [letter, tag] of Object.entries(letters)) assert.strictEqual(String.fromCharCode(tag), letter)
  })
})
