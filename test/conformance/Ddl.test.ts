/** DDL under way: rows in the shape of their own time, and a relation before the first row of each new shape. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { expected, record, relationsOf, scenario } from "../support/Conformance.ts"

/** Without the lines for relations: how often the server repeats itself differs by version and by what else it did. */
const withoutRelations = (lines: ReadonlyArray<string>) => lines.filter((line) => !line.startsWith("R "))

/** Where a relation must have been sent: the last before each row, for rows of one table. */
const shapes = (lines: ReadonlyArray<string>, table: string): ReadonlyArray<string> => {
  let shape = ""
  return lines.flatMap((line) => {
    if (line.startsWith(`R ${table}(`)) shape = line
    return line.startsWith(`I ${table}{`) ? [shape] : []
  })
}

describe("DDL under way", () => {
  scenario("ddl-in-transaction", "describes a table again before the first row of each new shape", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, a int)" })
      yield* recorder.run(
        "BEGIN",
        "INSERT INTO t VALUES (1, 10)",
        "ALTER TABLE t ADD z1 int",
        "INSERT INTO t VALUES (2, 20, 200)",
        "ALTER TABLE t ADD z2 text DEFAULT 'd'",
        "INSERT INTO t VALUES (3, 30, 300)",
        "ALTER TABLE t DROP a",
        "INSERT INTO t VALUES (4, 400, 'e')",
        "SAVEPOINT s",
        "ALTER TABLE t RENAME z1 TO z9",
        "INSERT INTO t (id, z9) VALUES (5, 500)",
        "ROLLBACK TO s",
        "INSERT INTO t VALUES (6, 600, 'f')",
        "COMMIT",
        "ALTER TABLE t ALTER z1 TYPE bigint",
        "INSERT INTO t VALUES (7, 700, 'g')",
        "ALTER TABLE t RENAME TO u",
        "INSERT INTO u VALUES (8, 800, 'h')"
      )
      const transaction = [
        "I t{id=1,a=10}",
        "R t(id*,a,z1) ri=d",
        "I t{id=2,a=20,z1=200}",
        "R t(id*,a,z1,z2) ri=d",
        "I t{id=3,a=30,z1=300,z2=d}",
        "R t(id*,z1,z2) ri=d",
        "I t{id=4,z1=400,z2=e}",
        "I t{id=6,z1=600,z2=f}"
      ]
      const retyped = ["R t(id*,z1,z2) ri=d", "I t{id=7,z1=700,z2=g}"]
      const renamed = ["R u(id*,z1,z2) ri=d", "I u{id=8,z1=800,z2=h}"]
      const changes = yield* recorder.expect(transaction, retyped, renamed)
      const inserts = changes.flatMap((change) => (change._tag === "Insert" ? [change] : []))
      assert.deepStrictEqual(
        inserts.map(({ relation, row }) => [
          typeof row.z1,
          relation.columns.find(({ name }) => name === "z1")?.typeName
        ]),
        [
          ["undefined", undefined],
          ...Array.from({ length: 4 }, () => ["number", "integer"]),
          ...Array.from({ length: 2 }, () => ["bigint", "bigint"])
        ]
      )
      const raw = yield* recorder.raw
      assert.deepStrictEqual(
        withoutRelations(raw),
        withoutRelations(expected([transaction, retyped, renamed])),
        "the server sends no other row"
      )
      assert.deepStrictEqual(
        [...shapes(raw, "t"), ...shapes(raw, "u")],
        [
          "R t(id*,a) ri=d",
          "R t(id*,a,z1) ri=d",
          "R t(id*,a,z1,z2) ri=d",
          ...Array.from({ length: 3 }, () => "R t(id*,z1,z2) ri=d"),
          "R u(id*,z1,z2) ri=d"
        ]
      )
      assert.notInclude(raw.join("\n"), "z9", "not even a description of what was rolled back")
    })
  )

  scenario("ddl-by-another", "shows in a transaction what another session made of a table meanwhile", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE u (a int PRIMARY KEY, b text)"
      })
      yield* recorder.run("INSERT INTO t VALUES (1)", "INSERT INTO u VALUES (1, '10')")
      yield* recorder.run("BEGIN", "INSERT INTO t VALUES (2)")
      yield* recorder.sql("ALTER TABLE u ALTER b TYPE int USING b::int")
      yield* recorder.run("INSERT INTO u VALUES (2, 20)", "INSERT INTO t VALUES (3)", "COMMIT")
      yield* recorder.run("BEGIN", "INSERT INTO t VALUES (4)")
      yield* recorder.sql("ALTER TABLE u ADD c text DEFAULT 'c'")
      yield* recorder.run("INSERT INTO u VALUES (3, 30)", "INSERT INTO t VALUES (5)", "COMMIT")
      yield* recorder.run("BEGIN", "INSERT INTO t VALUES (6)")
      yield* recorder.sql("ALTER TABLE u DROP b")
      yield* recorder.run("INSERT INTO u VALUES (4)", "INSERT INTO t VALUES (7)", "COMMIT")
      const units = [
        "I t{a=1}",
        "I u{a=1,b=10}",
        ["I t{a=2}", "R u(a*,b) ri=d", "I u{a=2,b=20}", "I t{a=3}"],
        ["I t{a=4}", "R u(a*,b,c) ri=d", "I u{a=3,b=30,c=c}", "I t{a=5}"],
        ["I t{a=6}", "R u(a*,c) ri=d", "I u{a=4,c=c}", "I t{a=7}"]
      ]
      const changes = yield* recorder.expect(...units)
      const values = changes.flatMap((change) =>
        change._tag === "Insert" && change.relation.name === "u" ? [change.row.b] : []
      )
      assert.deepStrictEqual(values, ["10", 20, 30, undefined])
      // The server describes u again each time.
      yield* recorder.expectRaw(["R t(a*) ri=d", "I t{a=1}"], ["R u(a*,b) ri=d", "I u{a=1,b=10}"], ...units.slice(2))
    })
  )

  scenario(
    "rewrite-silent",
    "shows no row of a rewrite, and a relation only where its shape or key is another",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, { sql: "CREATE TABLE t (a int PRIMARY KEY, b int)" })
        yield* recorder.run("INSERT INTO t VALUES (1, 1)")
        yield* recorder.run("VACUUM FULL t", "INSERT INTO t VALUES (2, 2)")
        yield* recorder.run("CLUSTER t USING t_pkey", "INSERT INTO t VALUES (3, 3)")
        yield* recorder.run("REINDEX TABLE t", "INSERT INTO t VALUES (4, 4)")
        yield* recorder.run("ALTER TABLE t ALTER b TYPE bigint", "INSERT INTO t VALUES (5, 5)")
        yield* recorder.run("ALTER TABLE t ADD v float8 DEFAULT random()", "INSERT INTO t VALUES (6, 6, 0.5)")
        for (const [index, catalog] of ["pg_class", "pg_attribute", "pg_type"].entries()) {
          yield* recorder.run(`VACUUM FULL pg_catalog.${catalog}`, `INSERT INTO t VALUES (${7 + index}, 7, 0.5)`)
        }
        yield* recorder.run("ALTER TABLE t DROP CONSTRAINT t_pkey", "INSERT INTO t VALUES (10, 10, 0.5)")
        yield* recorder.run("ALTER TABLE t ADD PRIMARY KEY (a)", "INSERT INTO t VALUES (11, 11, 0.5)")
        const rows = [
          ...[1, 2, 3, 4].map((a) => `I t{a=${a},b=${a}}`),
          "I t{a=5,b=5}",
          "I t{a=6,b=6,v=0.5}",
          ...[7, 8, 9].map((a) => `I t{a=${a},b=7,v=0.5}`),
          "I t{a=10,b=10,v=0.5}",
          "I t{a=11,b=11,v=0.5}"
        ]
        const changed = new Map([
          [4, "R t(a*,b) ri=d"],
          [5, "R t(a*,b,v) ri=d"],
          [9, "R t(a,b,v) ri=d"],
          [10, "R t(a*,b,v) ri=d"]
        ])
        yield* recorder.expect(...rows.map((row, index) => (changed.has(index) ? [changed.get(index)!, row] : row)))
        const raw = yield* recorder.raw
        assert.deepStrictEqual(withoutRelations(raw), expected(rows))
        // How often it is described is the server's own affair.
        const described = shapes(raw, "t")
        assert.deepStrictEqual(
          described.filter((shape, index) => shape !== described[index - 1]),
          ["R t(a*,b) ri=d", "R t(a*,b,v) ri=d", "R t(a,b,v) ri=d", "R t(a*,b,v) ri=d"]
        )
        for (const [index, relation] of changed) {
          assert.strictEqual(raw[raw.indexOf(rows[index]!) - 1], relation, "right before the first row")
        }
      })
  )

  scenario("drop-recreate", "tells a table from one of the same name that it replaces, by its OID", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: "CREATE TABLE t (a int PRIMARY KEY)" })
      yield* recorder.run(
        "INSERT INTO t VALUES (1)",
        "DROP TABLE t",
        "CREATE TABLE t (x text, y text)",
        "INSERT INTO t VALUES ('one', 'two')",
        "BEGIN",
        "INSERT INTO t VALUES ('three', 'four')",
        "DROP TABLE t",
        "CREATE TABLE t (y bool)",
        "INSERT INTO t VALUES (true)",
        "COMMIT"
      )
      const changes = yield* recorder.expect("I t{a=1}", "I t{x=one,y=two}", ["I t{x=three,y=four}", "I t{y=true}"])
      const relations = ["R t(a*) ri=d", "R t(x,y) ri=d", "R t(y) ri=d"]
      assert.deepStrictEqual(relationsOf(changes), relations)
      const oids = changes.flatMap((change) => (change._tag === "Insert" ? [change.relation.oid] : []))
      assert.strictEqual(oids[1], oids[2])
      assert.strictEqual(new Set(oids).size, 3)
      const [first, second, third] = relations
      yield* recorder.expectRaw(
        [first!, "I t{a=1}"],
        [second!, "I t{x=one,y=two}"],
        ["I t{x=three,y=four}", third!, "I t{y=t}"]
      )
    })
  )
})
