/**
 * Data that means harm, and is well formed: names that are properties of every object, values too deep or too large,
 * text that a terminal obeys. It arrives as what it is, or is refused by type; nothing of it runs, and nothing of it is
 * told.
 */
import * as Inspect from "node:util"
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Change, Delete, Insert, Update } from "../../src/change/Change.ts"
import type { ChangeInProgress } from "../../src/change/InProgress.ts"
import type { OutputPlugin } from "../../src/change/OutputPlugin.ts"
import { MessageMismatch } from "../../src/outbox/MessageError.ts"
import { decoder as outboxDecoder } from "../../src/outbox/OutboxChanges.ts"
import { make as makeMessage } from "../../src/outbox/OutboxMessage.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import {
  DecodeError,
  logText,
  ServerError,
  SlotAheadOfCheckpoint,
  SlotInvalidated,
  TransactionTooLarge
} from "../../src/ReplicationError.ts"
import { make as makeTable } from "../../src/table/Table.ts"
import { RowMismatch, TableMismatch } from "../../src/table/TableError.ts"
import { TypedChanges } from "../../src/table/TypedChanges.ts"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import { cpuMillis } from "../support/cpuMillis.ts"
import * as Fake from "../support/FakeWalSender.ts"
import { attack, ending, refused } from "./Hostile.ts"

interface TestColumn {
  readonly name: string
  readonly typeOid: number
  readonly isKey?: boolean
}

const oid = 20_000
const table = (name: string, columns: ReadonlyArray<TestColumn>, replicaIdentity = "d") =>
  Bytes.relation({ oid, schema: "public", name, replicaIdentity, columns })

/** Says these within one transaction, and gives what became of the client. */
const deliver = (says: ReadonlyArray<Uint8Array>, plugin?: OutputPlugin) =>
  attack(
    [
      Fake.concat(
        Fake.begin("0/200"),
        ...says.map((said) => Fake.xLogData("0/220", said)),
        Fake.commit("0/200", "0/230"),
        ending
      )
    ],
    {
      plugin,
      stream: { memory: { maxFrameLength: 1 << 22 } }
    }
  )

const ofTag = <Tag extends Change["_tag"]>(seen: ReadonlyArray<ChangeInProgress>, tag: Tag) =>
  seen.filter((change): change is Extract<Change, { readonly _tag: Tag }> => change._tag === tag)

/** What arrived of that table. */
const arrived = Effect.fnUntraced(function* (says: ReadonlyArray<Uint8Array>, plugin?: OutputPlugin) {
  const { error, seen } = yield* deliver(says, plugin)
  assert.isUndefined(error)
  const changes = seen.filter(
    (change): change is Insert | Update | Delete =>
      (change._tag === "Insert" || change._tag === "Update" || change._tag === "Delete") && change.relation.oid === oid
  )
  return changes
})

const untouched = (): void => {
  const polluted: Record<string, unknown> = {}
  assert.isUndefined(polluted.polluted)
  assert.deepStrictEqual(Object.keys(Object.prototype), [])
  assert.strictEqual(Object.getPrototypeOf(polluted), Object.prototype)
}

/** Properties that every object has, and one that none should ever get. */
const names = ["__proto__", "constructor", "hasOwnProperty", "prototype", "toString", "valueOf", "then", "polluted"]

