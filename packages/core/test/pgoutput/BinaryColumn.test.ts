import { assert, describe, it } from "@effect/vitest"
import type { Change, Row } from "../../src/change/Change.ts"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch, type Decoder } from "../../src/change/OutputPlugin.ts"
import { makeBinaryColumn } from "../../src/pgoutput/BinaryColumn.ts"
import { compileRowReader } from "../../src/pgoutput/CompiledRowReader.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { interpretedRowReader } from "../../src/pgoutput/RowReader.ts"
import { type ColumnReader, type RowReader, TupleScratch } from "../../src/pgoutput/Tuple.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { binaryTypeForOid } from "../../src/values/BinaryType.ts"
import { decoderForOid, type TypeDecoders } from "../../src/values/TypeDecoder.ts"
import { binaryGoldens, binaryMatrixTypes, goldens, matrixTypes } from "../fixtures/goldens.ts"
import {
  begin,
  decodeAll,
  decodeErrorOf,
  decodeOne,
  insert,
  message,
  type Part,
  relation,
  type
} from "../support/PgoutputBytes.ts"

const enums = ["golden.mood"]
const binaryDecoder = (types?: TypeDecoders): Decoder =>
  Pgoutput.make({ publications: ["p"], types, format: "binary", enums }).makeDecoder(portableText)

const bytesOf = (messages: ReadonlyArray<string>) =>
  messages.map((each) => Uint8Array.from(Buffer.from(each, "base64")))
const insertsOf = (changes: ReadonlyArray<Change>): ReadonlyArray<Row> =>
  changes.flatMap((change) => (change._tag === "Insert" ? [change.row] : []))
const decodeBinary = (name: keyof typeof binaryGoldens, types?: TypeDecoders) =>
  decodeAll(bytesOf(binaryGoldens[name]), types, binaryDecoder(types))

describe("what PostgreSQL 18 said in binary format", () => {
  const textRows = (types?: TypeDecoders) => insertsOf(decodeAll(bytesOf(goldens.typeMatrix), types))
  const marked: TypeDecoders = {
    byName: new Map(["integer", "timestamptz", "numeric", "text", "jsonb"].map((name) => [name, (text) => [text]]))
  }
  for (const [what, types] of [
    ["by default", {}],
    ["as text", { json: "text", arrays: "text" }],
    ["by decoders of one's own", marked]
  ] as const) {
    it(`is what it says in text format, ${what}`, () => {
      const text = textRows(types)
      const binary = insertsOf(decodeBinary("typeMatrix", types))
      assert.strictEqual(binary.length, 3)
      for (const [index, row] of binary.entries()) {
        for (const [column, name] of binaryMatrixTypes.entries()) {
          assert.deepStrictEqual(row[`c${column}`], text[index]![`c${matrixTypes.indexOf(name)}`], name)
        }
      }
    })
  }

  it("has the whole old row under full identity", () => {
    const changes = decodeBinary("typeMatrix")
    const updates = changes.flatMap((change) => (change._tag === "Update" ? [change] : []))
    const rows = insertsOf(changes)
    assert.deepStrictEqual(
      updates.map(({ old }) => old),
      rows.map((row) => ({ _tag: "Full" as const, row }))
    )
    assert.deepStrictEqual(
      updates.map(({ row }) => row),
      rows.map((row) => ({ ...row, c0: null }))
    )
  })

  it("takes enums that are named, their arrays and domains, and what the server sends as text all the same", () => {
    const expected = { a: 7, m: "ok", ms: '{sad,"so, happy",NULL}', l: "sad", acl: "pg_monitor=r/pg_monitor" }
    assert.deepStrictEqual(insertsOf(decodeBinary("userTypes")), [expected])
    const types: TypeDecoders = { byName: new Map([["mood", (text) => `:${text}`]]) }
    assert.deepStrictEqual(insertsOf(decodeBinary("userTypes", types)), [
      { ...expected, m: ":ok", ms: [":sad", ":so, happy", null], l: ":sad" }
    ])
  })

  it("leaves out unchanged TOAST values, and names them", () => {
    const [, toasted] = decodeBinary("toastUnchanged").filter(({ _tag }) => _tag === "Insert" || _tag === "Update")
    assert.deepInclude(toasted, { row: { a: 1, small: "other" }, unchanged: ["big"] })
  })

  it("fails in a stream that asked for text", () => {
    const error = decodeErrorOf(() => decodeAll(bytesOf(binaryGoldens.toastUnchanged)))
    assert.include(error.problem, "in binary format, which was not asked for")
  })
})

