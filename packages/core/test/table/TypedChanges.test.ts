import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import type { Change, RelationChanged } from "../../src/change/Change.ts"
import * as Table from "../../src/table/Table.ts"
import { RowMismatch, TableMismatch } from "../../src/table/TableError.ts"
import { decoder } from "../../src/table/TypedChanges.ts"
import * as Shop from "./shop.ts"
import { begin, Customers, commit, customers, deleted, insert, Orders, order, orders, others, update } from "./shop.ts"

const decode = decoder([Orders, Customers])
const typed = (...changes: ReadonlyArray<Change>) => Result.getOrThrow(decode(changes))
const only = (change: Change) => typed(change)[0]!

const failureOf = (table: Table.Any, ...changes: ReadonlyArray<Change>) => {
  const result = decoder([table])(changes)
  return Result.isFailure(result) ? result.failure : assert.fail("no failure")
}

const mismatchOf = (fields: Schema.Struct.Fields, row: Record<string, unknown>): RowMismatch => {
  const table = Table.make("t", Schema.Struct(fields) as unknown as Table.TableSchema)
  const failure = failureOf(table, insert(Shop.relation("public", "t", Object.keys(fields)), row))
  return failure instanceof RowMismatch ? failure : assert.fail(String(failure))
}

const whole = { id: 1, total: "12.50", note: null, placedAt: new Date("2024-02-29") }

describe("a typed insert", () => {
  it("has the row as its Schema has it, without undeclared columns, and all of its change's place", () => {
    assert.deepStrictEqual(only(insert(orders, order)), {
      _tag: "Insert",
      table: "public.orders",
      begin,
      ordinal: 0,
      relation: orders,
      row: whole,
      unchanged: []
    })
  })

  it("is an instance where the Schema is a class", () => {
    const change = only(insert(customers, { email: "ann@example.org", tags: ["new"] }))
    assert.instanceOf(change._tag === "Insert" && change.row, Shop.Customer)
  })

  it("lists an optional column that was not sent, and fails for one that is needed", () => {
    const { placed_at, ...entered } = order
    assert.deepInclude(only(insert(orders, entered, ["placed_at", "undeclared"])), { unchanged: ["placedAt"] })
    const { total, ...lacking } = order
    const failure = failureOf(Orders, insert(orders, lacking, ["total"]))
    assert.deepInclude({ ...failure }, { column: "total", isUnsent: true })
    assert.match(String(failure.remedy), /optionalKey.*"public"."orders" REPLICA IDENTITY FULL/)
  })
})

describe("a typed update", () => {
  it("is complete when nothing declared is missing", () => {
    const { undeclared, ...rest } = order
    const change = only(update(orders, rest, ["undeclared"]))
    assert.deepInclude(change, { isComplete: true, unchanged: [], row: whole, old: undefined })
  })

  it("is partial when a declared column is unchanged: absent, not null, not a default", () => {
    const change = only(update(orders, { id: 1, total: "3", placed_at: "2024-02-29" }, ["note"]))
    assert.deepInclude(change, { isComplete: false, unchanged: ["note"] })
    assert.deepStrictEqual(change._tag === "Update" && Object.keys(change.row), ["id", "total", "placedAt"])
    const table = Table.make(
      "t",
      Schema.Struct({ id: Schema.Number, n: Schema.Number.pipe(Schema.withDecodingDefaultKey(Effect.succeed(7))) })
    )
    const result = Result.getOrThrow(
      decoder([table])([update(Shop.relation("public", "t", ["id", "n"]), { id: 1 }, ["n"])])
    )
    assert.deepStrictEqual(result[0]?._tag === "Update" && result[0].row, { id: 1 })
  })

  it("names unchanged columns by their properties, in the order declared, whichever it is from row to row", () => {
    const changes = [["placed_at"], ["note"], ["placed_at", "note"], ["placed_at"]].map((unchanged) =>
      update(orders, Object.fromEntries(Object.entries(order).filter(([name]) => !unchanged.includes(name))), unchanged)
    )
    assert.deepStrictEqual(
      typed(...changes).map((change) => (change._tag === "Update" ? [change.unchanged, Object.keys(change.row)] : [])),
      [
        [["placedAt"], ["id", "total", "note"]],
        [["note"], ["id", "total", "placedAt"]],
        [
          ["note", "placedAt"],
          ["id", "total"]
        ],
        [["placedAt"], ["id", "total", "note"]]
      ]
    )
  })

  it("has the key of the row before when it changed, and all of it under FULL", () => {
    const keyed = update(orders, order, [], { _tag: "Key", row: { id: 9 } })
    assert.deepInclude(only(keyed), { old: { _tag: "Key", row: { id: 9 } } })
    const full = update(orders, order, [], { _tag: "Full", row: { ...order, total: "1" } })
    assert.deepInclude(only(full), { old: { _tag: "Full", row: { ...whole, total: "1" } } })
  })
})

