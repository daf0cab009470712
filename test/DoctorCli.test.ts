/** `replicant doctor` as its user has it: what it prints, in which form, and its exit code. */
import { assert, describe } from "@effect/vitest"
import { Doctor } from "@replicant/core/operations"
import { PgServer } from "@replicant/node/testing"
import { Effect, Schema } from "effect"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { replicant } from "./support/Replicant.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const reportOf = (stdout: string) => Schema.decodeUnknownSync(Doctor.Report)(JSON.parse(stdout))

describe("replicant doctor", () => {
  onServer(
    "postgres",
    "exits with 0 where all is well, 1 where something is wrong, and tells it in text, JSON and SQL",
    () =>
      Effect.gen(function* () {
        // Of its own: on one that is shared others' slots and transactions come and go.
        const server = yield* PgServer.make(PostgresVersion.serverOptions())
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
        const env = { DATABASE_URL: workspace.url() }
        const args = ["doctor", "--publication", workspace.publication, "--slot", workspace.slot]
        const well = yield* replicant([...args, "--create", "--json"], env)
        const { checked, findings } = reportOf(well.stdout)
        // A version that is mended no more is a matter of the date.
        assert.deepStrictEqual(
          findings.filter(({ id, severity }) => severity !== "note" && id !== "server.version"),
          []
        )
        assert.strictEqual(well.code, 0, well.stdout)
        assert.isAbove(checked.length, 40)
        assert.strictEqual(well.stderr, "")

        yield* workspace.sql("CREATE TABLE bare (id int)")
        const text = yield* replicant(args, env)
        assert.strictEqual(text.code, 1)
        assert.match(text.stdout, /^ERROR slot\.missing/m)
        assert.include(text.stdout, 'ALTER TABLE "public"."bare" REPLICA IDENTITY FULL;')
        assert.notInclude(text.stdout, "\u001b")
        assert.strictEqual(text.stderr, "")

        const sql = yield* replicant([...args, "--sql"], env)
        assert.strictEqual(sql.code, 1)
        // Each by itself, as psql runs them.
        const statements = sql.stdout.split("\n").filter((line) => line !== "" && !line.startsWith("--"))
        assert.strictEqual(statements.length, 2, sql.stdout)
        for (const statement of statements) yield* workspace.sql(statement)
        const mended = yield* replicant([...args, "--json"], env)
        assert.strictEqual(mended.code, 0, mended.stdout)
        assert.isDefined(yield* workspace.findSlot())
      })
  )

  onServer("postgres", "exits with 3 where it could not look, and never shows a password", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
      const nobody = yield* replicant(["doctor", "--json"], { DATABASE_URL: "postgres://me:SECRET@127.0.0.1:1/shop" })
      assert.strictEqual(nobody.code, 3)
      assert.deepStrictEqual(
        reportOf(nobody.stdout).findings.map(({ id }) => id),
        ["unseen.source"]
      )
      assert.notInclude(nobody.stdout + nobody.stderr, "SECRET")

      const role = `${workspace.database}_role`
      yield* Effect.acquireRelease(workspace.sql(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'SECRET'`), () =>
        Effect.ignore(workspace.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`))
      )
      const plain = yield* replicant(["doctor"], { DATABASE_URL: workspace.url(role, "SECRET") })
      assert.include(plain.stdout, "NOT SEEN unseen.hba")
      assert.strictEqual(plain.code, 3, plain.stdout)
      assert.notInclude(plain.stdout + plain.stderr, "SECRET")

      const noTarget = yield* replicant(["doctor", "--to", "postgres://me:SECRET@127.0.0.1:1/shop", "--json"], {
        DATABASE_URL: workspace.url()
      })
      assert.include(
        reportOf(noTarget.stdout).findings.map(({ id }) => id),
        "unseen.target"
      )
      assert.notInclude(noTarget.stdout + noTarget.stderr, "SECRET")
    })
  )
})
