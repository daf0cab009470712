/**
 * A snapshot on a real server, and the stream after it: the same values as the stream gives, then what has changed since.
 * What it survives, and which rows and columns it has, is in `faults/Snapshot.test.ts`.
 */
import { assert, describe } from "@effect/vitest"
import { type Handled, nextLsn, Pgoutput, Snapshot, Table, type TypeDecoder } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { Effect, Schema, SubscriptionRef } from "effect"
import { eventually } from "./support/eventually.ts"
import { follow, walSender } from "./support/Follow.ts"
import { followSnapshot, snapshotOptions, snapshotRows, takeSnapshot } from "./support/FollowSnapshot.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { onServer } from "./support/Servers.ts"
import { textOnlyEdges, textOnlyUserTypes, typeEdges, userTypes, withoutArrays } from "./support/TypeEdges.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const modes: ReadonlyArray<{
  readonly title: string
  readonly isBinary?: boolean
  readonly types?: TypeDecoder.Types
}> = [
  { title: "by the built-in decoders" },
  { title: "in the server's own text", types: "text" },
  { title: "where the stream is in binary", isBinary: true }
]

/** What COPY's text format writes otherwise, and what looks as if it did; and more than a read holds. */
const copyEdges = ["\\N", "\\.", "\\", "a\\tb", "\b\f\n\r\t\v\\☕", "x\\".repeat(1024 * 512)]

const tags = (seen: ReadonlyArray<{ readonly _tag: string }>) => seen.map(({ _tag }) => _tag)

