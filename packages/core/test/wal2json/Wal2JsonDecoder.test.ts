import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { NextLsn } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import { goldens, type Scenario } from "../fixtures/wal2json.ts"
import {
  brief,
  bytesOf,
  changesOf,
  decodeAll,
  type Format,
  makeDecode,
  messagesOf,
  optionsOf,
  relationsOf
} from "./decodeMessages.ts"

const formats: ReadonlyArray<Format> = [2, 1]
const scenarios = Object.keys(goldens) as Array<Scenario>

const rowsOf = (scenario: Scenario, format: Format) =>
  changesOf(scenario, format).flatMap((change) => (change._tag === "Insert" ? [change.row] : []))

const failureOf = (evaluate: () => unknown): unknown => {
  try {
    return evaluate()
  } catch (error) {
    return error
  }
}

/** The one message of a scenario that stands for `action`, to be changed by hand. */
const messageOf = (scenario: Scenario, action: string): string =>
  messagesOf(scenario, 2).find((message) => message.includes(`"action":"${action}"`))!

for (const format of formats) {
  describe(`Wal2JsonDecoder, format ${format}`, () => {
    it("keeps int8 at its bounds, oid at its end and numeric of 400 digits", () => {
      const rows = rowsOf("integers", format)
      assert.deepStrictEqual(
        rows.map((row) => row.c),
        [-9223372036854775808n, 9223372036854775807n, 9007199254740993n]
      )
      assert.deepStrictEqual(rows[0], {
        a: -32768,
        b: -2147483648,
        c: -9223372036854775808n,
        d: 4294967295,
        e: "0.10",
        f: "1.00",
        g: "$1.00"
      })
      assert.strictEqual(rows[1]?.e, "-12345678901234567890.12345678901234567890")
      assert.strictEqual(rows[2]?.e, `${"1234567890".repeat(40)}.5`)
    })

    it("keeps floats to the last bit, and the sign of zero", () => {
      const rows = rowsOf("floats", format)
      assert.deepStrictEqual(rows[0], { a: 0.1, b: 0.1 })
      assert.deepStrictEqual(rows[1], { a: -0, b: -0 })
      assert.deepStrictEqual(rows[2], { a: 3.4028235e38, b: Number.MAX_VALUE })
      assert.deepStrictEqual(rows[3], { a: 1e-45, b: Number.MIN_VALUE })
      assert.deepStrictEqual(rows[5], { a: 1, b: 123456789012345680000 })
    })

    it("gives null for NaN and infinity, which wal2json loses", () => {
      assert.deepStrictEqual(rowsOf("specials", format), Array(3).fill({ a: null, b: null, c: null }))
    })

    it("keeps text, bytea, json and null as they were", () => {
      const [first, empty, nulls] = rowsOf("texts", format)
      assert.strictEqual(first?.a, 'quote " back \\ tab \t line \n bell \x07 é 😀 \u2028')
      assert.strictEqual(first?.c, "ch   ")
      assert.deepStrictEqual(first?.d, new Uint8Array([0, 0xff, 0x5c, 0x78]))
      assert.strictEqual(first?.e, true)
      assert.deepStrictEqual(first?.f, { a: "A" })
      assert.propertyVal(first?.g, "s", '"q"')
      assert.deepInclude(empty, { a: "", d: new Uint8Array(0), e: false, f: null, g: "s", h: null })
      assert.deepStrictEqual(new Set(Object.values(nulls ?? {})), new Set([null]))
      assert.strictEqual(Object.keys(nulls ?? {}).length, 9)
    })

    it("gives json as text where the types say so", () => {
      const [change] = changesOf("texts", format, { ...optionsOf(format), types: { json: "text" } }).filter(
        (each) => each._tag === "Insert"
      )
      assert.strictEqual(change?.row.f, '{"a": 1.10, "a": "A"}'.replace("A", "\\u0041"))
      assert.strictEqual(change?.row.g, '{"s": "\\"q\\"", "big": 12345678901234567890}')
    })

    it("keeps times, infinity and years before Christ as PostgreSQL's text", () => {
      assert.deepStrictEqual(rowsOf("times", format)[0], {
        a: "infinity",
        b: "24:00:00",
        c: "04:05:06+05:30",
        d: "-infinity",
        e: "0044-03-15 12:00:00+00 BC",
        f: "1 day 02:03:04.5"
      })
    })

    it("decodes arrays by their element, domains by their base type, and the rest as text", () => {
      assert.deepStrictEqual(rowsOf("arrays", format), [
        {
          a: [1, null, 3],
          b: [9007199254740993n],
          c: [
            ["a", 'b,"c'],
            ["", null]
          ],
          d: [new Uint8Array([0, 0xff])],
          e: "ok",
          f: "{sad,ok}",
          g: 5,
          h: new Uint8Array([0, 0xff]),
          i: true,
          j: '(1,"a b")',
          k: "[1,5)",
          l: ["1.10", "2.00"],
          m: "101"
        }
      ])
    })

    it("takes replacements by type name and by OID, for quoted names too", () => {
      const shout = (text: string) => text.toUpperCase()
      const byName = new Map([
        ["mood", shout],
        ["Mood", shout],
        ["varbit", shout]
      ])
      const types = { byName, byOid: new Map([[3904, () => "range"]]) }
      const options = { ...optionsOf(format), types }
      const first = (scenario: Scenario) =>
        changesOf(scenario, format, options).flatMap((change) => (change._tag === "Insert" ? [change.row] : []))[0]
      assert.deepInclude(first("arrays"), { e: "OK", f: ["SAD", "OK"], k: "range" })
      assert.deepStrictEqual(first("quotedTypes"), { a: "OK", b: ["OK"] })
    })

    it("decodes by OID alone where types are not named", () => {
      assert.deepStrictEqual(rowsOf("withoutTypes", format), [
        { a: "ok", b: 1, c: "x", d: new Uint8Array([0, 0xff]), e: "1.10" }
      ])
    })

    it("tells the old key when the key changed, and only then", () => {
      assert.deepStrictEqual(brief(changesOf("identityDefault", format)), [
        ["I", { a: 1, b: "x" }],
        ["U", { a: 1, b: "y" }],
        ["U", { a: 1, b: "y" }],
        ["U", { a: 2, b: "y" }, { Key: { a: 1 } }],
        ["D", { Key: { a: 2 } }]
      ])
      assert.deepStrictEqual(brief(changesOf("identityIndex", format)).slice(1), [
        ["U", { a: 1, b: 1, c: "y" }],
        ["U", { a: 1, b: 2, c: "y" }, { Key: { b: 1 } }],
        ["D", { Key: { b: 2 } }]
      ])
    })

    it("hears nothing of updates and deletes that have no identity", () => {
      assert.deepStrictEqual(brief(changesOf("identityMissing", format)), [
        ["I", { a: 1 }],
        ["I", { a: 3 }]
      ])
    })

    it("lists unchanged TOAST columns apart, which are neither null nor empty", () => {
      const big = "x".repeat(2100)
      const other = "z".repeat(2100)
      assert.deepStrictEqual(brief(changesOf("toast", format)), [
        ["I", { id: 1, big, n: 1, big2: "y".repeat(2200) }],
        ["U", { id: 1, n: 2 }, ["big", "big2"]],
        ["U", { id: 1, big: other, n: 2 }, ["big2"]],
        ["U", { id: 2, n: 2 }, ["big", "big2"], { Key: { id: 1 } }],
        ["U", { id: 2, n: 2, big2: null }, ["big"]],
        ["U", { id: 2, n: 3, big2: null }, ["big"]],
        ["D", { Key: { id: 2 } }]
      ])
      assert.deepStrictEqual(brief(changesOf("toastFull", format))[1], [
        "U",
        { id: 1, n: 2 },
        ["big"],
        { Full: { id: 1, big, n: 1 } }
      ])
    })

    it("leaves a TOAST column out that this stream has never heard of, and lists it once it has", () => {
      assert.deepStrictEqual(brief(changesOf("toastUnseen", format)), [
        ["U", { id: 1, n: 2 }],
        ["I", { id: 2, big: "short", n: 1 }],
        ["U", { id: 1, n: 3 }, ["big"]]
      ])
    })

    it("follows columns that come, go and change, with a relation before the first row of each shape", () => {
      assert.deepStrictEqual(brief(changesOf("columns", format)).slice(0, 12), [
        ["I", { a: 1, gone: 1 }],
        ["R", "a* gone", "a* gone b"],
        ["I", { a: 2, gone: 2, b: "x" }],
        ["R", "a* gone b", "a* b"],
        ["U", { a: 1, b: "y" }],
        ["I", { a: 3, b: "z" }],
        ["R", "a* b", "a* b"],
        ["U", { a: 1, b: "w" }],
        ["R", "a* b", "a* b"],
        ["I", { a: 4, b: "v" }],
        ["U", { a: 5 }, ["b"], { Key: { a: 4 } }],
        ["R", "a* b", "a*"]
      ])
    })

    it("keeps hostile names exact and the prototype untouched", () => {
      const [row] = rowsOf("names", format)
      assert.deepStrictEqual(Object.entries(row ?? {}), [
        ["__proto__", 1],
        ["constructor", "x"],
        ['a "b".c, é😀', "y"],
        ["select", 2]
      ])
      assert.strictEqual(Object.getPrototypeOf(row), Object.prototype)
      const [relation] = relationsOf(changesOf("names", format))
      assert.strictEqual(relation?.schema, 'my.schema "q" é')
      assert.strictEqual(relation?.name, "__proto__")
    })

    it("gives kept subtransactions in their order and nothing of what was rolled back", () => {
      assert.deepStrictEqual(
        rowsOf("subtransactions", format),
        [1, 3, 4].map((a) => ({ a }))
      )
    })

    it("numbers a transaction's changes, and points each to its begin", () => {
      const changes = changesOf("columns", format)
      const begin = changes.find((change) => change._tag === "RelationChanged")!.begin
      const inside = changes.filter((change) => "begin" in change && change.begin === begin && "ordinal" in change)
      assert.deepStrictEqual(
        inside.map((change) => [change._tag, "ordinal" in change ? change.ordinal : -1]),
        [
          ["RelationChanged", 0],
          ["Insert", 0]
        ]
      )
    })

    it("acknowledges a transaction by the nextlsn that wal2json wrote, exactly", () => {
      const decode = makeDecode(optionsOf(format))
      for (const message of messagesOf("identityDefault", format)) {
        const { changes, delivered } = decode(message)
        const commit = changes.find((change) => change._tag === "Commit")
        assert.deepStrictEqual(delivered, commit === undefined ? [] : [commit.nextLsn])
        if (commit === undefined) continue
        const written = /"nextlsn":"([^"]+)"/.exec(message)?.[1]
        assert.strictEqual(Lsn.format(commit.nextLsn.lsn), written)
        assert.strictEqual(commit.endLsn, commit.nextLsn.lsn)
        assert.strictEqual(commit.commitLsn, commit.begin.commitLsn)
      }
    })

    it("knows the xid and the commit time of a transaction, and while it is open", () => {
      const decode = makeDecode(optionsOf(format))
      const [first] = messagesOf("identityDefault", format)
      const begin = decode(first!).changes[0]
      const written = JSON.parse(first!) as { readonly xid: number; readonly timestamp: string }
      if (begin?._tag !== "Begin") return assert.fail()
      assert.strictEqual(begin.xid, written.xid)
      assert.strictEqual(
        `${written.timestamp.replace(" ", "T").replace("+00", "").padEnd(26, "0")}Z`,
        PgTimestamp.format(begin.commitTime)
      )
      assert.strictEqual(decode.decoder.lastCommitTime, begin.commitTime)
      assert.strictEqual(decode.decoder.isOpen, format === 2)
    })

    it("says that a transaction came from elsewhere, when asked", () => {
      const options = { ...optionsOf(format), includeOrigin: true }
      assert.deepStrictEqual(brief(changesOf("origins", format, options)), [
        ["I", { a: 1 }],
        ["O", "1"],
        ["I", { a: 2 }]
      ])
      assert.deepStrictEqual(brief(changesOf("origins", format)).length, 2)
    })

    it("fails on the type names that wal2json writes unescaped, and quotes no value", () => {
      const error = failureOf(() => changesOf("brokenTypes", format))
      assert.instanceOf(error, DecodeError)
    })

    it("fails on a value that its decoder refuses with the column's name and not the value", () => {
      const types = {
        byName: new Map([
          [
            "text",
            (text: string) => {
              throw new Error(`secret ${text}`)
            }
          ]
        ])
      }
      const error = failureOf(() => changesOf("identityDefault", format, { ...optionsOf(format), types }))
      assert.instanceOf(error, DecodeError)
      assert.match((error as DecodeError).problem, /"b" of "public"\."t"/)
      assert.notMatch(JSON.stringify(error), /secret/)
    })

    it("fails on each truncation with DecodeError", () => {
      for (const scenario of scenarios) {
        const messages = messagesOf(scenario, format).map(bytesOf)
        for (const bytes of messages) {
          const step = Math.max(1, Math.floor(bytes.length / 60))
          for (let length = 0; length < bytes.length; length += step) {
            const error = failureOf(() => makeDecode(optionsOf(format))(bytes.subarray(0, length)))
            assert.instanceOf(error, DecodeError, `${scenario}, ${length} bytes`)
          }
        }
      }
    })

    it.prop(
      "takes any mutation of what wal2json wrote as a value or a DecodeError",
      {
        pick: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 })),
        at: Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 0.999_999 })),
        byte: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })),
        kind: Schema.Literals(["replace", "insert", "delete", "repeat"])
      },
      ({ at, byte, kind, pick }) => {
        const scenario = scenarios[pick % scenarios.length]!
        const messages = messagesOf(scenario, format).map(bytesOf)
        const chosen = pick % messages.length
        const bytes = messages[chosen]!
        const place = Math.floor(at * bytes.length)
        const head = Array.from(bytes.subarray(0, place))
        const tail = Array.from(bytes.subarray(kind === "insert" ? place : place + 1))
        const middle =
          kind === "delete" ? [] : kind === "repeat" ? Array.from(bytes.subarray(place, place + 20)) : [byte]
        messages[chosen] = Uint8Array.from([...head, ...middle, ...tail])
        const result = failureOf(() => decodeAll(messages, optionsOf(format)))
        if (!Array.isArray(result)) assert.instanceOf(result, DecodeError)
      },
      { arbitrary: { runs: 1500 } }
    )

    it.prop("takes any bytes as a DecodeError", { bytes: Schema.Uint8Array }, ({ bytes }) => {
      assert.instanceOf(
        failureOf(() => decodeAll([bytes], optionsOf(format))),
        DecodeError
      )
    })
  })
}