describe("names that every object knows", () => {
  const columns = names.map((name, index) => ({ name, typeOid: 25, isKey: index === 0 }))
  const values = names.map((name) => `value of ${name}`)
  // Enough for the reader of the relation to be compiled.
  const inserts = Array.from({ length: 200 }, () => Bytes.insert(oid, values))

  for (const name of ["__proto__", "constructor", "hasOwnProperty"]) {
    it.effect(`[D8, X8] of a table ${name} and its columns arrive exactly, and touch no prototype`, () =>
      Effect.gen(function* () {
        const update = Bytes.update(
          oid,
          [values[0]!, ...values.slice(1).map((): Bytes.Cell => Bytes.unchanged)],
          Bytes.tuple("K", [values[0]!, ...values.slice(1).map(() => null)])
        )
        const changes = yield* arrived([table(name, columns), ...inserts, update])
        assert.lengthOf(changes, 201)
        for (const change of changes.slice(0, 200)) {
          if (change._tag !== "Insert") return assert.fail(change._tag)
          assert.strictEqual(change.relation.name, name)
          assert.deepStrictEqual(Object.keys(change.row), names)
          assert.strictEqual(Object.getPrototypeOf(change.row), Object.prototype)
          for (const [index, column] of names.entries()) {
            assert.strictEqual(Object.getOwnPropertyDescriptor(change.row, column)?.value, values[index])
          }
        }
        const last = changes[200]!
        assert.strictEqual(last._tag, "Update")
        if (last._tag !== "Update") return
        assert.deepStrictEqual(Object.keys(last.row), ["__proto__"])
        assert.deepStrictEqual(last.unchanged, names.slice(1))
        assert.deepStrictEqual(Object.keys(last.old!.row), ["__proto__"])
        untouched()
      })
    )
  }

  it.effect("[X8] of wal2json's tables, columns and types do neither", () =>
    Effect.gen(function* () {
      const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
      const says = [
        { action: "B", xid: 7, lsn: "0/200", nextlsn: "0/220", timestamp: "2026-01-02 03:04:05+00" },
        {
          ...{
            action: "I",
            xid: 7,
            schema: "__proto__",
            table: "constructor",
            pk: [{ name: "__proto__", type: "text" }]
          },
          columns: names.map((name) => ({ name, type: "text", typeoid: 25, value: name }))
        },
        { action: "C", xid: 7, lsn: "0/200", nextlsn: "0/220", timestamp: "2026-01-02 03:04:05+00" }
      ]
      const outcome = yield* attack(
        says.map((said) => Fake.xLogData("0/220", text(said))),
        { plugin: Wal2Json.make(), script: () => ({ slot: { plugin: "wal2json" } }), begins: new Uint8Array(0) }
      )
      assert.isUndefined(outcome.error)
      const [inserted] = ofTag(outcome.seen, "Insert")
      assert.deepStrictEqual(
        Object.keys(inserted!.row).map((name) => [name, Object.getOwnPropertyDescriptor(inserted!.row, name)?.value]),
        names.map((name) => [name, name])
      )
      assert.strictEqual(Object.getPrototypeOf(inserted?.row), Object.prototype)
      untouched()
    })
  )

  it.effect("[X8] of JSON's keys are keys, at any depth", () =>
    Effect.gen(function* () {
      const json = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":2}},"a":[{"__proto__":3}]}'
      const [change] = yield* arrived([table("t", [{ name: "j", typeOid: 3802 }]), Bytes.insert(oid, [json])])
      const value = (change as Insert).row.j as Record<string, unknown>
      assert.strictEqual(JSON.stringify(value), json)
      assert.strictEqual(Object.getPrototypeOf(value), Object.prototype)
      untouched()
    })
  )

  it("[X8] of a declared table are not taken for its own", () => {
    const orders = makeTable("public.orders", Schema.Struct({ id: Schema.Number }), { key: ["id"] })
    const typed: Array<unknown> = []
    for (const name of names) {
      const relation = { oid, schema: "__proto__", name, replicaIdentity: "default" as const, columns: [] }
      const begin = { _tag: "Begin" as const, xid: 1, commitLsn: Fake.lsn("0/1"), commitTime: 0 as never }
      const change: Insert = { _tag: "Insert", begin, ordinal: 0, relation, row: { id: 1 }, unchanged: [] }
      assert.isUndefined(new TypedChanges([orders]).append([change], typed as never))
    }
    assert.isEmpty(typed)
  })
})

const levels = 100_000
const bombs: Readonly<Record<string, string>> = {
  arrays: "[".repeat(levels) + "]".repeat(levels),
  objects: `${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`,
  "arrays without an end": "[".repeat(levels),
  "objects without an end": '{"a":'.repeat(levels)
}

/** How deep a value goes, without going there by recursion. */
const depthOf = (value: unknown): number => {
  let depth = 0
  for (let at = value; typeof at === "object" && at !== null; at = Object.values(at)[0]) depth++
  return depth
}

/** A value that holds itself: every level of it is decoded by a Schema. */
interface Nested {
  readonly [index: number]: Nested
}
const Nested: Schema.Codec<ReadonlyArray<Nested>> = Schema.Array(
  Schema.suspend((): Schema.Codec<never> => Nested as never)
)