describe("a snapshot", () => {
  for (const { isBinary = false, title, types } of modes) {
    onServer("postgres", `has of every type the values and relations that the stream has, ${title}`, (server) =>
      Effect.gen(function* () {
        const edges: Record<string, ReadonlyArray<string>> = { ...typeEdges, ...(isBinary ? {} : textOnlyEdges) }
        edges.text = [...edges.text!, ...copyEdges]
        // PostgreSQL 14 does not take the extremes of this one.
        if (server.majorVersion < 15) edges.interval = edges.interval!.filter((text) => !/\d{19} micro/.test(text))
        const names = Object.keys(edges)
        const arrays = names.filter((type) => !withoutArrays.includes(type))
        const literal = (text: string, type: string) => `'${text.replaceAll("'", "''")}'::${type}`
        const count = Math.max(...Object.values(edges).map((texts) => texts.length)) + 1
        const workspace = yield* makeWorkspace(server, {
          sql: [
            ...userTypes,
            ...textOnlyUserTypes,
            `CREATE TABLE scalars (id int PRIMARY KEY, ${names.map((type, index) => `c${index} ${type}`).join(", ")})`,
            `CREATE TABLE lists (id int, ${arrays.map((type, index) => `c${index} ${type}[]`).join(", ")})`,
            "ALTER TABLE lists REPLICA IDENTITY FULL"
          ].join(";\n")
        })
        const pgoutput: Partial<Pgoutput.Options> = {
          ...(isBinary ? { format: "binary", enums: ["mood"] } : {}),
          ...(types === undefined ? {} : { types })
        }
        const stream = yield* follow(workspace, {
          options: { plugin: Pgoutput.make({ publications: [workspace.publication], ...pgoutput }) }
        })
        for (let row = 0; row < count; row++) {
          const values = names.map((type) => {
            const text = edges[type]![row]
            return text === undefined ? "NULL" : literal(text, type)
          })
          const lists = arrays.map((type) => {
            const text = edges[type]![row]
            return text === undefined
              ? `ARRAY[NULL]::${type}[]`
              : `ARRAY[${literal(text, type)}, NULL, ${literal(edges[type]![0]!, type)}]`
          })
          yield* workspace.sql(`INSERT INTO scalars VALUES (${row}, ${values.join(", ")});
            INSERT INTO lists VALUES (${row}, ${lists.join(", ")})`)
        }
        yield* stream.saw("Insert", 2 * count)
        const inserts = stream.changes.flatMap((change) => (change._tag === "Insert" ? [change] : []))
        const copied = snapshotRows(yield* takeSnapshot(workspace, pgoutput))
        assert.strictEqual(copied.length, inserts.length)
        for (const { relation, row } of inserts) {
          const same = copied.find((found) => found.relation.name === relation.name && found.row.id === row.id)
          assert.deepStrictEqual(same?.row, row)
          assert.deepStrictEqual(same?.relation, relation)
        }
      })
    )
  }

  onServer("postgres", "is followed by what has changed since, and does not come again", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders VALUES (1, 'a'), (2, E'tab\\tand\\nnewline \\\\N')"
      })
      const first = yield* followSnapshot(workspace)
      yield* first.saw("SnapshotCompleted", 1)
      yield* workspace.sql("UPDATE orders SET note = 'b' WHERE id = 1; INSERT INTO orders VALUES (3, '\\N')")
      yield* first.saw("Commit", 1)
      assert.deepStrictEqual(tags(first.seen), [
        ...["SnapshotStarted", "SnapshotRow", "SnapshotRow", "SnapshotTableCompleted", "SnapshotCompleted"],
        ...["Begin", "Update", "Insert", "Commit"]
      ])
      assert.deepStrictEqual(
        snapshotRows(first.seen).map(({ row }) => row),
        [
          { id: 1, note: "a" },
          { id: 2, note: "tab\tand\nnewline \\N" }
        ]
      )
      const [started, , , tableCompleted, completed] = first.seen
      assert(started?._tag === "SnapshotStarted")
      assert.strictEqual(started.attempt, 1)
      assert.strictEqual(started.tables[0]?.relation.name, "orders")
      assert.deepInclude({ ...tableCompleted }, { rows: 2, relation: started.tables[0]?.relation, snapshot: started })
      assert.deepInclude({ ...completed }, { rows: 2, snapshot: started })
      yield* first.stop
      const second = yield* followSnapshot(workspace)
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("DELETE FROM orders WHERE id = 3")
      yield* second.saw("Commit", 1)
      assert.deepStrictEqual(tags(second.seen), ["Begin", "Delete", "Commit"])
    })
  )

  onServer("postgres", "by itself leaves no slot, and never without one is a failure", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int); INSERT INTO t VALUES (1)" })
      const seen = yield* takeSnapshot(workspace)
      assert.deepStrictEqual(tags(seen).at(-1), "SnapshotCompleted")
      const slots = workspace.sql(`SELECT FROM pg_replication_slots WHERE database = '${workspace.database}'`)
      yield* eventually(Effect.map(slots, (rows) => rows.length === 0))
      const error = yield* Snapshot.withSnapshotStream(snapshotOptions(workspace, "never"), () =>
        Effect.sync((): Handled => undefined)
      ).pipe(Effect.provide(walSender(workspace)), Effect.flip)
      assert.strictEqual(error._tag, "SlotNotFound")
    })
  )

  onServer("postgres", "gives the rows of declared tables in the type that their Schema gives", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE orders (id int PRIMARY KEY, placed_at timestamptz, note text); CREATE TABLE others (id int);
          INSERT INTO orders VALUES (1, '2026-01-02 03:04:05Z', 'a'), (2, 'infinity', 'b'); INSERT INTO others VALUES (1)`
      })
      const Orders = Table.make("orders", Schema.Struct({ id: Schema.Number, placedAt: Schema.DateFromString }), {
        columns: { placedAt: "placed_at" }
      })
      const typed: Array<Snapshot.TypedChangeAfterSnapshot<typeof Orders, "untyped">> = []
      yield* Snapshot.withSnapshotStreamArray(
        snapshotOptions(workspace, "only"),
        Snapshot.arrayHandler([Orders], (changes) => Effect.sync((): Handled => void typed.push(...changes)), {
          onMismatch: "untyped"
        })
      ).pipe(Effect.provide(walSender(workspace)))
      const rows = typed.flatMap((change) => (change._tag === "SnapshotRow" ? [change.row] : []))
      assert.deepStrictEqual(rows[0], { id: 1, placedAt: new Date("2026-01-02T03:04:05Z") })
      assert.strictEqual(typed.filter((change) => "table" in change).length, 2)
      assert.deepStrictEqual(tags(typed).slice(-1), ["SnapshotCompleted"])
    })
  )

  onServer("postgres", "tells how far it is, with the planner's estimate", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE big AS SELECT i FROM generate_series(1, 20000) i; CREATE TABLE small AS SELECT 1 AS i; ANALYZE big"
      })
      const progress = yield* Snapshot.makeProgress
      assert.strictEqual((yield* SubscriptionRef.get(progress)).phase, "waiting")
      const stream = yield* followSnapshot(workspace, { options: { progress } })
      yield* stream.saw("SnapshotCompleted", 1)
      yield* eventually(Effect.map(SubscriptionRef.get(progress), ({ phase }) => phase === "streaming"))
      const { attempt, tables } = yield* SubscriptionRef.get(progress)
      assert.strictEqual(attempt, 1)
      assert.deepStrictEqual(
        tables.map(({ estimatedRows, isDone, relation, rows }) => [relation.name, rows, estimatedRows, isDone]),
        [
          ["big", 20000, 20000, true],
          ["small", 1, undefined, true]
        ]
      )
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO small VALUES (2)")
      yield* stream.saw("Commit", 1)
      assert.isDefined(nextLsn(stream.seen.at(-1)!))
    })
  )

  onServer(
    "postgres",
    "waits for room, rather than be in vain, where the server has no slot left for what comes after it",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make({
          ...PostgresVersion.serverOptions(),
          settings: { max_replication_slots: 2 }
        })
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int); INSERT INTO t VALUES (1)" })
        yield* workspace.sql("SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
        const stream = yield* followSnapshot(workspace)
        yield* stream.saw("SnapshotCompleted", 1)
        yield* eventually(
          Effect.map(server.log, (log) => log.includes("all replication slots are in use")),
          { what: "the server refused a slot" }
        )
        yield* workspace.sql("SELECT pg_drop_replication_slot('other'); INSERT INTO t VALUES (2)")
        yield* stream.saw("Insert", 1)
        assert.lengthOf(snapshotRows(stream.seen), 1)
      }),
    { timeout: 60_000 }
  )
})