describe("a typed delete", () => {
  it("has the declared key and nothing else, even where the identity is wider", () => {
    const wide = Shop.relation("public", "orders", ["id", "total", "note", "placed_at"], ["id", "total"], "index")
    const change = only(deleted(wide, { _tag: "Key", row: { id: 1, total: "2" } }))
    assert.deepInclude(change, { old: { _tag: "Key", row: { id: 1 } } })
  })

  it("has whatever identifies the row where no key is declared", () => {
    const change = only(deleted(customers, { _tag: "Key", row: { email: "ann@example.org" } }))
    assert.deepInclude(change, { old: { _tag: "Key", row: { email: "ann@example.org" } } })
  })

  it("renames and decodes the columns of a key", () => {
    const table = Table.make("t", Schema.Struct({ id: Schema.Number, at: Schema.DateFromString }), {
      key: ["at"],
      columns: { at: "made at" }
    })
    const relation = Shop.relation("public", "t", ["made at", "id"])
    const row = { "made at": "2024-02-29" }
    const [change] = Result.getOrThrow(decoder([table])([deleted(relation, { _tag: "Key", row })]))
    assert.deepInclude(change, { old: { _tag: "Key", row: { at: new Date("2024-02-29") } } })
  })
})

describe("the changes that pass", () => {
  const changed = (relation: typeof orders): RelationChanged => ({
    _tag: "RelationChanged",
    begin,
    ordinal: 0,
    before: relation,
    relation
  })

  it("are all that can be acknowledged, and all that has no table: the very same objects", () => {
    const origin: Change = { _tag: "Origin", begin, ordinal: 0, name: "o", originLsn: begin.commitLsn }
    const passing = [begin, origin, Shop.message, commit]
    const result = typed(begin, origin, insert(others, { id: 1 }), Shop.message, commit)
    assert.lengthOf(result, 4)
    result.forEach((change, index) => {
      assert.strictEqual<unknown>(change, passing[index])
    })
  })

  it("are truncates and new shapes of the set's tables, and not of others", () => {
    assert.deepStrictEqual(typed(Shop.truncate(others), changed(others)), [])
    const [truncate, shape] = typed(Shop.truncate(others, customers, orders), changed(orders))
    assert.deepInclude(truncate, { tables: ["crm.eu.customers", "public.orders"], relations: [customers, orders] })
    assert.deepInclude(truncate, { cascade: true, restartIdentity: false, ordinal: 3, begin })
    assert.strictEqual(shape?._tag, "RelationChanged")
  })

  it("are told from others by both names: a dot joins nothing", () => {
    const relation = Shop.relation("crm", "eu.customers", ["email", "tags"])
    assert.deepStrictEqual(typed(insert(relation, { email: "a", tags: [] })), [])
  })

  it("keep their order", () => {
    const row = { email: "a", tags: [] }
    const result = typed(begin, insert(orders, order), insert(customers, row), insert(orders, order), commit)
    assert.deepStrictEqual(
      result.map((change) => ("table" in change ? change.table : change._tag)),
      ["Begin", "public.orders", "crm.eu.customers", "public.orders", "Commit"]
    )
  })
})

describe("a set of tables", () => {
  it("cannot hold two of one name", () => {
    assert.throws(() => decoder([Orders, Table.make("orders", Schema.Struct({}))]), /two tables/)
    const a = Table.make({ schema: "a.b", name: "c" }, Schema.Struct({}))
    const b = Table.make({ schema: "a", name: "b.c" }, Schema.Struct({}))
    assert.throws(() => decoder([a, b]), /named a\.b\.c/)
  })
})

