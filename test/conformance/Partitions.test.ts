/** Partitions, inheritance, truncate: under which name a row of a table of many parts comes, and what TRUNCATE says. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { record, relationsOf, scenario } from "../support/Conformance.ts"

/** Partitioned by list: r1 holds its columns in another order, rd is the default partition. */
const partitioned = `
  CREATE TABLE r (a int PRIMARY KEY, b text) PARTITION BY LIST (a);
  CREATE TABLE r1 (b text, a int PRIMARY KEY);
  ALTER TABLE r ATTACH PARTITION r1 FOR VALUES IN (1, 2);
  CREATE TABLE rd PARTITION OF r DEFAULT`

const rowsOfPartitions = [
  "INSERT INTO r VALUES (1, 'x')",
  "INSERT INTO r VALUES (9, 'd')",
  "UPDATE r SET b = 'y' WHERE a = 1",
  "UPDATE r SET a = 2 WHERE a = 1",
  "UPDATE r SET a = 10 WHERE a = 2",
  "DELETE FROM r WHERE a = 9"
]

describe("Partitions, inheritance, truncate", () => {
  scenario("partition-leaf", "shows each leaf under its own name and in its own order of columns", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: partitioned, publication: "FOR TABLE r" })
      yield* recorder.run(...rowsOfPartitions, "TRUNCATE r1", "TRUNCATE r")
      const changes = yield* recorder.expect(
        "I r1{b=x,a=1}",
        "I rd{a=9,b=d}",
        "U r1 N{b=y,a=1}",
        "U r1 K{a=1} N{b=y,a=2}",
        ["D r1 K{a=2}", "I rd{a=10,b=y}"],
        "D rd K{a=9}",
        "T[r1]",
        "T[r1,rd]"
      )
      assert.deepStrictEqual(relationsOf(changes), ["R r1(b,a*) ri=d", "R rd(a*,b) ri=d"])
    })
  )

  scenario("partition-root", "shows every leaf as the root where the publication says so", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: partitioned,
        publication: "FOR TABLE r WITH (publish_via_partition_root)"
      })
      yield* recorder.run(...rowsOfPartitions, "TRUNCATE r1", "TRUNCATE r")
      const changes = yield* recorder.expect(
        "I r{a=1,b=x}",
        "I r{a=9,b=d}",
        "U r N{a=1,b=y}",
        "U r K{a=1} N{a=2,b=y}",
        ["D r K{a=2}", "I r{a=10,b=y}"],
        "D r K{a=9}",
        "T[r]"
      )
      assert.deepStrictEqual(relationsOf(changes), ["R r(a*,b) ri=d"])
      const root = "R r(a*,b) ri=d"
      yield* recorder.expectRaw(
        [root, "R r1(b,a*) ri=d", "I r{a=1,b=x}"],
        [root, "R rd(a*,b) ri=d", "I r{a=9,b=d}"],
        "U r N{a=1,b=y}",
        "U r K{a=1} N{a=2,b=y}",
        ["D r K{a=2}", "I r{a=10,b=y}"],
        "D r K{a=9}",
        [root, "T[r]"]
      )

      yield* recorder.run(
        "CREATE TABLE r3 PARTITION OF r FOR VALUES IN (3)",
        "INSERT INTO r VALUES (3, 'later')",
        "ALTER TABLE r DETACH PARTITION r3",
        "INSERT INTO r3 VALUES (4, 'apart')"
      )
      // 14 remembers under which name it sent the leaf before.
      const detached = server.majorVersion === 14 ? ["I r{a=4,b=apart}"] : []
      yield* recorder.expect("I r{a=3,b=later}", ...detached)

      yield* recorder.run("ALTER TABLE r ADD COLUMN c int DEFAULT 7", "INSERT INTO r VALUES (1, 'wider')")
      yield* recorder.expect(["R r(a*,b,c) ri=d", "R r1(b,a*,c) ri=d", "I r{a=1,b=wider,c=7}"])
    })
  )

  scenario("inheritance", "shows children under their own names, and those of ONLY's parent not at all", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `
          CREATE TABLE par (a int PRIMARY KEY);
          CREATE TABLE ch (b text, PRIMARY KEY (a)) INHERITS (par);
          CREATE TABLE onlyp (a int PRIMARY KEY);
          CREATE TABLE onlych (b text, PRIMARY KEY (a)) INHERITS (onlyp)`,
        publication: "FOR TABLE par, ONLY onlyp"
      })
      yield* recorder.run(
        "INSERT INTO par VALUES (1)",
        "INSERT INTO ch VALUES (2, 'x')",
        "UPDATE par SET a = a + 10",
        "INSERT INTO onlyp VALUES (1)",
        "INSERT INTO onlych VALUES (2, 'x')",
        "UPDATE onlyp SET a = a + 10"
      )
      const changes = yield* recorder.expect(
        "I par{a=1}",
        "I ch{a=2,b=x}",
        ["U par K{a=1} N{a=11}", "U ch K{a=2} N{a=12,b=x}"],
        "I onlyp{a=1}",
        "U onlyp K{a=1} N{a=11}"
      )
      assert.deepStrictEqual(relationsOf(changes), ["R par(a*) ri=d", "R ch(a*,b) ri=d", "R onlyp(a*) ri=d"])
    })
  )

  scenario("truncate", "shows one TRUNCATE a statement, of the tables that publish truncates", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `
          CREATE TABLE t1 (a int PRIMARY KEY);
          CREATE TABLE t2 (a int PRIMARY KEY);
          CREATE TABLE t3 (a int PRIMARY KEY);
          CREATE TABLE t4 (a int REFERENCES t3);
          CREATE PUBLICATION p FOR TABLE t1, t3, t4;
          CREATE PUBLICATION p2 FOR TABLE t2 WITH (publish = 'insert, update, delete')`,
        publications: ["p", "p2"]
      })
      yield* recorder.run(
        "TRUNCATE t1",
        "TRUNCATE t1 RESTART IDENTITY",
        "TRUNCATE t3, t4",
        "TRUNCATE t3 CASCADE",
        "TRUNCATE t1, t2",
        "TRUNCATE t2"
      )
      yield* recorder.run("BEGIN", "TRUNCATE t1", "ROLLBACK")
      yield* recorder.run("BEGIN", "INSERT INTO t1 VALUES (1)", "TRUNCATE t1", "INSERT INTO t1 VALUES (2)", "COMMIT")
      const changes = yield* recorder.expect("T[t1]", "T[t1] restart", "T[t3,t4]", "T[t3,t4] cascade", "T[t1]", [
        "I t1{a=1}",
        "T[t1]",
        "I t1{a=2}"
      ])
      assert.deepStrictEqual(relationsOf(changes), ["R t1(a*) ri=d", "R t3(a*) ri=d", "R t4(a) ri=d"])
      const [one, three, four] = ["R t1(a*) ri=d", "R t3(a*) ri=d", "R t4(a) ri=d"] as const
      yield* recorder.expectRaw(
        [one, "T[t1]"],
        [one, "T[t1] restart"],
        [three, four, "T[t3,t4]"],
        [three, four, "T[t3,t4] cascade"],
        [one, "T[t1]"],
        [one, "I t1{a=1}", one, "T[t1]", "I t1{a=2}"]
      )
    })
  )
})
