/** What a doctor finds in a role, in the way to the server, and where it is refused: on a server of its own. */

import { appendFile, readFile, writeFile } from "node:fs/promises"
import { assert, describe, it } from "@effect/vitest"
import { WalSender } from "@replicant/core/driver"
import type { Doctor } from "@replicant/core/operations"
import { PgWalSender } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { Effect, Redacted, Schedule } from "effect"
import { makeCertificates } from "./support/Certificates.ts"
import { cures, examine, findingsOf, silent, subjectsOf, untilFound } from "./support/Doctoring.ts"
import { makeIntruder } from "./support/Intruder.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"

const tables = `
  CREATE TABLE open (id int PRIMARY KEY);
  CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
  CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
  CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
  CREATE PUBLICATION p FOR ALL TABLES;
  CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'secret';
  CREATE ROLE reader LOGIN PASSWORD 'secret'`

const serverOf = (options: Parameters<typeof PgServer.make>[0] = {}) =>
  Effect.tap(PgServer.make({ ...PostgresVersion.serverOptions(), ...options }), (server) => server.query(tables))

describe("a doctor of a role", () => {
  it.live("finds what a first copy lacks, a limit, and a password that runs out, and its cures mend them", () =>
    Effect.gen(function* () {
      const server = yield* serverOf()
      const url = server.url("postgres", "replicator", "secret")
      const plan: Doctor.Plan = { publications: ["p"], snapshot: true }
      yield* server.query(`ALTER ROLE replicator CONNECTION LIMIT 3; ALTER ROLE replicator VALID UNTIL '${new Date(Date.now() + 86_400_000).toISOString()}';
        ALTER ROLE replicator SET statement_timeout = '1s'; ALTER DATABASE postgres SET idle_in_transaction_session_timeout = '1min';
        ALTER ROLE replicator IN DATABASE postgres SET lock_timeout = '0'`)
      const report = yield* examine(url, plan)
      assert.deepStrictEqual(subjectsOf(report, "role.select"), [
        '"public"."hidden"',
        '"public"."open"',
        '"public"."part"'
      ])
      assert.deepStrictEqual(subjectsOf(report, "role.row-security"), ['"public"."hidden"'])
      assert.deepStrictEqual(subjectsOf(report, "role.connection-limit"), ['"replicator"'])
      assert.deepStrictEqual(subjectsOf(report, "role.valid-until"), ['"replicator"'])
      assert.deepStrictEqual(subjectsOf(report, "role.session-limits"), [
        "idle_in_transaction_session_timeout",
        "statement_timeout"
      ])
      silent(report, "role.superuser", "role.replication")
      const ids = [
        "role.select",
        "role.row-security",
        "role.connection-limit",
        "role.valid-until",
        "role.session-limits"
      ]
      for (const id of ids) for (const sql of cures(report, id)) yield* server.query(sql)
      silent(yield* examine(url, plan), ...ids)
      // Without a copy nobody has to read.
      assert.notInclude((yield* examine(url, { publications: ["p"] })).checked, "role.select")
      assert.deepStrictEqual(subjectsOf(yield* examine(server.url(), plan), "role.superuser"), ['"postgres"'])
    })
  )

  it.live("finds that a role may not replicate, by a provider's role too, and looks over an ordinary session", () =>
    Effect.gen(function* () {
      const server = yield* serverOf({ settings: { max_wal_senders: 1 } })
      const url = server.url("postgres", "reader", "secret")
      const refused = yield* examine(url, { publications: ["p"] })
      assert.deepStrictEqual(cures(refused, "role.replication"), ['ALTER ROLE "reader" REPLICATION'])
      assert.include(refused.checked, "table.identity")
      yield* server.query("CREATE ROLE rds_replication")
      assert.deepStrictEqual(cures(yield* examine(url, {}), "role.replication"), ['GRANT rds_replication TO "reader"'])
      for (const sql of cures(refused, "role.replication")) yield* server.query(sql)
      silent(yield* examine(url, {}), "role.replication", "server.connections-left")

      const alone = yield* examine(server.url("postgres", "nobody", "x"), {})
      assert.isNull(alone.server)
      assert.deepStrictEqual(
        alone.findings.map(({ id }) => id),
        ["unseen.source"]
      )
      assert.notInclude(JSON.stringify(alone), "secret")

      // One walsender is all that there is room for, once the last one has gone.
      const one = Effect.flatMap(WalSender, ({ connect }) =>
        Effect.retry(connect, { schedule: Schedule.spaced("20 millis") })
      )
      yield* Effect.provide(one, PgWalSender.layer({ url: Redacted.make(server.url()) }))
      const full = yield* untilFound(examine(url, {}), "server.connections-left")
      assert.strictEqual(findingsOf(full, "server.connections-left")[0]?.severity, "error")
    })
  )
})