describe("a value that nests 100,000 deep", () => {
  for (const [what, bomb] of Object.entries(bombs)) {
    it.effect(`[X8] of ${what} in JSON is a value, or a typed failure`, () =>
      Effect.gen(function* () {
        for (const typeOid of [114, 3802]) {
          const outcome = yield* deliver([table("t", [{ name: "j", typeOid }]), Bytes.insert(oid, [bomb])])
          if (what.endsWith("end")) assert.match(refused(outcome).problem, /column "j" of "public"."t"/)
          else {
            assert.isUndefined(outcome.error)
            const inserted = ofTag(outcome.seen, "Insert").find(({ relation }) => relation.oid === oid)
            assert.strictEqual(depthOf(inserted?.row.j), levels)
          }
        }
      })
    )
  }

  it.effect("[X8] is text where text is asked for, and within an array", () =>
    Effect.gen(function* () {
      const bomb = bombs.arrays!
      const columns = [
        { name: "j", typeOid: 3802 },
        { name: "js", typeOid: 3807 }
      ]
      const says = [table("t", columns), Bytes.insert(oid, [bomb, `{"${bomb}"}`])]
      const [asText] = yield* arrived(says, Pgoutput.make({ publications: ["orders"], types: { json: "text" } }))
      assert.deepStrictEqual((asText as Insert).row, { j: bomb, js: [bomb] })
      const [asValue] = yield* arrived(says)
      assert.strictEqual(depthOf((asValue as Insert).row.js), levels + 1)
    })
  )

  it.effect("[X8] is refused as an array of PostgreSQL's, which has six dimensions at most", () =>
    Effect.gen(function* () {
      for (const bomb of ["{".repeat(levels), "{".repeat(levels) + "}".repeat(levels)]) {
        const outcome = yield* deliver([table("t", [{ name: "a", typeOid: 1007 }]), Bytes.insert(oid, [bomb])])
        assert.match(refused(outcome).problem, /column "a"/)
      }
    })
  )

  it.effect("[X8] is refused as a message of wal2json, which nests four deep", () =>
    Effect.gen(function* () {
      for (const bomb of Object.values(bombs)) {
        const outcome = yield* attack([Fake.xLogData("0/220", new TextEncoder().encode(bomb))], {
          plugin: Wal2Json.make(),
          script: () => ({ slot: { plugin: "wal2json" } }),
          begins: new Uint8Array(0)
        })
        assert.strictEqual(outcome.error?._tag, "DecodeError")
        assert.deepStrictEqual(outcome.flushes, ["0/0"])
      }
    })
  )

  it("[X8] does not overflow the Schema of a declared table, nor of a message", () => {
    const value: unknown = JSON.parse(bombs.arrays!)
    const nested = makeTable("public.t", Schema.Struct({ j: Nested }))
    const begin = { _tag: "Begin" as const, xid: 1, commitLsn: Fake.lsn("0/1"), commitTime: 0 as never }
    const relation = {
      ...{ oid, schema: "public", name: "t", replicaIdentity: "nothing" as const },
      columns: [{ name: "j", isKey: false, typeOid: 3802, typeName: "jsonb", typeModifier: -1 }]
    }
    const change: Insert = { _tag: "Insert", begin, ordinal: 0, relation, row: { j: value }, unchanged: [] }
    const failure = new TypedChanges([nested]).append([change], [])
    assert.instanceOf(failure, RowMismatch)

    const Deep = makeMessage("deep", Nested)
    const content = new TextEncoder().encode(bombs.arrays!)
    const message = {
      ...{ _tag: "Message" as const, transactional: true as const, begin, ordinal: 0, lsn: Fake.lsn("0/1") },
      ...{ prefix: "deep", content, nextLsn: undefined }
    }
    const decoded = outboxDecoder([Deep])([message])
    assert.isTrue(Result.isFailure(decoded))
  })
})

describe("a number without end", () => {
  const digits = "9".repeat(130_000)
  it.effect("[X8, D5] is text, a number as near as there is, or refused, and takes no time", () =>
    Effect.gen(function* () {
      const of = (typeOid: number, text: string) => [table("t", [{ name: "n", typeOid }]), Bytes.insert(oid, [text])]
      const start = cpuMillis()
      for (const [typeOid, text, value] of [
        [1700, digits, digits],
        [1700, `0.${digits}`, `0.${digits}`],
        [114, "1e999999999", Number.POSITIVE_INFINITY],
        [114, `[${digits}]`, [Number.POSITIVE_INFINITY]],
        [701, "1e999999999", Number.POSITIVE_INFINITY],
        [701, digits, Number.POSITIVE_INFINITY]
      ] as const) {
        const [change] = yield* arrived(of(typeOid, text))
        assert.deepStrictEqual((change as Insert).row.n, value)
      }
      for (const typeOid of [20, 21, 23, 26, 16]) {
        assert.match(refused(yield* deliver(of(typeOid, digits))).problem, /column "n"/)
      }
      assert.isBelow(cpuMillis() - start, 5000)
    })
  )
})

