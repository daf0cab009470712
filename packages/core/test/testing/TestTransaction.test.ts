import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Table from "../../src/stream/Table.ts"
import {
  insert,
  message,
  relation,
  remove,
  type TestChange,
  type TestTransaction,
  TestWalSender,
  tx,
  update
} from "../../src/testing/index.ts"
import { timestampDate } from "../../src/values/TimestampText.ts"

class Money extends Schema.Class<Money>("Money")({ amount: Schema.Number, currency: Schema.String }) {}

const Everything = Table.make(
  { schema: "a.b", name: "every thing" },
  Schema.Struct({
    id: Schema.BigInt,
    name: Schema.String,
    kind: Schema.Literals(["small", "large"]),
    size: Schema.Number,
    isOld: Schema.Boolean,
    picture: Schema.Uint8Array,
    at: Schema.Date,
    price: Schema.FiniteFromString,
    money: Schema.NullOr(Money),
    tags: Schema.Array(Schema.String),
    note: Schema.NullOr(Schema.String)
  }),
  { key: ["id"], columns: { isOld: "is_old" } }
)

const row = {
  id: 9_007_199_254_740_993n,
  name: 'it\'s "quoted" \\ and 🐘',
  kind: "large" as const,
  size: -0.5e-7,
  isOld: true,
  picture: new Uint8Array([0, 255, 16]),
  at: new Date("2026-01-31T12:00:00.250Z"),
  price: 12.5,
  money: new Money({ amount: 1, currency: "EUR" }),
  tags: ["a", 'b"c'],
  note: null
}

const types = { byName: new Map([["timestamptz", timestampDate]]) }
const options = { slot: "s", plugin: Pgoutput.make({ publications: ["p"], types }) }

/** What a declared table's stream gives for these changes. */
const typed = Effect.fnUntraced(
  function* <T extends Table.Any>(table: T, ...transactions: ReadonlyArray<TestTransaction>) {
    const test = yield* TestWalSender
    const seen: Array<Table.TypedChange<T>> = []
    const handler = Table.handler([table], (change) =>
      Effect.sync(() => {
        seen.push(change)
        return nextLsn(change)
      })
    )
    yield* Effect.forkChild(withLogicalStream(options, handler))
    yield* test.write(...transactions)
    yield* TestClock.adjust("1 second")
    yield* test.awaitConfirmed
    return seen
  },
  Effect.provide(TestWalSender.layer({ slot: "s", publications: ["p"] }))
)

describe("the words of a script", () => {
  it.effect("give a declared table's rows back as they were written", () =>
    Effect.gen(function* () {
      const seen = yield* typed(Everything, tx(insert(Everything, row)))
      const created = seen.find((change) => change._tag === "Insert")
      assert.deepStrictEqual(created?.row, row)
    })
  )

  it.effect("leave out of an update what is not given, and tell the key before", () =>
    Effect.gen(function* () {
      const seen = yield* typed(Everything, tx(update(Everything, { id: 2n, name: "new" }, { old: { id: 1n } })))
      const changed = seen.find((change) => change._tag === "Update")
      assert.deepStrictEqual(changed?.row, { id: 2n, name: "new" })
      assert.deepStrictEqual(changed?.old, { _tag: "Key", row: { id: 1n } })
      assert.isFalse(changed?.isComplete)
    })
  )

  it.effect("give whole rows before under REPLICA IDENTITY FULL", () =>
    Effect.gen(function* () {
      const full = relation(Everything, { replicaIdentity: "full", types: { price: "numeric", tags: "text[]" } })
      const seen = yield* typed(
        Everything,
        tx(update(full, { ...row, size: 2 }, { old: { ...row, size: 1 } }), remove(full, row))
      )
      const changed = seen.find((change) => change._tag === "Update")
      assert.deepStrictEqual(changed?.old, { _tag: "Full", row: { ...row, size: 1 } })
      const gone = seen.find((change) => change._tag === "Delete")
      assert.deepStrictEqual(gone?.old, { _tag: "Full", row })
      const columns = gone?.relation.columns.map(({ name, typeName }) => `${name} ${typeName}`)
      assert.includeMembers(columns ?? [], [
        "price numeric",
        "tags text[]",
        "is_old boolean",
        "at timestamp with time zone"
      ])
    })
  )

  it("take only rows that fit, and say which column does not", () => {
    const plain = relation("public.plain", { columns: { id: "integer", body: "jsonb" }, key: ["id"] })
    const keyless = relation("public.keyless", { columns: { id: "integer" } })
    const full = relation(Everything, { replicaIdentity: "full" })
    const wrong: ReadonlyArray<readonly [script: () => TestChange, problem: RegExp]> = [
      [() => insert(plain, { id: 1, color: "red" }), /"public"\."plain" with "color"/],
      [() => insert(plain, { id: { not: "text" } }), /whose "id" does not fit/],
      // @ts-expect-error not the table's type
      [() => insert(Everything, { ...row, kind: "medium" }), /"a\.b"\."every thing" whose "kind" does not fit/],
      [() => remove(plain, { body: {} }), /without its column "id"/],
      [() => remove(keyless, { id: 1 }), /no replica identity: it takes inserts only/],
      [() => update(full, row), /give the row before as old/],
      // @ts-expect-error an insert is whole
      [() => insert(Everything, { id: 1n, nmae: "x" }), /with "nmae"/]
    ]
    for (const [script, problem] of wrong) assert.throws(script, problem)
    assert.throws(() => relation("t", { columns: { id: "integer" }, key: ["ID"] }), /a column "ID"/)
  })

  it("put a message into a transaction or outside, by where it stands", () => {
    const word = message("prefix", "text")
    assert.deepStrictEqual(tx(word).changes, [word])
    assert.deepStrictEqual(word.content, new TextEncoder().encode("text"))
  })
})