describe("a doctor of the way to a server", () => {
  it.live(
    "finds plain text, a certificate that nobody looked at, and no proof of who we are, over a network alone",
    () =>
      Effect.gen(function* () {
        const server = yield* serverOf({ auth: "trust" })
        const far = { host: "db.example.com", sslmode: "prefer" }
        const report = yield* examine(server.url(), { connection: far })
        assert.deepStrictEqual(subjectsOf(report, "network.tls"), ["sslmode"])
        assert.deepStrictEqual(subjectsOf(report, "network.authentication"), ["pg_hba.conf"])
        silent(report, "network.certificate")
        const near = yield* examine(server.url(), { connection: { host: "127.0.0.1", sslmode: "prefer" } })
        silent(near, "network.tls", "network.certificate", "network.authentication")
        silent(yield* examine(server.url(), {}), "network.tls", "network.authentication")
      })
  )

  it.live("finds that nobody looked at a certificate, or whether there is one", () =>
    Effect.gen(function* () {
      const { server: certificate } = yield* makeCertificates
      const server = yield* serverOf({
        settings: { ssl: "on", ssl_cert_file: "own.crt", ssl_key_file: "own.key" },
        files: { "own.crt": certificate.cert, "own.key": certificate.key }
      })
      const over = (sslmode: string) =>
        examine(`${server.url()}?sslmode=require`, { connection: { host: "db.example.com", sslmode } })
      const unverified = yield* over("require")
      assert.deepStrictEqual(subjectsOf(unverified, "network.certificate"), ["sslmode"])
      silent(unverified, "network.tls")
      assert.strictEqual(findingsOf(yield* over("prefer"), "network.certificate")[0]?.severity, "warning")
      silent(yield* over("verify-full"), "network.certificate")
    })
  )

  it.live("finds lines of pg_hba.conf that are wrong, or let anybody in", () =>
    Effect.gen(function* () {
      const server = yield* serverOf()
      silent(yield* examine(server.url(), {}), "network.hba-errors", "network.hba-weak")
      const file = `${server.dataDirectory}/pg_hba.conf`
      const before = yield* Effect.promise(() => readFile(file, "utf8"))
      yield* Effect.promise(() =>
        appendFile(file, "\nhost all all 10.0.0.0/8 trust\nhost all other 0.0.0.0/0 trust\nnonsense\n")
      )
      const report = yield* examine(server.url(), {})
      assert.strictEqual(findingsOf(report, "network.hba-errors").length, 1)
      assert.strictEqual(findingsOf(report, "network.hba-weak").length, 1)
      yield* Effect.promise(() => writeFile(file, before))
      silent(yield* examine(server.url(), {}), "network.hba-errors", "network.hba-weak")
    })
  )

  it.live("finds a pooler that takes no replication connection", () =>
    Effect.gen(function* () {
      const server = yield* serverOf()
      // Such a one drops the parameter that asks for a walsender: here another, as long, stands in its place.
      const { port } = yield* makeIntruder(server, {
        toServer: (bytes) =>
          Buffer.from(bytes.toString("latin1").replace("replication\0database", "search_path\0database"), "latin1")
      })
      const url = server.url().replace(`:${server.port}/`, `:${port}/`)
      const report = yield* examine(url, {})
      assert.deepStrictEqual(subjectsOf(report, "network.pooler"), ["host"])
      silent(yield* examine(server.url(), {}), "network.pooler")
    })
  )
})