describe("Wal2JsonDecoder, format 2", () => {
  it("gives the whole row before under REPLICA IDENTITY FULL, with its nulls", () => {
    assert.deepStrictEqual(brief(changesOf("identityFull")), [
      ["I", { a: 1, b: "x", c: null }],
      ["U", { a: 1, b: "y", c: null }, { Full: { a: 1, b: "x", c: null } }],
      ["U", { a: 1, b: "y", c: "1.50" }, { Full: { a: 1, b: "y", c: null } }],
      ["U", { a: 2, b: "y", c: "1.50" }, { Full: { a: 1, b: "y", c: "1.50" } }],
      ["D", { Full: { a: 2, b: "y", c: "1.50" } }]
    ])
  })

  it("knows a whole row before even if a delete is the first that the stream hears of a table", () => {
    assert.deepStrictEqual(brief(changesOf("fullDeleteFirst")), [
      ["D", { Full: { a: 2, b: "x", c: "y" } }],
      ["D", { Full: { a: 1, b: "x", c: null } }]
    ])
  })

  it("tells where a transaction's commit record starts and ends", () => {
    const message = JSON.parse(messageOf("identityDefault", "B")) as { readonly lsn: string; readonly nextlsn: string }
    const [begin, commit] = changesOf("identityDefault")
    if (begin?._tag !== "Begin" || commit?._tag !== "Commit") return assert.fail()
    assert.strictEqual(Lsn.format(begin.commitLsn), message.lsn)
    assert.strictEqual(Lsn.format(commit.endLsn), message.nextlsn)
    assert.isTrue(commit.commitLsn < commit.endLsn)
  })

  it("gathers the tables of one TRUNCATE, and keeps two statements apart", () => {
    assert.deepStrictEqual(brief(changesOf("truncate")).slice(1), [
      ["I", { a: 1 }],
      ["T", ["t1", "t2"]],
      ["T", ["t3"]],
      ["I", { a: 2 }]
    ])
    const [truncate] = changesOf("truncate").filter((change) => change._tag === "Truncate")
    assert.strictEqual(truncate?.ordinal, 1)
    assert.strictEqual(truncate?.cascade, false)
  })

  it("gives a message the LSN that pg_logical_emit_message returned, and acknowledges one that stands alone by it", () => {
    const messages = changesOf("messages").filter((change) => change._tag === "Message")
    assert.deepStrictEqual(
      messages.map((message) => [message.prefix, message.transactional]),
      [
        ["alone", false],
        ["within", true],
        ["", true],
        ["alone", false],
        ["bytes", false],
        ["zero", false]
      ]
    )
    // The fifth was of a transaction that was rolled back.
    const returned = goldens.messages.returned.filter((_, index) => index !== 4)
    assert.deepStrictEqual(
      messages.map((message) => Lsn.format(message.lsn)),
      returned
    )
    for (const message of messages) {
      assert.strictEqual(message.nextLsn?.lsn, message.transactional ? undefined : message.lsn)
      assert.strictEqual(message.begin === undefined, !message.transactional)
    }
  })

  it("keeps a message's bytes that are not UTF-8, and loses what follows a zero byte", () => {
    const messages = changesOf("messages").filter((change) => change._tag === "Message")
    const contentOf = (prefix: string) => messages.find((message) => message.prefix === prefix)?.content
    assert.deepStrictEqual(contentOf("bytes"), new Uint8Array([0x61, 0xff, 0x62]))
    assert.deepStrictEqual(contentOf("zero"), new Uint8Array([0x61]))
  })

  it("refuses bytes that are not UTF-8 anywhere but in a message's content", () => {
    const latin1 = (message: string) => Uint8Array.from(message, (character) => character.charCodeAt(0))
    const message = messageOf("messages", "M")
    const begin = messageOf("identityDefault", "B")
    const insert = messageOf("identityDefault", "I")
    assert.match(String(failureOf(() => decodeAll([latin1(message.replace('"alone"', '"\xff"'))]))), /not UTF-8/)
    const within = messagesOf("identityDefault", 2).slice(0, messagesOf("identityDefault", 2).indexOf(insert))
    assert.match(String(failureOf(() => decodeAll([...within, latin1(insert.replace('"x"', '"\xff"'))]))), /not UTF-8/)
    assert.match(String(failureOf(() => decodeAll([latin1(begin.replace("{", '{"\xff":1,'))]))), /not UTF-8/)
  })

  it("refuses a change outside a transaction, a begin within one, and a commit of none", () => {
    const begin = messageOf("identityDefault", "B")
    const outside = [
      messageOf("identityDefault", "I"),
      messageOf("identityDefault", "U"),
      messageOf("identityDefault", "D"),
      messageOf("truncate", "T"),
      messageOf("identityDefault", "C"),
      messagesOf("messages", 2).find((message) => message.includes('"transactional":true'))!
    ]
    for (const message of outside) {
      assert.match(String(failureOf(() => decodeAll([message]))), /outside any transaction/)
      assert.match(
        String(failureOf(() => decodeAll([begin, message.replace(/"xid":\d+/, '"xid":1')]))),
        /another transaction/
      )
    }
    assert.match(String(failureOf(() => decodeAll([begin, begin]))), /begins within another/)
    assert.match(String(failureOf(() => decodeAll([begin, messageOf("messages", "M")]))), /within one/)
    const elsewhere = messageOf("identityDefault", "C").replace(/"nextlsn":"[^"]+"/, '"nextlsn":"F/F"')
    assert.match(String(failureOf(() => decodeAll([begin, elsewhere]))), /elsewhere/)
  })

  it("places an error within the bytes it was given", () => {
    const error = failureOf(() => makeDecode()("{broken"))
    assert.propertyVal(error, "offset", 26)
  })

  it("decodes numbers that come as strings, with NaN and infinity", () => {
    const asStrings = messagesOf("specials", 2).map((message) =>
      message
        .replace('"value":null', '"value":"NaN"')
        .replace('"value":null', '"value":"-Infinity"')
        .replace('"value":null', '"value":"NaN"')
    )
    const [insert] = decodeAll(asStrings, { numericDataTypesAsString: true }).filter(
      (change) => change._tag === "Insert"
    )
    assert.deepStrictEqual(insert?.row, { a: Number.NaN, b: Number.NEGATIVE_INFINITY, c: "NaN" })
  })

  it("takes an OID above 2^31, which wal2json prints with a sign", () => {
    const messages = messagesOf("integers", 2).map((message) => message.replaceAll('"typeoid":790', '"typeoid":-96'))
    const types = { byOid: new Map([[4294967200, () => "decoded"]]) }
    const [insert] = decodeAll(messages, { types }).filter((change) => change._tag === "Insert")
    assert.strictEqual(insert?.relation.columns.at(-1)?.typeOid, 4294967200)
    assert.strictEqual(insert?.row.g, "decoded")
  })

  it("remembers no tables of another stream", () => {
    const plugin = Wal2Json.make()
    const messages = messagesOf("columns", 2)
    const tags = [messages, messages.slice(-3)].map((each) => decodeAll(each, plugin).map((change) => change._tag))
    assert.strictEqual(tags[0]?.at(-3), "RelationChanged")
    assert.deepStrictEqual(tags[1], ["Begin", "Insert", "Commit"])
  })
})

