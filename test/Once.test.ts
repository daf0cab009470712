/**
 * Exactly once into a database of the consumer's own, of each kind: a program is killed while it books, and its ledger, which
 * would show what was booked twice, has every row once.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Handler, Lsn } from "@replicant/core"
import { Array, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { eventually } from "./support/eventually.ts"
import { clientOf, makeLedger, readLedger, type Target } from "./support/Ledger.ts"
import { hasMariaDb, startMariaDb } from "./support/MariaDb.ts"
import { mysqlClient } from "./support/mysqlClient.ts"
import { startReplicant } from "./support/Replicant.ts"
import type { OnceProgram } from "./support/runOnce.ts"
import { once, onServer } from "./support/Servers.ts"
import { isFree, makeSlot } from "./support/Slot.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"
import { writeAlong } from "./support/writeAlong.ts"

const program = fileURLToPath(new URL("support/runOnce.ts", import.meta.url))

/** Runs it until the scope ends: then it is killed. */
const start = (options: OnceProgram) => startReplicant([JSON.stringify(options)], {}, program)

/** Killed over and over amid its work, and once left to end it. */
const bookAll = Effect.fnUntraced(
  function* (workspace: Workspace, target: Target, by: OnceProgram["by"]) {
    yield* makeLedger
    yield* makeSlot(workspace)
    const { publication, slot } = workspace
    const options = { url: workspace.url(), slot, publication, target, by }
    const endWriting = yield* writeAlong(workspace)
    for (let round = 0; round < 2; round++) {
      const before = (yield* readLedger).length
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* start(options)
          yield* eventually(
            Effect.map(readLedger, (ids) => ids.length > before + 20),
            { what: "it books" }
          )
          if (target.kind === "postgres" && round % 2 === 0) {
            // Its own database lets it down, in place of a kill.
            yield* workspace.sql(
              `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'ledger' AND datname = current_database()`
            )
            const cut = (yield* readLedger).length
            yield* eventually(
              Effect.map(readLedger, (ids) => ids.length > cut + 20),
              { what: "it goes on" }
            )
          }
          yield* Effect.sleep(Math.random() * 50) // Not a wait: the moment at which it is killed.
        })
      )
      yield* eventually(isFree(workspace), { what: "the slot is free" })
    }
    yield* start(options)
    const last = yield* endWriting
    // Side by side, the last row may be booked before one that came earlier.
    yield* eventually(
      Effect.map(readLedger, (ids) => ids.length >= last),
      { what: "all is booked" }
    )
    assert.deepStrictEqual(yield* readLedger, Array.range(1, last))
  },
  (booking, _, target) => Effect.provide(booking, clientOf(target, "reader"))
)

const source = { sql: "CREATE TABLE t (id int PRIMARY KEY)", publication: "FOR TABLE t" }

describe("a ledger in a database of the consumer's own", () => {
  for (const by of ["once", "inbox"] as const) {
    onServer(
      "postgres",
      `PostgreSQL, by ${by}, has every row once though the program is killed and the database lets it down`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, source)
          yield* bookAll(workspace, { kind: "postgres", url: workspace.url() }, by)
        }),
      once
    )
  }

  onServer(
    "postgres",
    "SQLite has every row once though the program is killed",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, source)
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-once-"))),
          (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
        )
        yield* bookAll(workspace, { kind: "sqlite", file: join(directory, "ledger.db") }, "once")
      }),
    once
  )

  if (hasMariaDb || process.env.CI !== undefined) {
    onServer(
      "postgres",
      "MariaDB has every row once though the program is killed",
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, source)
          const target = yield* startMariaDb
          yield* bookAll(workspace, { kind: "mariadb", ...target }, "once")
        }),
      once
    )

    it.live("MariaDB keeps consumers apart whose names differ by case alone, on a server that does not", () =>
      Effect.gen(function* () {
        const target = yield* startMariaDb
        const change = { _tag: "Insert", begin: { commitLsn: Lsn.make(0x100n)! }, ordinal: 0 } as const
        const handled = yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`ALTER DATABASE ledger CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci`
          return yield* Effect.forEach(["ledger", "Ledger", "ledger"], (consumer) =>
            Handler.inbox({ table: "inbox", consumer, createTable: "ifMissing" }, () => Effect.succeed(consumer))(
              change
            )
          )
        }).pipe(Effect.provide(mysqlClient(target)))
        assert.deepStrictEqual(handled, ["ledger", "Ledger", undefined])
      })
    )
  } else
    it.skip("MariaDB has every row once (no MariaDB on this machine: Debian's mariadb-server-core)", () => undefined)
})
