/** Identity and rows: what a change says of the row before, and that no row is dropped, merged or moved. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { expected, record, relationsOf, scenario } from "../support/Conformance.ts"

describe("Identity and rows", () => {
  scenario("ri-default", "tells the old key where an update changes it, and no old row where not", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: "CREATE TABLE t (a int PRIMARY KEY, b text)" })
      yield* recorder.run(
        "INSERT INTO t VALUES (1, 'x')",
        "UPDATE t SET b = 'y'",
        "UPDATE t SET a = 1",
        "UPDATE t SET a = 2",
        "DELETE FROM t"
      )
      const [insert, ...rest] = [
        "I t{a=1,b=x}",
        "U t N{a=1,b=y}",
        "U t N{a=1,b=y}",
        "U t K{a=1} N{a=2,b=y}",
        "D t K{a=2}"
      ] as const
      const changes = yield* recorder.expect(insert, ...rest)
      assert.deepStrictEqual(relationsOf(changes), ["R t(a*,b) ri=d"])
      yield* recorder.expectRaw(["R t(a*,b) ri=d", insert], ...rest)
    })
  )

  scenario(
    "ri-full",
    "tells the whole old row under FULL without a key, and drops no equal row as a duplicate",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: "CREATE TABLE f (a int, b text); ALTER TABLE f REPLICA IDENTITY FULL"
        })
        yield* recorder.run(
          "INSERT INTO f VALUES (1, 'x'), (1, 'x')",
          "UPDATE f SET b = 'y' WHERE ctid = (SELECT ctid FROM f ORDER BY ctid LIMIT 1)",
          "DELETE FROM f"
        )
        const changes = yield* recorder.expect(["I f{a=1,b=x}", "I f{a=1,b=x}"], "U f O{a=1,b=x} N{a=1,b=y}", [
          "D f O{a=1,b=x}",
          "D f O{a=1,b=y}"
        ])
        assert.deepStrictEqual(relationsOf(changes), ["R f(a*,b*) ri=f"])
      })
  )

  scenario("ri-full-with-pk", "tells the whole old row under FULL although there is a primary key", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: "CREATE TABLE f (a int PRIMARY KEY, b text); ALTER TABLE f REPLICA IDENTITY FULL"
      })
      yield* recorder.run("INSERT INTO f VALUES (1, 'x')", "UPDATE f SET b = 'y'", "DELETE FROM f")
      const changes = yield* recorder.expect("I f{a=1,b=x}", "U f O{a=1,b=x} N{a=1,b=y}", "D f O{a=1,b=y}")
      assert.deepStrictEqual(relationsOf(changes), ["R f(a*,b*) ri=f"])
    })
  )

  scenario("ri-missing", "streams inserts where nothing identifies a row, and the source refuses the rest", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: "CREATE TABLE n (a int); ALTER TABLE n REPLICA IDENTITY NOTHING; CREATE TABLE m (a int)"
      })
      for (const table of ["n", "m"]) {
        yield* recorder.run(`INSERT INTO ${table} VALUES (1)`)
        for (const refused of [`UPDATE ${table} SET a = 2`, `DELETE FROM ${table}`]) {
          assert.strictEqual((yield* Effect.flip(recorder.run(refused))).sqlState, "55000")
        }
        yield* recorder.run(`INSERT INTO ${table} VALUES (3)`)
      }
      const changes = yield* recorder.expect("I n{a=1}", "I n{a=3}", "I m{a=1}", "I m{a=3}")
      assert.deepStrictEqual(relationsOf(changes), ["R n(a) ri=n", "R m(a) ri=d"])
    })
  )

  scenario("ri-switch", "replaces what it knows of a relation whenever its replica identity is switched", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `
          CREATE TABLE t (a int NOT NULL, b int NOT NULL);
          CREATE UNIQUE INDEX by_a ON t (a);
          CREATE UNIQUE INDEX by_b ON t (b);
          ALTER TABLE t REPLICA IDENTITY USING INDEX by_a`
      })
      yield* recorder.run(
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "ALTER TABLE t REPLICA IDENTITY USING INDEX by_b",
        "UPDATE t SET a = -a WHERE a = 1",
        "DELETE FROM t WHERE a = 2",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "UPDATE t SET a = 5",
        "ALTER TABLE t REPLICA IDENTITY NOTHING",
        "INSERT INTO t VALUES (6, 6)"
      )
      const changes = yield* recorder.expect(
        ["I t{a=1,b=1}", "I t{a=2,b=2}"],
        ["R t(a,b*) ri=i", "U t N{a=-1,b=1}"],
        "D t K{b=2}",
        ["R t(a*,b*) ri=f", "U t O{a=-1,b=1} N{a=5,b=1}"],
        ["R t(a,b) ri=n", "I t{a=6,b=6}"]
      )
      assert.deepStrictEqual(relationsOf(changes), [
        "R t(a*,b) ri=i",
        "R t(a,b*) ri=i",
        "R t(a*,b*) ri=f",
        "R t(a,b) ri=n"
      ])
    })
  )

  scenario("composite-key", "tells all columns of a composite key, in the order of the table", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: "CREATE TABLE c (a int, b text, d int, PRIMARY KEY (b, a))"
      })
      yield* recorder.run(
        "INSERT INTO c VALUES (1, 'k', 1)",
        "UPDATE c SET d = 2",
        "UPDATE c SET a = 2",
        "UPDATE c SET a = 2, b = 'k', d = 2",
        "DELETE FROM c"
      )
      const changes = yield* recorder.expect(
        "I c{a=1,b=k,d=1}",
        "U c N{a=1,b=k,d=2}",
        "U c K{a=1,b=k} N{a=2,b=k,d=2}",
        "U c N{a=2,b=k,d=2}",
        "D c K{a=2,b=k}"
      )
      assert.deepStrictEqual(relationsOf(changes), ["R c(a*,b*,d) ri=d"])
    })
  )

  scenario("update-no-change", "streams an update that changes nothing, and nothing where no row matched", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `
          CREATE TABLE t (a int PRIMARY KEY, b text);
          CREATE TABLE f (a int PRIMARY KEY, b text);
          ALTER TABLE f REPLICA IDENTITY FULL`
      })
      for (const table of ["t", "f"]) {
        yield* recorder.run(
          `INSERT INTO ${table} VALUES (1, 'x')`,
          `UPDATE ${table} SET b = b`,
          `UPDATE ${table} SET b = 'never' WHERE a = 2`
        )
      }
      yield* recorder.expect("I t{a=1,b=x}", "U t N{a=1,b=x}", "I f{a=1,b=x}", "U f O{a=1,b=x} N{a=1,b=x}")
    })
  )

  scenario("one-row-many-changes", "merges none of the changes that one transaction makes to one row", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: "CREATE TABLE t (a int PRIMARY KEY, b int)" })
      yield* recorder.run(
        "BEGIN",
        "INSERT INTO t VALUES (1, 0)",
        "UPDATE t SET b = 1",
        "UPDATE t SET b = 2",
        "DELETE FROM t",
        "INSERT INTO t VALUES (1, 3)",
        "UPDATE t SET a = 2",
        "UPDATE t SET a = 1",
        "COMMIT"
      )
      yield* recorder.expect([
        "I t{a=1,b=0}",
        "U t N{a=1,b=1}",
        "U t N{a=1,b=2}",
        "D t K{a=1}",
        "I t{a=1,b=3}",
        "U t K{a=1} N{a=2,b=3}",
        "U t K{a=2} N{a=1,b=3}"
      ])
    })
  )

  scenario(
    "upsert-merge-cte",
    "shows ON CONFLICT, MERGE and data-modifying WITH as the plain changes they made, as executed",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: "CREATE TABLE t (a int PRIMARY KEY, b text); CREATE TABLE u (a int PRIMARY KEY, b text)"
        })
        // A plan whose order of execution is the order of the source, on every version.
        yield* recorder.run("SET enable_hashjoin = off", "SET enable_mergejoin = off")
        yield* recorder.run(
          "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
          "INSERT INTO t VALUES (2, 'new'), (3, 'three') ON CONFLICT (a) DO UPDATE SET b = excluded.b || t.b",
          "INSERT INTO t VALUES (3, 'clash') ON CONFLICT DO NOTHING",
          `MERGE INTO t USING (VALUES (1), (2), (9)) AS s (a) ON t.a = s.a
             WHEN MATCHED AND t.a = 1 THEN DELETE
             WHEN MATCHED THEN UPDATE SET b = 'merged'
             WHEN NOT MATCHED THEN INSERT VALUES (s.a, 'nine')`,
          `WITH gone AS (DELETE FROM t WHERE a > 2 RETURNING a, b),
                kept AS (INSERT INTO u SELECT a, b FROM gone RETURNING a)
           INSERT INTO t SELECT a + 100, 'again' FROM kept`
        )
        const units = [
          ["I t{a=1,b=one}", "I t{a=2,b=two}"],
          ["U t N{a=2,b=newtwo}", "I t{a=3,b=three}"],
          ["D t K{a=1}", "U t N{a=2,b=merged}", "I t{a=9,b=nine}"],
          [
            ...["D t K{a=3}", "I u{a=3,b=three}", "I t{a=103,b=again}"],
            ...["D t K{a=9}", "I u{a=9,b=nine}", "I t{a=109,b=again}"]
          ]
        ]
        yield* recorder.expect(...units)
        const withoutRelations = (yield* recorder.raw).filter((line) => !line.startsWith("R "))
        assert.deepStrictEqual(withoutRelations, expected(units))
      }),
    { since: 15 }
  )

  scenario("cascade-trigger", "shows rows as triggers left them, and cascades as changes of their own", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `
          CREATE TABLE a (i int PRIMARY KEY);
          CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON UPDATE CASCADE ON DELETE CASCADE);
          CREATE TABLE aud (what text);
          CREATE FUNCTION log_a() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN
            INSERT INTO aud VALUES (TG_OP || NEW.i);
            NEW.i := NEW.i + 10;
            RETURN NEW;
          END $$;
          CREATE TRIGGER log_a BEFORE INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION log_a()`
      })
      yield* recorder.run(
        "INSERT INTO a VALUES (1)",
        "INSERT INTO b VALUES (1, 11), (2, 11)",
        "UPDATE a SET i = 20",
        "DELETE FROM a"
      )
      yield* recorder.expect(
        ["I aud{what=INSERT1}", "I a{i=11}"],
        ["I b{id=1,a=11}", "I b{id=2,a=11}"],
        ["I aud{what=UPDATE20}", "U a K{i=11} N{i=30}", "U b N{id=1,a=30}", "U b N{id=2,a=30}"],
        ["D a K{i=30}", "D b K{id=1}", "D b K{id=2}"]
      )
    })
  )

  scenario("bulk-copy", "gives each row that COPY or INSERT .. SELECT writes in batches, in their order", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: "CREATE TABLE t (a int, b text)" })
      const [row] = yield* recorder.sql("SELECT current_setting('data_directory') AS directory")
      // The server's own file, gone with the server.
      const file = `'${row?.directory}/${recorder.database}.copy'`
      yield* recorder.run(
        `COPY (VALUES (1, 'x'), (2, NULL), (3, repeat('y', 9000))) TO ${file}`,
        `COPY t FROM ${file}`,
        "INSERT INTO t SELECT a + 3, b FROM t ORDER BY a",
        `BEGIN`,
        "TRUNCATE t",
        `COPY t FROM ${file} WITH (FREEZE)`,
        "COMMIT"
      )
      const copied = ["I t{a=1,b=x}", "I t{a=2,b=null}", "I t{a=3,b=y*9000}"]
      yield* recorder.expect(copied, ["I t{a=4,b=x}", "I t{a=5,b=null}", "I t{a=6,b=y*9000}"], ["T[t]", ...copied])
    })
  )
})
