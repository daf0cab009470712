/**
 * The set of tables is part of a copy's position: those that join the publication, leave it, come back or are published
 * otherwise, while the copy runs and while it does not. In the end both sides are equal, or it was said why not.
 */
import { assert, describe } from "@effect/vitest"
import type { Copy } from "@replicant/node"
import { Effect } from "effect"
import { caughtUp, copyOptions, markTable, startCopy } from "./support/Copying.ts"
import { eventually } from "./support/eventually.ts"
import { replicant } from "./support/Replicant.ts"
import { once, onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace, type WorkspaceServer } from "./support/Workspace.ts"

const tables = `CREATE TABLE early (id int PRIMARY KEY, v text); CREATE TABLE late (id int PRIMARY KEY, v text, big text);
  ALTER TABLE late ALTER big SET STORAGE EXTERNAL; ${markTable}`

/** Two sides with the same tables, of which the publication has some. */
const makeSides = Effect.fnUntraced(function* (
  server: WorkspaceServer,
  publication = "FOR TABLE early, end_mark",
  sql = tables
) {
  const source = yield* makeWorkspace(server, { sql, publication })
  const target = yield* makeWorkspace(server, { sql, publication })
  return { source, target, options: copyOptions(source, target) }
})

const rowsOf = (workspace: Workspace, table: string) =>
  workspace.sql(`SELECT t::text AS row FROM ${table} t ORDER BY 1`)

/** How far the copy of one table is. */
const stateOf = (source: Workspace, target: Workspace, name: string) =>
  Effect.map(
    target.sql(
      `SELECT t ->> 'state' AS state FROM replicant.copy_position, json_array_elements(tables::json) t
        WHERE slot = '${source.slot}' AND t ->> 'name' = '${name}'`
    ),
    ([row]) => row?.state
  )

const untilCovered = (source: Workspace, target: Workspace, name: string) =>
  eventually(
    Effect.map(stateOf(source, target, name), (state) => state === "covered"),
    { what: `${name} is covered` }
  )

const assertSame = Effect.fnUntraced(function* (source: Workspace, target: Workspace, table: string) {
  assert.deepStrictEqual(yield* rowsOf(target, table), yield* rowsOf(source, table), table)
})

/** Both may be equal before the last of it is stored: so the end of it is waited for by the rows. */
const untilSame = (source: Workspace, target: Workspace, table: string) =>
  eventually(
    Effect.zipWith(
      rowsOf(source, table),
      rowsOf(target, table),
      (there, here) => JSON.stringify(there) === JSON.stringify(here)
    ),
    { what: `${table} is the same on both sides` }
  )

const fill = "INSERT INTO late SELECT n, 'old', repeat('x', 3000) FROM generate_series(1, 400) n"

const refusal = (options: Copy.Options) =>
  Effect.scoped(Effect.flatMap(startCopy(options), (copying) => copying.failure))

