/**
 * Inputs made to cost more than they weigh: counts that promise what does not follow, and text that sends a careless
 * parser back and forth. Each is refused, or read, within a moment, and takes no memory beyond a constant times its size.
 */
import { assert, describe, it, vi } from "@effect/vitest"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch } from "../../src/change/OutputPlugin.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { decodeServerMessage } from "../../src/protocol/BackendMessage.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { Frames } from "../../src/protocol/Frames.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { binaryTypeForOid } from "../../src/values/BinaryType.ts"
import { timestampMicros } from "../../src/values/TimestampText.ts"
import { decoderForName, decoderForOid, guarded, type TypeDecoder } from "../../src/values/TypeDecoder.ts"
import { parseJsonText } from "../../src/wal2json/JsonText.ts"
import { cpuMillis } from "../support/cpuMillis.ts"
import { weigh, withWatchdog } from "../support/Fuzz.ts"
import { begin, decodeOne, message, type Part, relation } from "../support/PgoutputBytes.ts"
import { decodeAll } from "../wal2json/decodeMessages.ts"

const megabyte = 1 << 20

/**
 * What `body` gives or throws. Fails when it takes longer than two seconds, when it does not come back at all, and when the
 * process has come to need more memory than `most`.
 */
const cheaply = (body: () => unknown, most = 32 * megabyte): unknown => {
  let outcome: unknown
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  const peak = process.resourceUsage().maxRSS
  const start = cpuMillis()
  withWatchdog(() => {
    try {
      outcome = body()
    } catch (error) {
      outcome = error
    }
  }, 10_000)
  const millis = cpuMillis() - start
  const after = process.memoryUsage()
  const grown = Math.max(
    after.arrayBuffers - arrayBuffers,
    after.heapUsed - heapUsed,
    (process.resourceUsage().maxRSS - peak) * 1024
  )
  assert.isBelow(millis, 2000, "milliseconds")
  assert.isBelow(grown, most, "bytes")
  return outcome
}

const refused = (body: () => unknown, problem: RegExp): void => {
  const outcome = cheaply(body)
  assert.instanceOf(outcome, DecodeError)
  assert.match((outcome as DecodeError).problem, problem)
}

const decode = (...messages: ReadonlyArray<Uint8Array>) => {
  const decoder = Pgoutput.make({ publications: ["p"] }).makeDecoder(portableText)
  const batch = new Batch(new Run())
  for (const bytes of messages) decodeOne(decoder, bytes, batch)
  return batch.changes
}