const escape = "\u001b[2J\u001b]0;owned\u0007\r\nfake: line\u009b31m\u202e"

describe("text that a terminal obeys", () => {
  it.effect("[X8] in the names of an error is a space in its message, its text and its cause's", () =>
    Effect.gen(function* () {
      const relation = Bytes.relation({
        ...{ oid, schema: `public${escape}`, name: `t${escape}`, replicaIdentity: "d" },
        columns: [{ name: `n${escape}`, typeOid: 23 }]
      })
      const error = refused(yield* deliver([relation, Bytes.insert(oid, ["x"])]))
      for (const text of [error.message, String(error), Cause.pretty(Cause.fail(error))]) {
        assert.notInclude(text, "\u001b")
        for (const line of text.split("\n")) assert.strictEqual(logText(line), line)
      }
      assert.include(error.problem, `n${escape}`, "what it holds is exact")
    })
  )

  it.effect("[X8] in a row is the row's: exact", () =>
    Effect.gen(function* () {
      const [change] = yield* arrived([
        table(`t${escape}`, [{ name: `n${escape}`, typeOid: 25 }]),
        Bytes.insert(oid, [escape])
      ])
      assert.deepStrictEqual((change as Insert).row, { [`n${escape}`]: escape })
      assert.strictEqual(change?.relation.name, `t${escape}`)
    })
  )
})

/** In no error, whatever is done with it. */
const planted = "planted-4711"

describe("a value that its decoder refuses", () => {
  const types = {
    byOid: new Map([
      [
        25,
        (text: string) => {
          throw new Error(`cannot take ${text}`, { cause: text })
        }
      ]
    ])
  }
  for (const [how, plugin, typeOid, before] of [
    ["by a decoder that quotes it", Pgoutput.make({ publications: ["orders"], types }), 25, 0],
    ["by a decoder that quotes it, in a compiled reader", Pgoutput.make({ publications: ["orders"], types }), 25, 200],
    ["by a decoder that quotes it, within an array", Pgoutput.make({ publications: ["orders"], types }), 1009, 0],
    ["by its type", Pgoutput.make({ publications: ["orders"] }), 23, 0],
    ["by its type, in a compiled reader", Pgoutput.make({ publications: ["orders"] }), 23, 200],
    ["as JSON", Pgoutput.make({ publications: ["orders"] }), 3802, 0],
    ["in binary", Pgoutput.make({ publications: ["orders"], format: "binary" }), 23, 0]
  ] as const) {
    it.effect(`[D5, X7] ${how} ends the stream, and is not in its error`, () =>
      Effect.gen(function* () {
        const value = typeOid === 1009 ? `{${planted}}` : planted
        const nulls = Array.from({ length: before }, () => Bytes.insert(oid, [null]))
        const says = [table("secrets", [{ name: "value", typeOid }]), ...nulls, Bytes.insert(oid, [value])]
        const error = refused(yield* deliver(says, plugin))
        assert.match(error.problem, /column "value" of "public"."secrets"/)
        assert.match(error.problem, /text|integer|jsonb/)
        assert.strictEqual(error.lsn, Fake.lsn("0/220"))
        const told = [
          String(error),
          error.stack,
          JSON.stringify(error),
          Inspect.inspect(error, { depth: 20, showHidden: true }),
          Cause.pretty(Cause.fail(error))
        ]
        for (const text of told) assert.notInclude(text, "4711")
        assert.isUndefined(error.cause)
      })
    )
  }

  it.effect("[D5] stays text where that was asked for", () =>
    Effect.gen(function* () {
      const plugin = Pgoutput.make({ publications: ["orders"], types: { ...types, onUndecodable: "text" } })
      const columns = [
        { name: "a", typeOid: 25 },
        { name: "b", typeOid: 23 }
      ]
      const [change] = yield* arrived([table("t", columns), Bytes.insert(oid, [planted, "no number"])], plugin)
      assert.deepStrictEqual((change as Insert).row, { a: planted, b: "no number" })
    })
  )
})

