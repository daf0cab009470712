/** Checkpoints in a table of SQLite's, and what MySQL and others would be told. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { CheckpointStore } from "@replicant/core"
import { Effect, Layer, Option } from "effect"
import { SqlClient, Statement } from "effect/sql"
import { recordingSql } from "../support/RecordingSql.ts"
import { sqliteClient } from "../support/sqliteClient.ts"

const table = "replicant_checkpoints"

/** Of an empty directory that goes with the scope. */
const databaseFile = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-sqlite-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  ),
  (directory) => join(directory, "checkpoints.db")
)

/** A store and its client, each time a connection of its own. */
const opened = (file: string, options: Partial<CheckpointStore.SqlOptions> = { createTable: "ifMissing" }) =>
  Layer.provideMerge(CheckpointStore.sql({ table, ...options }), sqliteClient(file))

const load = (key: string) => Effect.flatMap(CheckpointStore.CheckpointStore, (store) => store.load(key))
const save = (key: string, text: string) =>
  Effect.flatMap(CheckpointStore.CheckpointStore, (store) => store.save(key, text))
const remove = (key: string) => Effect.flatMap(CheckpointStore.CheckpointStore, (store) => store.remove(key))

const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))

describe("CheckpointStore.sql over SQLite", () => {
  it.effect("keeps texts by key, and has them after a restart", () =>
    Effect.gen(function* () {
      const file = yield* databaseFile
      const long = JSON.stringify({ text: "\\ 'é\n寿司".repeat(200_000) })
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* load("a'b"), Option.none())
        yield* save("a'b", "first")
        yield* save("a'b", "second")
        yield* save("A'B", long)
        yield* save("gone", "text")
        yield* remove("gone")
        yield* remove("gone")
      }).pipe(Effect.provide(opened(file)))
      const found = yield* Effect.forEach(["a'b", "A'B", "gone"], load).pipe(Effect.provide(opened(file)))
      assert.deepStrictEqual(found, [Option.some("second"), Option.some(long), Option.none()])
      // The table is there: who does not ask for it finds it too.
      assert.deepStrictEqual(yield* Effect.provide(load("a'b"), opened(file, {})), Option.some("second"))
    })
  )

  it.effect("is saved to by many at once, in transactions and without", () =>
    Effect.gen(function* () {
      const file = yield* databaseFile
      const keys = Array.from({ length: 200 }, (_, index) => `${index % 100}`)
      const inTurn = Effect.forEach(
        keys,
        (key) =>
          Effect.all([inTransaction(Effect.andThen(save(key, `of ${key}`), load(key))), save("shared", key)], {
            concurrency: 2
          }),
        { concurrency: "unbounded" }
      )
      const read = yield* Effect.provide(inTurn, opened(file))
      assert.deepStrictEqual(
        read.map(([seen]) => seen),
        keys.map((key) => Option.some(`of ${key}`))
      )
      // Over two connections, as two processes have them.
      const over = (prefix: string) =>
        Effect.provide(
          Effect.forEach(keys, (key) => save(`${prefix}${key}`, `of ${prefix}`), { concurrency: 8 }),
          opened(file)
        )
      yield* Effect.all([over("a"), over("b")], { concurrency: 2 })
      const found = yield* Effect.provide(Effect.forEach(["0", "a7", "b7", "b99"], load), opened(file))
      assert.deepStrictEqual(found.map(Option.getOrUndefined), ["of 0", "of a", "of b", "of b"])
    })
  )

  it.effect("is part of the transaction it is called in", () =>
    Effect.gen(function* () {
      yield* save("slot", "first")
      const undone = Effect.andThen(save("slot", "second"), Effect.flatMap(load("slot"), Effect.fail))
      assert.deepStrictEqual(yield* Effect.flip(inTransaction(undone)), Option.some("second"))
      // Within a savepoint that is undone, and beside it.
      yield* inTransaction(Effect.andThen(save("other", "kept"), Effect.flip(inTransaction(undone))))
      assert.deepStrictEqual(yield* Effect.forEach(["slot", "other"], load), [
        Option.some("first"),
        Option.some("kept")
      ])
    }).pipe(Effect.provide(opened(":memory:")))
  )

  it.effect("fails by name where the table is missing, or not to be had", () =>
    Effect.gen(function* () {
      const missing = yield* Effect.flip(Effect.provide(save("slot", "text"), opened(":memory:", {})))
      assert.deepStrictEqual([missing._tag, missing.during, missing.key], ["CheckpointError", "save", "slot"])
      assert.match(missing.message, /no such table: replicant_checkpoints/, "why, in the database's words")
      const nowhere = opened(":memory:", { table: "nowhere.checkpoints", createTable: "ifMissing" })
      const refused = yield* Effect.flip(Effect.provide(load("slot"), nowhere))
      assert.deepStrictEqual([refused._tag, refused.during], ["CheckpointError", "open"])
    })
  )
})

describe("CheckpointStore.sql over other databases", () => {
  const compilerOf = (dialect: "mysql" | "mssql" | "clickhouse") =>
    Statement.makeCompiler({
      dialect,
      placeholder: () => "?",
      onIdentifier: Statement.defaultEscape("`"),
      onRecordUpdate: () => ["", []],
      onCustom: () => ["", []]
    })

  it.effect("says it to MySQL in words of its own: its reserved key, its short text, its blind collations", () =>
    Effect.gen(function* () {
      const { layer, ran } = recordingSql(compilerOf("mysql"))
      const use = Effect.all([load("slot"), save("slot", "text"), remove("slot")])
      const store = CheckpointStore.sql({ table: "kept.checkpoints", createTable: "ifMissing" })
      yield* Effect.provide(use, Layer.provide(store, layer))
      assert.deepStrictEqual(
        ran.map(([sql, ...params]) => [sql.replaceAll(/\s+/g, " "), ...params]),
        [
          [
            "CREATE TABLE IF NOT EXISTS `kept`.`checkpoints` (`key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin " +
              "PRIMARY KEY, checkpoint longtext CHARACTER SET utf8mb4 NOT NULL)"
          ],
          ["SELECT checkpoint FROM `kept`.`checkpoints` WHERE `key` = ?", "slot"],
          [
            "INSERT INTO `kept`.`checkpoints` (`key`, checkpoint) VALUES (?, ?) " +
              "ON DUPLICATE KEY UPDATE checkpoint = VALUES(checkpoint)",
            "slot",
            "text"
          ],
          ["DELETE FROM `kept`.`checkpoints` WHERE `key` = ?", "slot"]
        ]
      )
    })
  )

  for (const dialect of ["mssql", "clickhouse"] as const) {
    it.effect(`refuses ${dialect} as it opens`, () =>
      Effect.gen(function* () {
        const { layer, ran } = recordingSql(compilerOf(dialect))
        const store = Layer.provide(CheckpointStore.sql({ table, createTable: "ifMissing" }), layer)
        const error = yield* Effect.flip(Effect.provide(load("slot"), store))
        assert.deepStrictEqual([error._tag, error.during, error.key], ["CheckpointError", "open", table])
        assert.include(error.message, "PostgreSQL, SQLite and MySQL")
        assert.deepStrictEqual(ran, [])
      })
    )
  }
})
