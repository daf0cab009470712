/** Dead letters in tables of real databases keep the laws, and a program that is killed loses none. */
import { assert, describe, it } from "@effect/vitest"
import { DeadLetters } from "@replicant/core"
import { LetterLaws } from "@replicant/core/testing"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { clientOf, type Target } from "./support/Ledger.ts"
import { hasMariaDb, startMariaDb } from "./support/MariaDb.ts"
import { once, onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const subject = (target: Target, table: string): LetterLaws.Subject => {
  const client = () => Layer.fresh(clientOf(target, "letters"))
  const rename = (from: string, to: string) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`ALTER TABLE ${sql(from)} RENAME TO ${sql(to)}`
    }).pipe(Effect.provide(client()), Effect.scoped)
  return {
    connect: Effect.map(
      Layer.build(Layer.provide(DeadLetters.sql({ table, createTable: "ifMissing" }), client())),
      (context) => Context.get(context, DeadLetters.DeadLetters)
    ),
    fail: rename(table, "elsewhere"),
    mend: rename("elsewhere", table)
  }
}

/** Each law on a table of its own. */
const keepsLaws = (target: Target) =>
  Effect.forEach(
    [...LetterLaws.laws.entries()],
    ([index, { holds }]) => Effect.scoped(holds(subject(target, `letters_${index}`))),
    { discard: true }
  )

describe("dead letters in a table", () => {
  onServer(
    "postgres",
    "of PostgreSQL keep the laws of a store",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server)
        yield* keepsLaws({ kind: "postgres", url: workspace.url() })
        // Named with its schema, and sorted by bytes, whatever the database's collation.
        yield* workspace.sql("CREATE SCHEMA ops")
        const { connect } = subject({ kind: "postgres", url: workspace.url() }, "ops.letters")
        yield* Effect.scoped(Effect.flatMap(connect, ({ park }) => park(LetterLaws.letter(1, "a"))))
        const rows = yield* workspace.sql("SELECT id FROM ops.letters")
        assert.lengthOf(rows, 1)
      }),
    once
  )

  if (hasMariaDb || process.env.CI !== undefined) {
    it.live("of MariaDB keep the laws of a store", () =>
      Effect.scoped(Effect.flatMap(startMariaDb, (server) => keepsLaws({ kind: "mariadb", ...server })))
    )
  } else
    it.skip("of MariaDB keep the laws of a store (no MariaDB on this machine: Debian's mariadb-server-core)", () =>
      undefined)
})