describe("the tables of a copy", () => {
  onServer(
    "postgres",
    "[P11] brings the old rows of a table that joins while it runs, and what is written to it meanwhile",
    (server) =>
      Effect.gen(function* () {
        const { options, source, target } = yield* makeSides(server)
        yield* source.sql(fill)
        const copying = yield* startCopy(options)
        yield* copying.during(caughtUp(source, target))
        yield* source.sql(`ALTER PUBLICATION ${source.publication} ADD TABLE late`)
        yield* source.sql("INSERT INTO late VALUES (1000, 'new', NULL); INSERT INTO early VALUES (1, 'x')")
        let round = 0
        const stir = Effect.suspend(() => {
          round += 1
          const id = 1 + ((round * 37) % 400)
          return source.sql(`UPDATE late SET v = 'round ${round}' WHERE id = ${id}; DELETE FROM late WHERE id = ${id + 1};
            UPDATE late SET id = id + 5000 WHERE id = ${id + 2}; UPDATE late SET big = 'small' WHERE id = ${id + 3};
            INSERT INTO late VALUES (${10_000 + round}, 'new', repeat('y', 3000)); INSERT INTO early VALUES (${1 + round}, 'x')`)
        })
        yield* copying.during(
          Effect.raceFirst(Effect.forever(Effect.andThen(stir, Effect.yieldNow)), untilCovered(source, target, "late"))
        )
        yield* stir
        yield* copying.during(caughtUp(source, target))
        yield* assertSame(source, target, "late")
        yield* assertSame(source, target, "early")
        assert.strictEqual(copying.totals.missing, 0)
      }),
    { timeout: 90_000 }
  )

  onServer(
    "postgres",
    "[P11] brings a table that has joined while it did not run, and reads it once",
    (server) =>
      Effect.gen(function* () {
        const { options, source, target } = yield* makeSides(server)
        yield* source.sql(fill)
        const first = yield* startCopy(options)
        yield* first.during(caughtUp(source, target))
        yield* first.stop
        yield* source.sql(`ALTER PUBLICATION ${source.publication} ADD TABLE late`)
        yield* source.sql("DELETE FROM late WHERE id < 10")
        const second = yield* startCopy(options)
        yield* second.during(untilCovered(source, target, "late"))
        yield* second.during(caughtUp(source, target))
        yield* assertSame(source, target, "late")
        assert.strictEqual(second.totals.rows, 391)
        yield* second.stop
        const third = yield* startCopy(options)
        yield* third.during(caughtUp(source, target))
        assert.strictEqual(third.totals.rows, 0)
      }),
    { timeout: 90_000 }
  )

  onServer(
    "postgres",
    "[P11] never empties a table of the target's own that joins, in the stream or amid the first copy, unless it is told to",
    (server) =>
      Effect.gen(function* () {
        const { options, source, target } = yield* makeSides(server)
        yield* source.sql("INSERT INTO late VALUES (1, 'source')")
        yield* target.sql("INSERT INTO late VALUES (7, 'precious')")
        const copying = yield* startCopy(options)
        yield* copying.during(caughtUp(source, target))
        yield* source.sql(`ALTER PUBLICATION ${source.publication} ADD TABLE late`)
        yield* source.sql("INSERT INTO late VALUES (2, 'source')")
        const failure = yield* copying.failure
        assert.strictEqual(failure._tag, "TargetNotEmpty")
        assert.include(failure.message, '"public"."late"')
        assert.deepStrictEqual(yield* target.sql("SELECT v FROM late"), [{ v: "precious" }])
        // As if the first copy had been stopped half way, before the table joined.
        yield* target.sql(`UPDATE replicant.copy_position SET state = 'copying', end_lsn = '0/0', snapshot = NULL`)
        yield* source.sql(`SELECT pg_drop_replication_slot('${source.slot}')`)
        assert.strictEqual((yield* refusal(options))._tag, "TargetNotEmpty")
        assert.deepStrictEqual(yield* target.sql("SELECT v FROM late"), [{ v: "precious" }])
        const told = yield* startCopy({ ...options, whenFilled: "truncate" })
        yield* told.during(caughtUp(source, target))
        yield* assertSame(source, target, "late")
      }),
    { timeout: 90_000 }
  )

  for (const [title, away, back] of [
    ["is taken out and put in again", "DROP TABLE late", "ADD TABLE late"],
    [
      "is published without its deletes",
      "SET (publish = 'insert')",
      "SET (publish = 'insert, update, delete, truncate')"
    ]
  ] as const) {
    onServer(
      "postgres",
      `[P11] reads a table anew that ${title} while it does not run`,
      (server) =>
        Effect.gen(function* () {
          const { options, source, target } = yield* makeSides(server, "FOR TABLE early, late, end_mark")
          yield* source.sql(fill)
          const copying = yield* startCopy(options)
          yield* copying.during(caughtUp(source, target))
          yield* copying.stop
          yield* source.sql(`ALTER PUBLICATION ${source.publication} ${away}`)
          yield* source.sql("DELETE FROM late WHERE id < 100; UPDATE late SET v = 'unseen' WHERE id < 200")
          yield* source.sql(`ALTER PUBLICATION ${source.publication} ${back}`)
          yield* source.sql("INSERT INTO late VALUES (900, 'after')")
          const second = yield* startCopy(options)
          yield* second.during(untilSame(source, target, "late"))
          yield* second.during(untilCovered(source, target, "late"))
          yield* second.during(caughtUp(source, target))
          yield* assertSame(source, target, "late")
          assert.strictEqual(second.totals.missing, 0)
        }),
      { timeout: 90_000 }
    )
  }

  onServer(
    "postgres",
    "[P11] reads a partitioned table anew to which rows were attached, and not for a partition that is made",
    (server) =>
      Effect.gen(function* () {
        const parts = `CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
          CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (100); ${markTable}`
        const source = yield* makeWorkspace(server, {
          sql: parts,
          publication: "FOR TABLE parted, end_mark WITH (publish_via_partition_root)"
        })
        const target = yield* makeWorkspace(server, {
          sql: `CREATE TABLE parted (id int PRIMARY KEY, v text); ${markTable}`
        })
        const options = copyOptions(source, target)
        yield* source.sql("INSERT INTO parted VALUES (1, 'first')")
        const copying = yield* startCopy(options)
        yield* copying.during(caughtUp(source, target))
        yield* copying.stop
        yield* source.sql("CREATE TABLE high PARTITION OF parted FOR VALUES FROM (100) TO (200)")
        yield* source.sql("INSERT INTO parted VALUES (150, 'made')")
        const second = yield* startCopy(options)
        yield* second.during(caughtUp(source, target))
        yield* assertSame(source, target, "parted")
        assert.strictEqual(second.totals.rows, 0)
        yield* second.stop
        yield* source.sql("ALTER TABLE parted DETACH PARTITION high")
        yield* source.sql("UPDATE high SET v = 'unseen'; INSERT INTO high VALUES (151, 'unseen')")
        yield* source.sql("ALTER TABLE parted ATTACH PARTITION high FOR VALUES FROM (100) TO (200)")
        const third = yield* startCopy(options)
        yield* third.during(untilSame(source, target, "parted"))
        yield* third.during(untilCovered(source, target, "parted"))
      }),
    { timeout: 90_000 }
  )

  onServer(
    "postgres",
    "[P11] leaves what it has of a table that is published no more, and stores that it has left",
    (server) =>
      Effect.gen(function* () {
        const { options, source, target } = yield* makeSides(server, "FOR TABLE early, late, end_mark")
        yield* source.sql("INSERT INTO late VALUES (1, 'stays')")
        const first = yield* startCopy(options)
        yield* first.during(caughtUp(source, target))
        yield* first.stop
        yield* source.sql(`ALTER PUBLICATION ${source.publication} DROP TABLE late`)
        yield* source.sql("DELETE FROM late")
        const second = yield* startCopy(options)
        yield* second.during(caughtUp(source, target))
        assert.deepStrictEqual(yield* target.sql("SELECT v FROM late"), [{ v: "stays" }])
        yield* second.during(
          eventually(
            Effect.map(stateOf(source, target, "late"), (state) => state === "left"),
            { what: "that it has left is stored" }
          )
        )
      })
  )

  onServer("postgres", "[P11] ends with the way out for a table that cannot be read beside the stream", (server) =>
    Effect.gen(function* () {
      const sql = `${tables}; CREATE TABLE keyless (v text)`
      const { options, source, target } = yield* makeSides(server, undefined, sql)
      yield* source.sql("INSERT INTO keyless VALUES ('old')")
      const copying = yield* startCopy(options)
      yield* copying.during(caughtUp(source, target))
      yield* source.sql(`ALTER PUBLICATION ${source.publication} ADD TABLE keyless`)
      yield* source.sql("INSERT INTO keyless VALUES ('new')")
      const failure = yield* copying.failure
      assert.strictEqual(failure._tag, "TableNotCopied")
      assert.include(failure.message, '"public"."keyless"')
      assert.include(String(failure.remedy), "ADD PRIMARY KEY")
      assert.deepStrictEqual(yield* target.sql("SELECT FROM keyless"), [])
      yield* source.sql("ALTER TABLE keyless ADD id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY")
      yield* target.sql("ALTER TABLE keyless ADD id int PRIMARY KEY")
      const second = yield* startCopy(options)
      yield* second.during(untilCovered(source, target, "keyless"))
      yield* assertSame(source, target, "keyless")
    })
  )

  onServer(
    "postgres",
    "[P11] of changes only applies those of a table that joins, and copies no rows of it",
    (server) =>
      Effect.gen(function* () {
        const { source, target } = yield* makeSides(server)
        yield* source.sql("INSERT INTO late VALUES (1, 'old')")
        const copying = yield* startCopy(copyOptions(source, target, { rows: "leave" }))
        yield* copying.during(eventually(source.isStreaming(), { what: "it streams" }))
        yield* copying.during(caughtUp(source, target))
        yield* source.sql(`ALTER PUBLICATION ${source.publication} ADD TABLE late`)
        yield* source.sql("INSERT INTO late VALUES (2, 'new')")
        yield* copying.during(caughtUp(source, target))
        assert.deepStrictEqual(yield* target.sql("SELECT id FROM late"), [{ id: 2 }])
      })
  )

  onServer(
    "postgres",
    "[P11] is told by the command, which names the table",
    (server) =>
      Effect.gen(function* () {
        const { options, source, target } = yield* makeSides(server)
        yield* target.sql("INSERT INTO late VALUES (7, 'precious')")
        const first = yield* startCopy(options)
        yield* first.during(caughtUp(source, target))
        yield* first.stop
        yield* source.sql(`ALTER PUBLICATION ${source.publication} ADD TABLE late`)
        const args = ["copy", "--from", source.url(), "--publication", source.publication, "--slot", source.slot]
        const refused = yield* replicant(args, { TARGET_URL: target.url() })
        assert.strictEqual(refused.code, 1)
        assert.include(refused.stderr, 'the target has rows already in "public"."late"')
        assert.deepStrictEqual(yield* target.sql("SELECT v FROM late"), [{ v: "precious" }])
      }),
    { ...once, timeout: 60_000 }
  )
})