describe("a count that promises more than follows", () => {
  const most = 0x7fff_ffff
  const many = 0x800_0000

  it("of relations in a truncate is refused", () => {
    refused(() => decode(begin(), message("T", [4, 0x8000_0000], [1, 0], [4, 1])), /truncate of 2147483648 relations/)
  })

  it("of columns in a relation is refused, and 65,535 columns that do follow are a relation", () => {
    refused(
      () => decode(begin(), message("R", [4, 1], { cstring: "s" }, { cstring: "t" }, "d", [2, 0xffff], [1, 0])),
      /./
    )
    const columns = Array.from({ length: 0xffff }, (_, index) =>
      message([1, 0], { cstring: `c${index}` }, [4, 25], [4, -1])
    )
    const head = message("R", [4, 1], { cstring: "s" }, { cstring: "t" }, "d", [2, 0xffff])
    const described = Buffer.concat([head, ...columns])
    const empty = message("I", [4, 1], "N", [2, 0xffff], Buffer.alloc(0xffff, "n"))
    const changes = cheaply(() => decode(begin(), described, empty), 512 * described.length)
    assert.strictEqual((changes as ReturnType<typeof decode>).length, 2)
  })

  it("of columns in a row is refused", () => {
    const described = relation(1, [{ name: "a", typeOid: 25 }])
    refused(() => decode(begin(), described, message("I", [4, 1], "N", [2, 0xffff])), /a row of 65535 columns/)
  })

  it("of bytes in a value or a message's content is refused", () => {
    const described = relation(1, [{ name: "a", typeOid: 25 }])
    refused(() => decode(begin(), described, message("I", [4, 1], "N", [2, 1], "t", [4, most])), /reaches beyond/)
    refused(() => decode(message("M", [1, 0], [8, 1], { cstring: "p" }, [4, most])), /2147483647 bytes wanted/)
  })

  const binaries: Readonly<Record<string, readonly [typeOid: number, ...parts: ReadonlyArray<Part>]>> = {
    "elements in an array": [1007, [4, 1], [4, 0], [4, 23], [4, many], [4, 1]],
    "elements in an array of arrays": [1007, [4, 2], [4, 0], [4, 23], [4, 0x10000], [4, 1], [4, 0x10000], [4, 1]],
    "empty arrays in an array": [1007, [4, 2], [4, 0], [4, 23], [4, many], [4, 1], [4, 1], [4, 1], [4, 4], [4, 0]],
    "elements in a vector": [22, [4, 1], [4, 0], [4, 21], [4, many], [4, 0]],
    "dimensions of an array": [1007, [4, many], [4, 0], [4, 23]],
    "ranges in a multirange": [4451, [4, many]],
    "lexemes in a tsvector": [3614, [4, many], { cstring: "a" }, [2, 0xffff]],
    "positions of a lexeme": [3614, [4, 1], { cstring: "a" }, [2, 0xffff]],
    "points in a polygon": [604, [4, many]],
    "points in a path": [602, [1, 1], [4, many]],
    "transactions in a snapshot": [5038, [4, many], [8, 1], [8, 2]],
    "bits of a bit string": [1560, [4, most], [1, 1]],
    "digits of a numeric": [1700, [2, 0xffff], [2, 0], [2, 0], [2, 0], [2, 1]]
  }
  for (const [what, [typeOid, ...parts]] of Object.entries(binaries)) {
    it(`of ${what} is refused`, () => {
      const { text } = binaryTypeForOid(typeOid, undefined, new Set())!
      refused(() => text(ByteReader.over(message(...parts))), /./)
    })
  }

  it("of digits that a numeric needs not send is the longest number there is, and no longer", () => {
    const { text } = binaryTypeForOid(1700, undefined, new Set())!
    const bytes = message([2, 1], [2, 0x7fff], [2, 0], [2, 0x3fff], [2, 9999])
    assert.isBelow(weigh(cheaply(() => text(ByteReader.over(bytes)))), 150_000)
  })

  it("of bytes in a frame takes memory as they come and not before", () => {
    let allocated = 0
    const real = Uint8Array
    vi.stubGlobal(
      "Uint8Array",
      new Proxy(real, {
        construct: (target, args: [number]) => {
          if (typeof args[0] === "number") allocated += args[0]
          return new target(...args)
        }
      })
    )
    try {
      const frames = new Frames()
      frames.push(real.of(0x64, 0x3f, 0xff, 0xff, 0xff, 1, 2, 3))
      assert.isFalse(frames.next())
      assert.isBelow(allocated, 300_000)
      for (let read = 0; read < 64; read++) {
        frames.push(new real(65_536))
        assert.isFalse(frames.next())
        assert.isBelow(allocated, 8 * 65_536 * (read + 2), "all that was ever allocated, growing included")
      }
    } finally {
      vi.unstubAllGlobals()
    }
  })
})

const long = (text: string, length = megabyte): string => text.repeat(Math.ceil(length / text.length))
const place = { schema: "s", relation: "t", column: "c", type: "x" }
const byOid = (oid: number): TypeDecoder => decoderForOid(oid).decode

