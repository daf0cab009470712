/** Columns, filters, publications: which changes a subscriber sees, of which tables, and which columns of them. */
import { assert, describe } from "@effect/vitest"
import { Pgoutput } from "@replicant/core"
import { Effect, Logger } from "effect"
import { expected, record, relationsOf, scenario } from "../support/Conformance.ts"
import { follow } from "../support/Follow.ts"
import { untilConfirmed } from "../support/Slot.ts"
import { makeWorkspace } from "../support/Workspace.ts"

describe("Columns, filters, publications", () => {
  scenario(
    "dropped-column",
    "leaves a dropped column out of relation and rows, also of rows that still hold it",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: `
          CREATE TABLE d (a int, gone int, c int);
          ALTER TABLE d REPLICA IDENTITY FULL;
          INSERT INTO d VALUES (1, 1, 1)`
        })
        yield* recorder.run("ALTER TABLE d DROP gone", "UPDATE d SET a = 100", "DELETE FROM d")
        const changes = yield* recorder.expect("U d O{a=1,c=1} N{a=100,c=1}", "D d O{a=100,c=1}")
        assert.deepStrictEqual(relationsOf(changes), ["R d(a*,c*) ri=f"])
      })
  )

  scenario("fast-default", "shows the default of a column that is younger than its row, never null", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `
          CREATE TABLE t (a int);
          ALTER TABLE t REPLICA IDENTITY FULL;
          INSERT INTO t VALUES (1);
          ALTER TABLE t ADD COLUMN b bool DEFAULT false NOT NULL`
      })
      yield* recorder.run("UPDATE t SET a = 2", "ALTER TABLE t ADD COLUMN c text DEFAULT 'dflt'", "UPDATE t SET a = 3")
      yield* recorder.expect("U t O{a=1,b=false} N{a=2,b=false}", [
        "R t(a*,b*,c*) ri=f",
        "U t O{a=2,b=false,c=dflt} N{a=3,b=false,c=dflt}"
      ])
    })
  )

  scenario("generated-none", "shows a generated column in no relation and no row", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: "CREATE TABLE t (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED, c text)"
      })
      yield* recorder.run(
        "INSERT INTO t (a, c) VALUES (1, 'x')",
        "UPDATE t SET a = 2",
        "UPDATE t SET c = 'y'",
        "DELETE FROM t"
      )
      const changes = yield* recorder.expect("I t{a=1,c=x}", "U t K{a=1} N{a=2,c=x}", "U t N{a=2,c=y}", "D t K{a=2}")
      assert.deepStrictEqual(relationsOf(changes), ["R t(a*,c) ri=d"])
    })
  )

  scenario(
    "column-list",
    "shows the listed columns only, and an update of others as one that changed nothing",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: "CREATE TABLE t (a int PRIMARY KEY, b text, c text, d text)",
          publication: "FOR TABLE t (a, c)"
        })
        yield* recorder.run(
          "INSERT INTO t VALUES (1, 'b', 'c', 'd')",
          "UPDATE t SET b = 'B'",
          "UPDATE t SET c = 'C'",
          "UPDATE t SET a = 2",
          "DELETE FROM t",
          "ALTER TABLE t ADD COLUMN e int DEFAULT 5",
          "INSERT INTO t VALUES (3, 'b', 'c', 'd', 6)"
        )
        const units = [
          "I t{a=1,c=c}",
          "U t N{a=1,c=c}",
          "U t N{a=1,c=C}",
          "U t K{a=1} N{a=2,c=C}",
          "D t K{a=2}",
          "I t{a=3,c=c}"
        ] as const
        const changes = yield* recorder.expect(...units)
        assert.deepStrictEqual(relationsOf(changes), ["R t(a*,c) ri=d"])
        const relation = "R t(a*,c) ri=d"
        // The server describes it again, in the same words: that is no change of it.
        yield* recorder.expectRaw([relation, units[0]], ...units.slice(1, -1), [relation, units[5]])
      }),
    { since: 15 }
  )

  scenario(
    "row-filter",
    "shows an update that leaves the filter as a delete, and one that enters it as an insert of the whole row",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: "CREATE TABLE t (a int PRIMARY KEY, b text)",
          publication: "FOR TABLE t WHERE (a > 10)"
        })
        yield* recorder.run(
          "INSERT INTO t VALUES (1, 'x')",
          "INSERT INTO t VALUES (20, 'x')",
          "UPDATE t SET b = 'y' WHERE a = 20",
          "UPDATE t SET a = 5 WHERE a = 20",
          "UPDATE t SET b = 'z' WHERE a = 5",
          "UPDATE t SET a = 30 WHERE a = 5",
          "UPDATE t SET a = 31 WHERE a = 30",
          "DELETE FROM t WHERE a = 1",
          "DELETE FROM t WHERE a = 31"
        )
        yield* recorder.expect(
          "I t{a=20,b=x}",
          "U t N{a=20,b=y}",
          "D t K{a=20}",
          "I t{a=30,b=z}",
          "U t K{a=30} N{a=31,b=z}",
          "D t K{a=31}"
        )
      }),
    { since: 15 }
  )

  scenario("publish-ops", "shows the operations that are published, and follows a change of them", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: "CREATE TABLE t (a int PRIMARY KEY, b text)",
        publication: "FOR TABLE t WITH (publish = 'insert')"
      })
      const everything = [
        "INSERT INTO t VALUES (1, 'x')",
        "UPDATE t SET b = 'y'",
        "DELETE FROM t",
        "INSERT INTO t VALUES (2, 'x')",
        "TRUNCATE t"
      ]
      yield* recorder.run(...everything)
      yield* recorder.expect("I t{a=1,b=x}", "I t{a=2,b=x}")
      yield* recorder.run(
        `ALTER PUBLICATION ${recorder.publication} SET (publish = 'insert, delete, truncate')`,
        ...everything
      )
      yield* recorder.expect("I t{a=1,b=x}", "D t K{a=1}", "I t{a=2,b=x}", "T[t]")
      const relation = "R t(a*,b) ri=d"
      yield* recorder.expectRaw(
        [relation, "I t{a=1,b=x}"],
        "I t{a=2,b=x}",
        [relation, "I t{a=1,b=x}"],
        "D t K{a=1}",
        "I t{a=2,b=x}",
        // A truncated table is described again, as it has a new file.
        [relation, "T[t]"]
      )
    })
  )

  scenario("publications-union", "shows what any of the publications asked for publishes, once each", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `
          CREATE TABLE t (a int PRIMARY KEY, b text);
          CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert');
          CREATE PUBLICATION p2 FOR TABLE t WITH (publish = 'update')`,
        publications: ["p", "p2"]
      })
      yield* recorder.run("INSERT INTO t VALUES (1, 'x')", "UPDATE t SET b = 'y'", "DELETE FROM t")
      yield* recorder.expect("I t{a=1,b=x}", "U t N{a=1,b=y}")
    })
  )

  scenario(
    "table-joins-later",
    "shows what was published at a change's own place in the log, whenever it is read",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE other (a int)",
          publication: "FOR TABLE other"
        })
        const add = `ALTER PUBLICATION ${recorder.publication} ADD TABLE t`
        const drop = `ALTER PUBLICATION ${recorder.publication} DROP TABLE t`
        yield* recorder.run(
          "INSERT INTO t VALUES (1)",
          add,
          "INSERT INTO t VALUES (2)",
          "BEGIN",
          "INSERT INTO t VALUES (3)",
          drop,
          "INSERT INTO t VALUES (4)",
          "COMMIT",
          "INSERT INTO t VALUES (5)",
          add,
          "INSERT INTO t VALUES (6)"
        )
        const units = ["I t{a=2}", "I t{a=3}", "I t{a=6}"]
        yield* recorder.expect(...units)
        const readLater = (yield* recorder.raw).filter((line) => !line.startsWith("R "))
        assert.deepStrictEqual(readLater, expected(units))
      })
  )

  scenario("all-tables", "shows tables that come later, and nothing of what is not logged or no table", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server)
      yield* recorder.run(
        "CREATE TABLE t (a int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "CREATE TEMP TABLE temporary (a int)",
        "INSERT INTO temporary VALUES (1)",
        "UPDATE temporary SET a = 2",
        "DELETE FROM temporary",
        "CREATE UNLOGGED TABLE unlogged (a int)",
        "INSERT INTO unlogged VALUES (1)",
        "UPDATE unlogged SET a = 2"
      )
      yield* recorder.expect("I t{a=1}")
      yield* recorder.run("ALTER TABLE unlogged SET LOGGED", "INSERT INTO unlogged VALUES (3)")
      yield* recorder.expect("I unlogged{a=3}")
      yield* recorder.run(
        "CREATE MATERIALIZED VIEW v AS SELECT a + 1 AS a FROM t",
        "INSERT INTO t VALUES (2)",
        "REFRESH MATERIALIZED VIEW v",
        "CREATE SEQUENCE s",
        "SELECT nextval('s')",
        "CREATE TABLE copied AS SELECT a FROM t",
        "SELECT a INTO selected FROM t WHERE a = 2"
      )
      yield* recorder.expect("I t{a=2}", ["I copied{a=1}", "I copied{a=2}"], "I selected{a=2}")
    })
  )

  scenario(
    "schema-publication",
    "shows the tables that are in the schema as they change: moved in, made there, and no more once moved out",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: "CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE TABLE s1.a (n int); CREATE TABLE s2.b (n int)",
          publication: "FOR TABLES IN SCHEMA s1"
        })
        yield* recorder.run(
          "INSERT INTO s1.a VALUES (1)",
          "INSERT INTO s2.b VALUES (1)",
          "ALTER TABLE s2.b SET SCHEMA s1",
          "INSERT INTO s1.b VALUES (2)",
          "CREATE TABLE s1.c (n int)",
          "INSERT INTO s1.c VALUES (1)",
          "ALTER TABLE s1.a SET SCHEMA s2",
          "INSERT INTO s2.a VALUES (2)"
        )
        yield* recorder.expect("I s1.a{n=1}", "I s1.b{n=2}", "I s1.c{n=1}")
      }),
    { since: 15 }
  )

  scenario(
    "publication-missing",
    "fails for good where changes were made without the publication, silent as 18 is",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (a int PRIMARY KEY)" })
        const isLasting = { _tag: "PublicationNotFound", isRetryable: false } as const
        const plugin = Pgoutput.make({ publications: ["never_there"] })
        const atStart = yield* follow(workspace, { options: { plugin } })
        assert.deepInclude(yield* atStart.failure, { ...isLasting, publications: ["never_there"] })
        const readSql = `
        SELECT convert_from(substr(data, 14), 'UTF8') AS value
        FROM pg_logical_slot_peek_binary_changes('${workspace.slot}', NULL, NULL,
          'proto_version', '1', 'publication_names', '${workspace.publication}')
        WHERE substr(data, 1, 1) = 'I'`

        const logged: Array<string> = []
        const logger = Logger.layer([Logger.make(({ message }) => logged.push([message].flat().join(" ")))])
        const stream = yield* Effect.provide(follow(workspace), logger)
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw("Commit", 1)
        yield* untilConfirmed(workspace, stream.changes)
        yield* workspace.sql(`DROP PUBLICATION ${workspace.publication}`)
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        assert.deepInclude(yield* stream.failure, isLasting)
        yield* workspace.sql(`CREATE PUBLICATION ${workspace.publication} FOR ALL TABLES`)
        yield* workspace.sql("INSERT INTO t VALUES (3)")
        for (let attempt = 1; attempt <= 2; attempt++) {
          const again = yield* Effect.provide(follow(workspace), logger)
          assert.deepInclude(yield* again.failure, isLasting, "the past has no publication, now as then")
          assert.deepStrictEqual(
            again.changes.filter((change) => change._tag === "Insert"),
            []
          )
        }

        // What the server itself makes of it.
        if (server.majorVersion < 18) {
          assert.strictEqual((yield* Effect.flip(workspace.sql(readSql))).sqlState, "42704")
          assert.deepStrictEqual(
            logged.filter((text) => text.includes("55000")),
            []
          )
        } else {
          assert.deepStrictEqual(yield* workspace.sql(readSql), [{ value: "3" }])
          const warnings = logged.filter((text) => text.startsWith("WARNING 55000: "))
          assert.isAtLeast(warnings.length, 3, "one for each stream that met it")
          assert.isTrue(warnings.every((text) => text.includes(workspace.publication)))
        }
      })
  )

  scenario(
    "publication-names",
    "asks for publications by their exact names, whatever characters these hold",
    (server) =>
      Effect.gen(function* () {
        const names = ["MyPub", `p ub,"x'y`]
        const [mine, odd] = names.map((name) => `"${name.replaceAll('"', '""')}"`)
        const recorder = yield* record(server, {
          sql: `
          CREATE TABLE t (a int);
          CREATE TABLE u (a int);
          CREATE PUBLICATION ${mine} FOR TABLE t;
          CREATE PUBLICATION ${odd} FOR TABLE u`,
          publications: names
        })
        yield* recorder.run("INSERT INTO t VALUES (1)", "INSERT INTO u VALUES (2)")
        yield* recorder.expect("I t{a=1}", "I u{a=2}")
        yield* recorder.expectRaw(["R t(a) ri=d", "I t{a=1}"], ["R u(a) ri=d", "I u{a=2}"])

        const unquoted = recorder.sql(
          `SELECT FROM pg_logical_slot_peek_binary_changes('${recorder.slot}_raw', NULL, NULL,
           'proto_version', '1', 'publication_names', 'MyPub') WHERE substr(data, 1, 1) = 'I'`
        )
        if (server.majorVersion < 18) assert.strictEqual((yield* Effect.flip(unquoted)).sqlState, "42704")
        else assert.deepStrictEqual(yield* unquoted, [])
      })
  )
})