describe("a value that is not sent", () => {
  const columns = [
    { name: "id", typeOid: 25, isKey: true },
    { name: "big", typeOid: 25 }
  ]
  it.effect(
    "[D6] as it is unchanged is absent and named, of the key as of all else; or it is what the old row has",
    () =>
      Effect.gen(function* () {
        const unchanged: Bytes.Cell = Bytes.unchanged
        const [, first, second, third] = yield* arrived([
          table("t", columns, "f"),
          Bytes.insert(oid, ["1", "b"]),
          Bytes.update(oid, [unchanged, unchanged]),
          Bytes.update(oid, [unchanged, "c"], Bytes.tuple("O", ["1", "b"])),
          Bytes.update(oid, ["2", unchanged], Bytes.tuple("O", ["1", unchanged]))
        ])
        const parts = (change: Insert | Update | Delete | undefined) =>
          change?._tag === "Update" ? [change.row, change.unchanged, change.old?.row] : undefined
        assert.deepStrictEqual(parts(first), [{}, ["id", "big"], undefined])
        assert.deepStrictEqual(parts(second), [{ id: "1", big: "c" }, [], { id: "1", big: "b" }])
        assert.deepStrictEqual(parts(third), [{ id: "2" }, ["big"], { id: "1" }])
      })
  )
})

describe("a type that nobody knows", () => {
  it.effect("[D7] is text: of an extension, of no name at all, and an enum's value that was added meanwhile", () =>
    Effect.gen(function* () {
      const columns = [
        { name: "mood", typeOid: 50_001 },
        { name: "box", typeOid: 50_002 },
        { name: "nameless", typeOid: 4_000_000_000 }
      ]
      const changes = yield* arrived([
        Bytes.type(50_001, "public", "mood"),
        Bytes.type(50_002, "ext", "cube"),
        table("t", columns),
        Bytes.insert(oid, ["sad", "(1, 2)", "?"]),
        Bytes.insert(oid, ["added later", "(3)", ""])
      ])
      assert.deepStrictEqual(
        changes.map((change) => (change as Insert).row),
        [
          { mood: "sad", box: "(1, 2)", nameless: "?" },
          { mood: "added later", box: "(3)", nameless: "" }
        ]
      )
      assert.deepStrictEqual(
        changes[0]?.relation.columns.map(({ typeName }) => typeName),
        ["mood", "cube", undefined]
      )
    })
  )
})

describe("DecodeError", () => {
  it("[X8] tells its problem on one line, whatever the names in it", () => {
    const error = new DecodeError({ problem: `a column "${escape}"`, offset: 3 })
    assert.notMatch(error.message, /[\p{Cc}\u202e]/u)
    assert.include(error.message, "fake: line")
  })
})

describe("errors that hold an LSN", () => {
  const lsn = Fake.lsn("1/2A")
  const place = { schema: "s", relation: "t" }
  const errors: ReadonlyArray<Error> = [
    new DecodeError({ problem: "p", offset: 1, lsn }),
    new SlotInvalidated({ slot: "s", reason: "wal_removed", lastLsn: lsn }),
    new SlotAheadOfCheckpoint({ slot: "s", checkpoint: lsn, confirmedFlushLsn: lsn }),
    new TransactionTooLarge({ xid: 1, commitLsn: lsn, bytes: 2, maxBytes: 1 }),
    new ServerError({ stage: "Streaming", severity: "ERROR", sqlState: "54000", serverMessage: "m", lsn }),
    new TableMismatch({ ...place, problem: "missing", columns: ["c"], commitLsn: lsn }),
    new RowMismatch({
      ...{ ...place, operation: "Insert", tuple: "row", column: "c", path: "", expected: "string" },
      ...{ commitLsn: lsn, ordinal: 0, isUnsent: false }
    }),
    new MessageMismatch({ prefix: "p", lsn, path: "", expected: "string" })
  ]
  for (const error of errors) {
    it(`[X7] are JSON all the same, with it as PostgreSQL writes it: ${error.name}`, () => {
      const json = JSON.parse(JSON.stringify(error))
      assert.include(Object.values(json), "1/2A")
      assert.strictEqual(json.message, error.message)
      assert.strictEqual(json._tag, (error as unknown as { readonly _tag: string })._tag)
    })
  }
})