describe("a megabyte of text", () => {
  /** Whether it is a value or refused is each type's business; that it is told soon is this test's. */
  const texts: Readonly<Record<string, readonly [decode: TypeDecoder, text: string]>> = {
    "that is nearly a float": [byOid(701), `${long("1")}x`],
    "that is nearly a float with decimals": [byOid(701), `${long("1")}.${long("1")}x`],
    "that is nearly a float with an exponent": [byOid(701), `1e${long("1")}x`],
    "that is nearly an integer": [byOid(23), `${long("1")}x`],
    "that is nearly a bigint": [byOid(20), `-${long("1")}`],
    "that is nearly bytes in hex": [byOid(17), `\\x${long("0")}g`],
    "that is nearly bytes in octal": [byOid(17), long("\\001\\")],
    "of brackets in JSON": [byOid(3802), long("[")],
    "of arrays within arrays in JSON": [byOid(3802), `${long("[")}${long("]")}`],
    "of bounds before an array": [byOid(1007), long("[1:2]")],
    "of digits in the bounds of an array": [byOid(1007), `[${long("1")}`],
    "of braces in an array": [byOid(1009), long("{")],
    "of backslashes in an array": [byOid(1009), `{${long("\\")}`],
    "of quoted backslashes in an array": [byOid(1009), `{"${long("\\")}`],
    "of empty items in an array": [byOid(1009), `{${long('"",')}""}`],
    "of digits in a timestamp": [timestampMicros, long("2")],
    "of zeros behind a timestamp": [timestampMicros, `2024-02-29 12:34:56.${long("0")}`]
  }
  for (const [what, [decodeText, text]] of Object.entries(texts)) {
    it(`${what} costs no more than its length`, () => {
      const outcome = cheaply(() => guarded(decodeText, place, "fail")(text), 64 * text.length)
      if (outcome instanceof Error) assert.instanceOf(outcome, DecodeError)
    })
  }

  const names = ["(", "((", "( )", '"', "interval ", "interval a", "a.", "[]", "a(1", " ("]
  for (const name of names) {
    it(`in which ${JSON.stringify(name)} comes again and again is the name of a type of no cost`, () => {
      cheaply(() => decoderForName(long(name)).decode("1"))
      cheaply(() => decoderForName(`interval ${long(name)}[]`).decode("1"))
    })
  }

  it("of brackets, backslashes or quotes is no message of wal2json, and soon told so", () => {
    for (const text of ["[", '{"a":', "\\", '"', '"\\', '"\\"', '["",', '{"action":"', "[1,"]) {
      assert.instanceOf(
        cheaply(() => parseJsonText(long(text)), 128 * megabyte),
        DecodeError
      )
    }
  })

  it("of fields in an ErrorResponse is a ServerMessage", () => {
    const fields = Buffer.concat([Buffer.from(long("Mx\0")), Buffer.from([0])])
    cheaply(() => decodeServerMessage(ByteReader.over(fields)), 128 * megabyte)
  })
})

describe("a row of wal2json with more columns than any table", () => {
  const names = Array.from({ length: 20_000 }, (_, index) => `c${index}`)
  const transaction = (row: string) => [
    '{"action":"B","xid":1,"timestamp":"2026-11-23 01:21:20.038204+00","lsn":"0/10","nextlsn":"0/20"}',
    row
  ]
  const columns = (of: ReadonlyArray<string>) =>
    `[${of.map((name) => `{"name":"${name}","type":"text","typeoid":25,"value":"x"}`).join(",")}]`

  it("is told soon, however its old row differs from its new one", () => {
    const identities = [names, names.slice(10_000), names.map((name) => `old_${name}`), [...names].reverse()]
    for (const identity of identities) {
      const update = `{"action":"U","xid":1,"schema":"s","table":"t","columns":${columns(names)},"identity":${columns(identity)},"pk":[]}`
      const outcome = cheaply(() => decodeAll(transaction(update)), 256 * megabyte)
      if (outcome instanceof Error) assert.instanceOf(outcome, DecodeError)
    }
  })

  it("keeps one copy of its table's name for all of them", () => {
    const name = long("s", 256 * 1024)
    const insert = `{"action":"I","xid":1,"schema":"${name}","table":"t","columns":${columns(names.slice(0, 5000))},"pk":[]}`
    cheaply(() => decodeAll(transaction(insert)), 64 * megabyte)
  })
})
