/**
 * What the catalog tells of many tables, and what it takes: in proportion to their number. And that no question outlives
 * whoever asked.
 *
 * `REPLICANT_TABLES=10000 npx vitest run --project server-18 test/Tables.test.ts` is the full measure: five seconds.
 */
import { assert, describe } from "@effect/vitest"
import { Tables, WalSender } from "@replicant/core"
import type { ReplicantConnection } from "@replicant/core/driver"
import { Clock, Effect, Fiber } from "effect"
import { eventually } from "./support/eventually.ts"
import { walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const full = process.env.REPLICANT_TABLES

/** Of these one in ten is partitioned, and each has types of its own. */
const many = Number(full ?? 1600)

/** What a copy asks, and most of what there is. */
const aspects = [
  "columns",
  "identity",
  "primaryKey",
  "uniqueKeys",
  "published",
  "sentAs",
  "parts",
  "partitioned"
] as const

/** Tables `from` to `to`, a few hundred in a transaction: each takes locks. */
const fill = (workspace: Workspace, from: number, to: number) =>
  Effect.forEach(
    Array.from({ length: Math.ceil((to - from) / 400) }, (_, index) => from + index * 400),
    (first) =>
      workspace.sql(`DO $$ BEGIN FOR i IN ${first}..${Math.min(first + 400, to) - 1} LOOP
        IF i % 10 = 0 THEN
          EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, note text, at timestamptz) PARTITION BY LIST (id)', i);
          EXECUTE format('CREATE TABLE t%s_1 PARTITION OF t%1$s DEFAULT', i);
        ELSE
          EXECUTE format('CREATE DOMAIN d%s AS int; CREATE TABLE t%1$s (id int PRIMARY KEY, note text, own d%1$s, of t%s[])',
            i, greatest(i - 1, 1) / 10 * 10);
        END IF;
      END LOOP; END $$`),
    { discard: true }
  )

/** A node of a plan that was carried out, as EXPLAIN writes it. */
interface Plan {
  readonly "Actual Loops": number
  readonly "Actual Rows": number
  readonly "Rows Removed by Filter"?: number
  readonly "Rows Removed by Join Filter"?: number
  readonly Plans?: ReadonlyArray<Plan>
}

/** How many rows it goes through. Not how long it takes: that tells of what else the machine does, too. */
const rowsThrough = (plan: Plan): number =>
  plan["Actual Loops"] *
    (plan["Actual Rows"] + (plan["Rows Removed by Filter"] ?? 0) + (plan["Rows Removed by Join Filter"] ?? 0)) +
  (plan.Plans ?? []).reduce((sum, below) => sum + rowsThrough(below), 0)

/** What it takes to ask for all tables of a publication. */
const cost = Effect.fnUntraced(function* (connection: ReplicantConnection, publication: string) {
  const asked: Array<string> = []
  const selection = { _tag: "Publications", publications: [publication] } as const
  const noting: ReplicantConnection = {
    ...connection,
    query: (text) => {
      asked.push(text)
      return connection.query(text)
    }
  }
  const before = yield* Clock.currentTimeMillis
  const { length: count } = yield* Tables.describe(noting, { selection, aspects })
  const millis = (yield* Clock.currentTimeMillis) - before
  const plans = yield* Effect.forEach(asked, (text) =>
    connection.query(`EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) ${text}`)
  )
  const rows = plans
    .map(([row]) => (JSON.parse(row!["QUERY PLAN"]!) as [{ readonly Plan: Plan }])[0].Plan)
    .reduce((sum, plan) => sum + rowsThrough(plan), 0)
  return { count, millis, rows, statements: asked.length }
})

describe("Tables.describe", () => {
  onServer(
    "postgres",
    `[S12] goes through less than six times as many rows for four times the tables, of ${many}`,
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t0 (id int)" })
        const connection = yield* Effect.provide(
          Effect.flatMap(WalSender, ({ connect }) => connect),
          walSender(workspace)
        )
        yield* fill(workspace, 1, many / 4)
        const few = yield* cost(connection, workspace.publication)
        yield* fill(workspace, many / 4, many)
        const all = yield* cost(connection, workspace.publication)
        yield* Effect.logInfo(
          `${few.count} tables: ${few.rows} rows, ${few.millis} ms; ${all.count}: ${all.rows} rows, ${all.millis} ms`
        )
        assert.strictEqual(few.count, many / 4)
        assert.strictEqual(all.count, many)
        assert.strictEqual(all.statements, few.statements)
        assert.isBelow(all.rows / few.rows, 6)
        if (full !== undefined) assert.isBelow(all.millis, 5000)
      }),
    { timeout: 900_000 }
  )

  onServer("postgres", "tells what is published, and under which name, of several publications", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE plain (id int PRIMARY KEY, note text);
          CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
          CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
          CREATE FOREIGN TABLE abroad (id int) SERVER nowhere;
          CREATE TABLE root (id int PRIMARY KEY) PARTITION BY LIST (id);
          CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
          CREATE PUBLICATION by_root FOR TABLE root WITH (publish_via_partition_root = true)`
      })
      const connection = yield* Effect.provide(
        Effect.flatMap(WalSender, ({ connect }) => connect),
        walSender(workspace)
      )
      const ask = (selection: Tables.Selection, publications: ReadonlyArray<string>) =>
        Effect.map(
          Tables.describe(connection, { selection, publications, aspects: ["published", "sentAs", "parts", "bare"] }),
          (tables) =>
            tables.map(({ name, parts, published, sentAs }) => [
              name,
              published.map(({ publication }) => publication.replace(workspace.publication, "all")),
              sentAs.map((ancestor) => ancestor.name),
              parts.map((part) => part.name)
            ])
        )
      const publications = [workspace.publication, "by_root"]
      const root = ["root", ["by_root"], [], ["leaf"]]
      const leaf = ["leaf", ["all"], ["root"], ["leaf"]]
      const plain = ["plain", ["all"], [], ["plain"]]
      assert.deepStrictEqual(yield* ask({ _tag: "Publications", publications }, publications), [plain, root, leaf])
      assert.deepStrictEqual(yield* ask({ _tag: "Publications", publications: ["by_root"] }, ["by_root"]), [root])
      assert.deepStrictEqual(yield* ask({ _tag: "Schemas", schemas: ["public"] }, publications), [
        plain,
        ["unlogged", [], [], []],
        ["abroad", [], [], []],
        root,
        leaf
      ])
      const names = ["leaf", "missing", "plain"].map((name) => ({ schema: "public", name }))
      assert.deepStrictEqual(yield* ask({ _tag: "Names", names }, publications), [plain, leaf])
      assert.deepStrictEqual(yield* ask({ _tag: "Names", names: [] }, publications), [])
      const [known] = yield* Tables.describe(connection, { selection: { _tag: "Names", names }, aspects: [] })
      assert.deepStrictEqual(yield* ask({ _tag: "Oids", oids: [known!.oid] }, []), [["plain", [], [], ["plain"]]])
    })
  )

  onServer("postgres", "[S12] ends at the server when whoever asked is gone", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server)
      const running = workspace.sql(
        `SELECT pid FROM pg_stat_activity WHERE datname = '${workspace.database}' AND query LIKE '%forever%' AND state = 'active'
          AND pid <> pg_backend_pid()`
      )
      // Work that looks at nothing but interrupts, as a query of the catalog does.
      const forever =
        "WITH RECURSIVE forever AS (SELECT 1 AS n UNION ALL SELECT n + 1 - n FROM forever) SELECT count(*) FROM forever"
      const asking = yield* Effect.forkChild(
        Effect.scoped(
          Effect.flatMap(
            Effect.flatMap(WalSender, ({ connect }) => connect),
            ({ query }) => query(forever)
          )
        ).pipe(Effect.provide(walSender(workspace)))
      )
      yield* eventually(
        Effect.map(running, (rows) => rows.length === 1),
        { what: "the query runs" }
      )
      yield* Fiber.interrupt(asking)
      yield* eventually(
        Effect.map(running, (rows) => rows.length === 0),
        { what: "the query has ended" }
      )
    })
  )
})