describe("a relation that is not as declared", () => {
  it("fails before its first row, naming every needed column that it lacks", () => {
    const narrow = Shop.relation("public", "orders", ["id", "placed_at"])
    const failure = failureOf(Orders, insert(narrow, { nothing: "of this is read" }))
    assert.instanceOf(failure, TableMismatch)
    assert.deepInclude({ ...failure }, { problem: "missing", columns: ["total", "note"], schema: "public" })
    assert.match(
      failure.message,
      /^"public"\."orders" does not have the declared columns "total", "note", at LSN 0\/100$/
    )
    assert.isFalse(failure.isRetryable)
  })

  it("may lack what is optional", () => {
    const relation = Shop.relation("public", "orders", ["id", "total", "note"])
    const { placed_at, undeclared, ...row } = order
    const [change] = Result.getOrThrow(decoder([Orders])([insert(relation, row)]))
    assert.deepInclude(change, { row: { id: 1, total: "12.50", note: null } })
  })

  it("fails again when it loses a column in mid-stream", () => {
    const narrow = Shop.relation("public", "orders", ["id", "note"])
    const failure = failureOf(Orders, insert(orders, order), insert(narrow, { id: 1, note: null }))
    assert.deepInclude({ ...failure }, { columns: ["total"] })
  })

  it("fails for a declared key that its replica identity does not have", () => {
    const relation = Shop.relation("public", "orders", ["id", "total", "note", "placed_at"], ["total"])
    const failure = failureOf(Orders, insert(relation, order))
    assert.deepInclude({ ...failure }, { problem: "notKey", columns: ["id"] })
    assert.match(failure.message, /"id" in its replica identity/)
  })

  it("may have any key under FULL, and none where nothing but inserts comes", () => {
    const columns = ["id", "total", "note", "placed_at"]
    for (const relation of [
      Shop.relation("public", "orders", columns, columns, "full"),
      Shop.relation("public", "orders", columns, [], "default"),
      Shop.relation("public", "orders", columns, [], "nothing"),
      { ...Shop.relation("public", "orders", columns, ["note"]), replicaIdentity: undefined }
    ]) {
      assert.isTrue(Result.isSuccess(decoder([Orders])([insert(relation, order)])))
    }
  })

  it("fails also where rows that do not fit are let through", () => {
    const narrow = Shop.relation("public", "orders", ["id"])
    assert.isTrue(Result.isFailure(decoder([Orders], { onMismatch: "untyped" })([insert(narrow, { id: 1 })])))
  })
})

describe("a relation that the plugin learns as it goes, as wal2json does", () => {
  const learned = (...columns: ReadonlyArray<string>) => ({
    ...Shop.relation("public", "orders", columns),
    replicaIdentity: undefined
  })

  it("does not fail for columns that no change has named yet", () => {
    const change = only(deleted(learned("id"), { _tag: "Key", row: { id: 1 } }))
    assert.deepInclude(change, { old: { _tag: "Key", row: { id: 1 } } })
  })

  it("takes such columns for unchanged in an update, and for missing in an insert, which names all", () => {
    const row = { id: 1, total: "2", placed_at: "2024-02-29" }
    const relation = learned("id", "total", "placed_at")
    assert.deepInclude(only(update(relation, row)), { isComplete: false, unchanged: ["note"] })
    assert.deepInclude({ ...failureOf(Orders, insert(relation, row)) }, { _tag: "RowMismatch", column: "note" })
  })

  it("gives whole rows as soon as columns are named, and lists none twice", () => {
    const relation = learned("id", "total", "note")
    const { placed_at, undeclared, ...row } = order
    assert.deepInclude(only(insert(relation, row)), { row: { id: 1, total: "12.50", note: null } })
    const { note, ...rest } = order
    assert.deepInclude(only(update(relation, rest, ["note"])), { isComplete: false, unchanged: ["note"] })
    assert.deepInclude(only(update(relation, order)), { isComplete: true, row: whole })
  })
})