describe("a type whose binary format is not understood", () => {
  const refusal = (typeOid: number, ...before: ReadonlyArray<Uint8Array>) =>
    decodeErrorOf(() => decodeAll([...before, relation(1, [{ name: "c", typeOid }])], {}, binaryDecoder())).problem

  it("fails at its relation, by column and type, with the cure", () => {
    assert.strictEqual(
      refusal(790),
      'column "c" of "public"."t" is of a type, money, whose binary format is not understood: use format "text", or name it among enums if it is one'
    )
    assert.include(refusal(3615), "tsquery")
    assert.include(refusal(1034), "aclitem")
    assert.include(refusal(2211), "regtype[]")
    assert.include(refusal(99_999), "type with OID 99999")
    assert.include(refusal(16_400, type(16_400, "public", "pair")), "is of a type, pair,")
    assert.include(refusal(16_400, type(16_400, "other", "mood")), "is of a type, mood,")
    assert.include(refusal(16_401, type(16_401, "other", "_mood")), "is of a type, _mood,")
  })

  it("fails under a decoder of one's own too, as that wants text", () => {
    const types: TypeDecoders = { byOid: new Map([[790, (text) => text]]) }
    assert.include(
      decodeErrorOf(() => decodeAll([relation(1, [{ name: "c", typeOid: 790 }])], types, binaryDecoder(types))).problem,
      "money"
    )
  })

  it("is no matter in text format", () => {
    const rows = insertsOf(decodeAll([relation(1, [{ name: "c", typeOid: 790 }]), begin(), insert(1, "$1.00")]))
    assert.deepStrictEqual(rows, [{ c: "$1.00" }])
  })
})

/** Columns of a stream in binary format. */
const columnsOf = (oids: ReadonlyArray<number>, types: TypeDecoders = {}): ReadonlyArray<ColumnReader> =>
  oids.map((oid, index) => {
    const decoder = decoderForOid(oid, types)
    const binary = makeBinaryColumn(binaryTypeForOid(oid, undefined, new Set()) ?? assert.fail(String(oid)), decoder)
    const place = { schema: "public", relation: "t", column: `c${index}`, type: String(oid) }
    return { name: `c${index}`, isRead: true, decoder, binary, place, onUndecodable: types.onUndecodable }
  })

/** Not under `npm run unit:nocodegen`, where there is no compiled reader to test. */
const canCompile = compileRowReader([]) !== undefined

const compiled = (columns: ReadonlyArray<ColumnReader>): RowReader =>
  compileRowReader(columns) ?? assert.fail("no code")

/** Both readers, where there are two. */
const makers: ReadonlyArray<readonly [name: string, make: (columns: ReadonlyArray<ColumnReader>) => RowReader]> = [
  ["the loop", interpretedRowReader],
  ...(canCompile ? [["the compiled reader", compiled] as const] : [])
]

const readBytes = (read: RowReader, bytes: Uint8Array): Row => {
  const whole = Buffer.concat([Buffer.from("bbb"), bytes, Buffer.from("nnnnnnnn")])
  const reader = new ByteReader().reset(whole, 3, 3 + bytes.length)
  const row = read(reader, new TupleScratch(), undefined)
  reader.expectEnd()
  assert.strictEqual(reader.end, 3 + bytes.length)
  return row
}

const value = (...parts: ReadonlyArray<Part>): ReadonlyArray<Part> => {
  const bytes = message(...parts)
  return ["b", [4, bytes.length], bytes]
}
const one = (...parts: ReadonlyArray<Part>) => message([2, 1], ...value(...parts))