describe("Wal2JsonDecoder, format 1", () => {
  const messages = messagesOf("messages", 1).filter((message) => !message.startsWith("hex:"))

  it("gives a whole transaction or nothing of it to acknowledge", () => {
    const [first] = messagesOf("identityDefault", 1)
    const { changes, delivered } = makeDecode(optionsOf(1))(first!)
    assert.strictEqual(changes[0]?._tag, "Begin")
    assert.strictEqual(changes.at(-1)?._tag, "Commit")
    assert.strictEqual(delivered.length, 1)
  })

  it("acknowledges a message outside any transaction by what came before it, never by more", () => {
    const changes = decodeAll(messages, optionsOf(1))
    const units = changes.flatMap((change) =>
      "nextLsn" in change && change.nextLsn instanceof NextLsn ? [change] : []
    )
    assert.deepStrictEqual(
      units.map((change) => change._tag),
      ["Message", "Commit", "Message", "Message"]
    )
    const end = units[1]!.nextLsn!.lsn
    assert.deepStrictEqual(
      units.map((change) => change.nextLsn?.lsn),
      [Lsn.zero, end, end, end]
    )
  })

  it("reads over the comma that wal2json leaves before a message after a longer transaction", () => {
    assert.isTrue(messages.some((message) => message.startsWith('{"change":[,')))
    assert.deepStrictEqual(brief(decodeAll(messages, optionsOf(1))), [
      ["M", false, "alone", "hello é"],
      ["M", true, "within", "hello"],
      ["M", true, "", ""],
      ["M", false, "alone", "kept"],
      ["M", false, "zero", "a"]
    ])
  })

  it("gives an old row without its nulls as a key, for it cannot tell them from columns of no identity", () => {
    assert.deepStrictEqual(brief(changesOf("identityFull", 1)).slice(1), [
      ["U", { a: 1, b: "y", c: null }, { Key: { a: 1, b: "x" } }],
      ["U", { a: 1, b: "y", c: "1.50" }],
      ["U", { a: 2, b: "y", c: "1.50" }, { Full: { a: 1, b: "y", c: "1.50" } }],
      ["D", { Full: { a: 2, b: "y", c: "1.50" } }]
    ])
  })

  it("hears nothing of truncates", () => {
    assert.deepStrictEqual(
      brief(changesOf("truncate", 1)).map((change) => (change as ReadonlyArray<unknown>)[0]),
      ["I", "I", "I"]
    )
  })

  it("refuses a change that stands where only a message may", () => {
    const [insert] = messagesOf("identityDefault", 1).filter((message) => message.includes('"insert"'))
    const alone = `{"change":${/"change":(\[.*\])/.exec(insert!)?.[1]}}`
    assert.instanceOf(
      failureOf(() => decodeAll([alone], optionsOf(1))),
      DecodeError
    )
  })
})