describe("a row that does not fit", () => {
  const misfit = insert(orders, { ...order, total: 12.5 })

  it("fails typed, naming relation, column, what was expected and which change, and no value", () => {
    const failure = failureOf(Orders, begin, misfit)
    assert.deepStrictEqual<unknown>(
      { ...failure },
      {
        _tag: "RowMismatch",
        schema: "public",
        relation: "orders",
        operation: "Insert",
        tuple: "row",
        column: "total",
        path: "",
        expected: "string",
        commitLsn: begin.commitLsn,
        ordinal: 0,
        isUnsent: false
      }
    )
    assert.strictEqual(
      failure.message,
      'a row of "public"."orders" does not fit its Schema in column "total": expected string (Insert 0000000000000100-00000000)'
    )
    assert.isFalse(failure.isRetryable)
    assert.include(failure.remedy, 'onMismatch: "untyped"')
  })

  it("is handed over as it came under the other policy, in its place", () => {
    const result = Result.getOrThrow(
      decoder([Orders], { onMismatch: "untyped" })([begin, misfit, insert(orders, order)])
    )
    assert.deepStrictEqual(
      result.map((change) => change._tag),
      ["Begin", "Untyped", "Insert"]
    )
    const [, untyped] = result
    if (untyped?._tag !== "Untyped") return assert.fail()
    assert.strictEqual<unknown>(untyped.change, misfit)
    assert.strictEqual(untyped.table, "public.orders")
    assert.strictEqual(untyped.mismatch.column, "total")
  })

  it("is told from the old row, and named by its column where that has another name", () => {
    const bad = update(orders, order, [], { _tag: "Full", row: { ...order, placed_at: 5 } })
    assert.deepInclude({ ...failureOf(Orders, bad) }, { tuple: "old", column: "placed_at", operation: "Update" })
    const gone = deleted(orders, { _tag: "Key", row: { id: "1" } })
    assert.deepInclude({ ...failureOf(Orders, gone) }, { tuple: "old", column: "id", expected: "number" })
  })

  it("is told by its column where the Schema is a class, or has checks of its own", () => {
    const failure = failureOf(Customers, insert(customers, { email: "a", tags: ["b", 3] }))
    assert.deepInclude({ ...failure }, { column: "tags", path: "[1]", expected: "string" })
    const checked = Table.make(
      "orders",
      Schema.Struct({ id: Schema.Number, total: Schema.Number }).check(
        Schema.makeFilter(({ id, total }) => id < total || { path: ["total"], issue: `${total} is too small` })
      )
    )
    const relation = Shop.relation("public", "orders", ["id", "total"])
    assert.deepInclude(
      { ...failureOf(checked, insert(relation, { id: 1, total: "2" })) },
      { column: "total", expected: "number" }
    )
    const whole = failureOf(checked, insert(relation, { id: 2, total: 1 }))
    assert.notInclude(whole.message, "1 is too small")
    assert.match(whole.message, /passes the Schema's checks/)
  })

  const secret = "s3cret"
  const refusing = Schema.String.pipe(
    Schema.decodeTo(Schema.Number, {
      decode: SchemaGetter.transform((text: string): number => {
        throw new Error(`cannot take ${text}`)
      }),
      encode: SchemaGetter.transform(String)
    })
  )
  const cases: ReadonlyArray<
    readonly [what: string, field: Schema.Constraint, value: unknown, path: string, expected: RegExp]
  > = [
    ["another type", Schema.Number, secret, "", /^number$/],
    ["a null", Schema.String, null, "", /^string$/],
    ["no member of a union", Schema.NullOr(Schema.Number), secret, "", /^number \| null$/],
    ["no literal of a set", Schema.Literals(["new", "paid"]), secret, "", /^"new" \| "paid"$/],
    [
      "a field within json",
      Schema.Struct({ items: Schema.Array(Schema.Struct({ price: Schema.Number })) }),
      { items: [{ price: 1 }, { price: secret }] },
      ".items[1].price",
      /^number$/
    ],
    ["a key that is data", Schema.Record(Schema.String, Schema.Number), { [secret]: "x" }, ".*", /^number$/],
    ["a check with a name", Schema.String.check(Schema.isMaxLength(3)), secret, "", /length/],
    [
      "a check that quotes the value",
      Schema.String.check(Schema.makeFilter((text: string) => `${text} is bad`)),
      secret,
      "",
      /passes the Schema's checks/
    ],
    ["a text that does not parse", Schema.FiniteFromString, secret, "", /./],
    ["a decoding that throws", refusing, secret, "", /decodes without throwing/]
  ]
  it.each(cases)("tells %s without the value", (_what, field, value, path, expected) => {
    const failure = mismatchOf({ id: Schema.Number, it: field }, { id: 1, it: value })
    assert.match(failure.expected, expected)
    assert.strictEqual(failure.path, path)
    assert.notInclude(
      JSON.stringify([{ ...failure }, failure.message, failure.stack, String(failure)], (_key, part) =>
        typeof part === "bigint" ? String(part) : part
      ),
      secret
    )
  })

  it("keeps the values out even where a Schema asks for them to be reported", () => {
    const field = Schema.Number.annotate({ parseOptions: { reportInput: true } })
    assert.notInclude(mismatchOf({ id: field }, { id: secret }).message, secret)
  })
})