for (const [name, make] of makers) {
  describe(`a binary row, read by ${name},`, () => {
    it("may hold values of either format, nulls, and what is unchanged", () => {
      const cells: ReadonlyArray<Part> = [...value([4, -5]), "t", [4, 2], "-5", "n", "u"]
      assert.deepStrictEqual(readBytes(make(columnsOf([23, 23, 23, 23])), message([2, 4], ...cells)), {
        c0: -5,
        c1: -5,
        c2: null
      })
    })

    it("steps over what is not read", () => {
      const columns = columnsOf([23, 25, 1114]).map((column, index) => ({ ...column, isRead: index === 1 }))
      const bytes = message([2, 3], ...value("not an int"), ...value("x"), ...value("no timestamp"))
      assert.deepStrictEqual(readBytes(make(columns), bytes), { c1: "x" })
    })

    const wrong: ReadonlyArray<readonly [what: string, oid: number, parts: ReadonlyArray<Part>]> = [
      ["a boolean of 2", 16, [[1, 2]]],
      ["a boolean of no bytes", 16, []],
      ["a smallint of four bytes", 21, [[4, 1]]],
      ["an integer of eight bytes", 23, [[8, 1]]],
      [
        "an integer of three bytes",
        23,
        [
          [2, 1],
          [1, 0]
        ]
      ],
      ["an oid of no bytes", 26, []],
      ["a bigint of four bytes", 20, [[4, 1]]],
      ["a real of eight bytes", 700, [[8, 1]]],
      ["a double of four bytes", 701, [[4, 1]]],
      ["a uuid of fifteen bytes", 2950, [new Uint8Array(15)]],
      ["a uuid of seventeen bytes", 2950, [new Uint8Array(17)]],
      ["a jsonb of version 2", 3802, [[1, 2], "{}"]],
      ["a jsonb of nothing", 3802, []],
      ["a timestamp cut short", 1114, [[4, 1]]],
      [
        "a numeric of more digits than bytes",
        1700,
        [
          [2, 9],
          [2, 0],
          [2, 0],
          [2, 0],
          [2, 1]
        ]
      ],
      [
        "an array of seven dimensions",
        1007,
        [
          [4, 7],
          [4, 0],
          [4, 23]
        ]
      ],
      [
        "an array of another type",
        1007,
        [
          [4, 1],
          [4, 0],
          [4, 25],
          [4, 1],
          [4, 1],
          [4, 4],
          [4, 1]
        ]
      ],
      [
        "an array of a billion elements",
        1007,
        [
          [4, 1],
          [4, 0],
          [4, 23],
          [4, 1_000_000_000],
          [4, 1]
        ]
      ],
      [
        "an array of a negative size",
        1007,
        [
          [4, 1],
          [4, 0],
          [4, 23],
          [4, -1],
          [4, 1]
        ]
      ],
      [
        "an array of many dimensions of many",
        1007,
        [[4, 6], [4, 1], [4, 23], ...Array.from({ length: 12 }, (): Part => [4, 0x7fff_ffff])]
      ],
      [
        "an element that leaves its array",
        1007,
        [
          [4, 1],
          [4, 0],
          [4, 23],
          [4, 1],
          [4, 1],
          [4, 40],
          [4, 1]
        ]
      ],
      [
        "a range whose bound leaves it",
        3904,
        [
          [1, 2],
          [4, 9],
          [4, 1],
          [4, 4],
          [4, 2]
        ]
      ]
    ]
    for (const [what, oid, parts] of wrong) {
      it(`fails on ${what}, by column and type and not by value, whatever the policy`, () => {
        for (const types of [{}, { onUndecodable: "text" }, { arrays: "text" }] as const) {
          const error = decodeErrorOf(() => readBytes(make(columnsOf([oid], types)), one(...parts)))
          assert.strictEqual(error.problem, `a value of column "c0" of "public"."t" that is no ${oid} in binary format`)
          assert.strictEqual(error.offset, 3 + 2 + 5)
        }
      })
    }

    it("says of a decoder's refusal what it says in text format, and may give the text", () => {
      const refuses: TypeDecoders = { byOid: new Map([[23, (text) => assert.fail(text)]]) }
      const array: ReadonlyArray<Part> = [
        [4, 1],
        [4, 0],
        [4, 23],
        [4, 1],
        [4, 0],
        [4, 4],
        [4, 1234]
      ]
      for (const [oid, parts, text] of [
        [23, [[4, 1234]], "1234"],
        [1007, array, "[0:0]={1234}"],
        [114, ["1234}"], "1234}"]
      ] as const) {
        const error = decodeErrorOf(() => readBytes(make(columnsOf([oid], refuses)), one(...parts)))
        assert.strictEqual(error.problem, `a value of column "c0" of "public"."t" that is no ${oid} its decoder takes`)
        assert.notInclude(`${error}${error.stack}${error.cause}`, "1234")
        const lenient = columnsOf([oid], { ...refuses, onUndecodable: "text" })
        assert.deepStrictEqual(readBytes(make(lenient), one(...parts)), { c0: text })
      }
    })

    it("holds none of the bytes it was read from", () => {
      const bytes = Buffer.from(one("abc"))
      const reader = new ByteReader().reset(bytes, 0, bytes.length)
      const row = make(columnsOf([17]))(reader, new TupleScratch(), undefined)
      bytes.fill(0)
      assert.deepStrictEqual(row, { c0: Uint8Array.from(Buffer.from("abc")) })
    })
  })
}

const random = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 0x1_0000_0000) * below)
  }
}

describe("damaged binary bytes", () => {
  const streams = Object.values(binaryGoldens).map(bytesOf)

  it("are a DecodeError when cut anywhere, and when a byte follows", () => {
    for (const messages of streams) {
      const described = messages.filter(([kind]) => kind === 0x52 || kind === 0x59)
      for (const bytes of messages) {
        if (![0x49, 0x55, 0x44].includes(bytes[0]!)) continue
        const before = [...described, begin()]
        for (let end = 0; end < bytes.length; end += bytes.length > 3000 ? 13 : 1) {
          decodeErrorOf(() => decodeAll([...before, bytes.subarray(0, end)], {}, binaryDecoder()))
        }
        decodeErrorOf(() => decodeAll([...before, message(bytes, [1, 0])], {}, binaryDecoder()))
      }
    }
  })

  it("are a value or a DecodeError, 20,000 times, and no more memory than they are worth", () => {
    const next = random(20_261_124)
    let failures = 0
    for (let round = 0; round < 20_000; ) {
      const messages = streams[next(streams.length)]!
      const decoder = binaryDecoder(next(2) === 0 ? {} : { arrays: "text", json: "text" })
      const batch = new Batch(new Run())
      for (const original of messages) {
        const bytes = Uint8Array.from(original)
        if ([0x49, 0x55, 0x44].includes(bytes[0]!)) {
          round += 1
          for (let hits = 1 + next(3); hits > 0; hits--) {
            const at = 6 + next(bytes.length - 6)
            bytes[at] = next(3) === 0 ? [0, 0x7f, 0x80, 0xff][next(4)]! : bytes[at]! ^ (1 << next(8))
          }
        }
        try {
          decodeOne(decoder, bytes, batch)
        } catch (error) {
          assert.instanceOf(error, DecodeError)
          failures += 1
        }
      }
    }
    assert.isAbove(failures, 5_000)
  })

  it.runIf(canCompile)("are the same to both readers: the same row, or the same error at the same byte", () => {
    const next = random(7)
    const oids = [16, 21, 23, 26, 20, 700, 701, 17, 25, 2950, 1700, 1184, 1007, 3802]
    const columns = columnsOf(oids)
    const cells: ReadonlyArray<Part> = [
      ...value([1, 1]),
      ...value([2, -2]),
      ...value([4, -5]),
      ...value([4, 0xffff_ffff]),
      ...value([8, -7n]),
      ...value([4, 0x3dcc_cccd]),
      ...value([8, 0x3fb9_9999_9999_999an]),
      ...value("raw"),
      ...value("naïve"),
      ...value(new Uint8Array(16).fill(0xa5)),
      ...value([2, 2], [2, 0], [2, 0x4000], [2, 2], [2, 12], [2, 3400]),
      ...value([8, 86_400_000_000n]),
      ...value([4, 1], [4, 1], [4, 23], [4, 2], [4, 1], [4, 4], [4, 1], [4, -1]),
      ...value([1, 1], '{"a":1}')
    ]
    const whole = message([2, oids.length], ...cells)
    const readers = makers.map(([, make]) => make(columns))
    const outcome = (read: RowReader, bytes: Uint8Array): unknown => {
      try {
        return readBytes(read, bytes)
      } catch (error) {
        assert.instanceOf(error, DecodeError)
        return [error.problem, error.offset]
      }
    }
    assert.deepStrictEqual(outcome(readers[0]!, whole), {
      c0: true,
      c1: -2,
      c2: -5,
      c3: 0xffff_ffff,
      c4: -7n,
      c5: 0.1,
      c6: 0.1,
      c7: Uint8Array.from(Buffer.from("raw")),
      c8: "naïve",
      c9: "a5a5a5a5-a5a5-a5a5-a5a5-a5a5a5a5a5a5",
      c10: "-12.34",
      c11: "2000-01-02 00:00:00+00",
      c12: [1, null],
      c13: { a: 1 }
    })
    let failures = 0
    for (let round = 0; round < 20_000; round++) {
      const bytes = Uint8Array.from(whole.subarray(0, next(4) === 0 ? next(whole.length) : whole.length))
      for (let hits = next(3); hits > 0 && bytes.length > 0; hits--) {
        bytes[next(bytes.length)] = [0x74, 0x6e, 0x75, 0x62, 0, 1, 0xff, next(256)][next(8)]!
      }
      const [loop, code] = readers.map((read) => outcome(read, bytes))
      assert.deepStrictEqual(code, loop)
      if (Array.isArray(loop)) failures += 1
    }
    assert.isAbove(failures, 3_000)
  })
})
