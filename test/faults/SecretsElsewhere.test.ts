/** Secrets in an initial snapshot, in a connection that fails, and in the command. In streams: Secrets.test.ts. */
import { assert, describe } from "@effect/vitest"
import { Pgoutput, withLogicalStream } from "@replicant/core"
import { PgConfig, PgWalSender } from "@replicant/node"
import { ConfigProvider, Effect, Exit, Layer, Metric, Redacted, Schedule } from "effect"
import type { Emitted } from "../support/Emitted.ts"
import { fault } from "../support/Faults.ts"
import { walSender } from "../support/Follow.ts"
import { replicant, startReplicant } from "../support/Replicant.ts"
import { canary, errorOf, leaks, listened, quoting, secretId, secrets, statements } from "../support/Secrets.ts"
import { once } from "../support/Servers.ts"
import { makeSlot } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

describe("an initial snapshot lets no row value out", () => {
  const snapshot = (workspace: Workspace, emitted: Emitted, plugin: Partial<Pgoutput.Options> = {}) =>
    Effect.gen(function* () {
      const rows: Array<unknown> = []
      const options = {
        slot: workspace.slot,
        plugin: Pgoutput.make({ publications: [workspace.publication], ...plugin }),
        snapshot: "only" as const,
        reconnect: Schedule.recurs(1)
      }
      const exit = yield* withLogicalStream(options, (change) => {
        if (change._tag === "SnapshotRow") rows.push(change.row)
        return Effect.succeed(undefined)
      }).pipe(Effect.provide(walSender(workspace)), Effect.exit)
      if (Exit.isFailure(exit)) emitted.failed(exit.cause)
      return { rows, error: errorOf(exit) }
    })

  listened("when it runs well, nor when a decoder throws one", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: secrets })
      yield* workspace.sql(statements[0]!)
      const { error, rows } = yield* snapshot(workspace, emitted)
      assert.isUndefined(error)
      assert.lengthOf(rows, 40)
      assert.include(JSON.stringify(rows), canary)
      const types = { byName: new Map([["text", quoting]]) }
      assert.strictEqual((yield* snapshot(workspace, emitted, { types })).error?._tag, "DecodeError")
      // A copy is no stream, and has no metrics of one.
      yield* Metric.update(Metric.counter("copies"), 1)
    })
  )

  listened(
    "when the server fails over one, and quotes it",
    (server, emitted) =>
      Effect.gen(function* () {
        for (const filter of ["make_date(id, 99, 99) > '2026-01-01'", "chr(id) <> 'x'"]) {
          const workspace = yield* makeWorkspace(server, {
            sql: secrets,
            publication: `FOR TABLE secrets WHERE (${filter})`
          })
          yield* workspace.sql(`INSERT INTO secrets VALUES (${secretId}, '${canary}')`)
          assert.deepInclude((yield* snapshot(workspace, emitted)).error, { _tag: "ServerError" })
        }
        assert.deepStrictEqual(leaks(emitted.all, [String(secretId)]), [])
        yield* Metric.update(Metric.counter("copies"), 1)
      }),
    { since: 15 }
  )
})

describe("a connection that fails lets no secret out", () => {
  /** Tries to connect, and gives the failure. */
  const attempt = (emitted: Emitted, options: PgConfig.Options) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        withLogicalStream(
          { slot: "s", plugin: Pgoutput.make({ publications: ["p"] }), reconnect: Schedule.recurs(1) },
          () => Effect.succeed(undefined)
        ).pipe(Effect.provide(PgWalSender.layer(options)))
      )
      if (Exit.isFailure(exit)) emitted.failed(exit.cause)
      return errorOf(exit)?._tag
    })

  listened("when the password is wrong, as text or in a URL, or the role is not there", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server)
      const wrong = Redacted.make(`${canary} wrong`)
      assert.strictEqual(yield* attempt(emitted, { ...workspace.connection, password: wrong }), "AuthenticationFailed")
      const url = Redacted.make(workspace.url(undefined, `${canary}-url`))
      assert.strictEqual(yield* attempt(emitted, { url }), "AuthenticationFailed")
      const role = Redacted.make(workspace.url("nobody", `${canary}-role`))
      assert.strictEqual(yield* attempt(emitted, { url: role }), "AuthenticationFailed")
      const asked = Effect.succeed(Redacted.make(`${canary} asked`))
      assert.strictEqual(yield* attempt(emitted, { ...workspace.connection, password: asked }), "AuthenticationFailed")
    })
  )

  listened("when nobody listens, the name does not resolve, or there is no TLS", (server, emitted) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server)
      const password = Redacted.make(canary)
      const { connection } = workspace
      assert.strictEqual(yield* attempt(emitted, { ...connection, password, port: 1 }), "ConnectionError")
      assert.strictEqual(
        yield* attempt(emitted, { ...connection, password, host: "no.such.host.invalid" }),
        "ConnectionError"
      )
      assert.strictEqual(yield* attempt(emitted, { ...connection, password, sslmode: "require" }), "ConnectionError")
      const url = Redacted.make(`postgres://user:${canary}@127.0.0.1:1/db?sslmode=require`)
      assert.strictEqual(yield* attempt(emitted, { url }), "ConnectionError")
    })
  )

  listened("when what it is given makes no sense", (server, emitted) =>
    Effect.gen(function* () {
      const { connection } = yield* makeWorkspace(server)
      const urls = [
        `postgres://user:${canary}@host:notaport/db`,
        `postgres://user:${canary}@host/db?sslmode=${canary}x`,
        `postgres://user:${canary}@host/db?nonsense=1`,
        `mysql://user:${canary}@host/db`,
        `${canary}`,
        `host=h password=${canary}`,
        `postgres://user:${canary}%zz@host/db`,
        `postgres://user@host/db?password=${canary}&connect_timeout=x`,
        `postgres://user@host/db?sslpassword=${canary}&sslcert=x`
      ]
      for (const url of urls.filter((each) => !each.includes(`sslmode=${canary}`))) {
        const failure = yield* attempt(emitted, { url: Redacted.make(url) })
        assert.isDefined(failure, url)
        const fromEnvironment = yield* Effect.exit(
          Effect.scoped(Layer.build(PgWalSender.layerConfig)).pipe(
            Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ DATABASE_URL: url, PGPASSWORD: canary })))
          )
        )
        if (Exit.isFailure(fromEnvironment)) emitted.failed(fromEnvironment.cause)
      }
      const pem = (kind: string, text: string) => `-----BEGIN ${kind}-----\n${text}\n-----END ${kind}-----\n`
      const key = Redacted.make(pem("PRIVATE KEY", Buffer.from(canary).toString("base64")))
      const tls = { ...connection, sslmode: "require", sslkey: key } as const
      for (const options of [
        { ...tls, sslcert: pem("CERTIFICATE", "AAAA") },
        { ...tls, sslcert: "/nowhere/at/all" },
        { ...tls, sslcert: pem("CERTIFICATE", "AAAA"), sslpassword: Redacted.make(canary) },
        { ...tls, sslkey: Redacted.make(`${canary} is no key`), sslcert: pem("CERTIFICATE", "AAAA") }
      ]) {
        assert.strictEqual(yield* attempt(emitted, options), "InvalidOption")
      }
    })
  )

  listened("in the configuration itself, whoever prints it", (server, emitted) =>
    Effect.gen(function* () {
      const { connection } = yield* makeWorkspace(server)
      const options: PgConfig.Options = {
        ...connection,
        url: Redacted.make(`postgres://user:${canary}@host/db`),
        password: Redacted.make(canary),
        sslpassword: Redacted.make(canary),
        sslcert: "x",
        sslkey: Redacted.make(canary)
      }
      emitted.failed(options)
      const config = PgConfig.resolve(options)
      emitted.failed(config)
      emitted.failed(PgWalSender.layer(options))
      if (config._tag === "Success") emitted.failed(PgWalSender.make(config.success))
      yield* Effect.withSpan(Effect.logInfo(options), "configured", { attributes: { options } })
      yield* attempt(emitted, { ...connection, port: 1 })
    })
  )
})

describe("the command lets no secret out", () => {
  const withPassword = (workspace: Workspace, password?: string) => ({
    DATABASE_URL: workspace.url(undefined, password)
  })
  const args = (workspace: Workspace, ...more: ReadonlyArray<string>) => [
    ...["stream", "--slot", workspace.slot, "--publication", workspace.publication, "--log-level", "trace", ...more]
  ]

  for (const json of [[], ["--json"]]) {
    const how = json.length === 0 ? "in words" : "as JSON"
    fault(
      "X7",
      `and writes rows to standard output alone, ${how}`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: secrets })
          yield* makeSlot(workspace)
          for (const format of [[], ["--pretty"], ["--boundaries"], ["--streaming", "on"]]) {
            for (const statement of statements) yield* workspace.sql(statement)
            const until = yield* workspace.currentWalLsn
            const ended = yield* replicant(
              args(workspace, "--until-lsn", until, ...format, ...json),
              withPassword(workspace)
            )
            assert.strictEqual(ended.code, 0, ended.stderr)
            assert.include(ended.stdout, canary, "rows are its result")
            assert.notInclude(ended.stderr, canary)
            assert.notInclude(ended.stdout + ended.stderr, server.password)
            yield* workspace.sql("TRUNCATE secrets, named")
          }
        }),
      once
    )

    fault(
      "X7",
      `when it fails, ${how}`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, {
            sql: secrets,
            publication: "FOR TABLE secrets WHERE (decode(word, 'base64') IS NOT NULL)"
          })
          yield* makeSlot(workspace)
          yield* workspace.sql(`INSERT INTO secrets VALUES (1, '${canary}!')`)
          const host = "127.0.0.1"
          const failures: ReadonlyArray<readonly [args: ReadonlyArray<string>, env: Readonly<Record<string, string>>]> =
            [
              [args(workspace, ...json), withPassword(workspace)],
              [args(workspace, ...json), withPassword(workspace, `${canary}-wrong`)],
              [args(workspace, "--url", `postgres://u:${canary}@${host}:1/db`, ...json), {}],
              [args(workspace, "--url", `postgres://u:${canary}@${host}:notaport/db`, ...json), {}],
              [args(workspace, `--url=postgres://u:${canary}@${host}/db?nonsense=1`, ...json), {}],
              [args(workspace, "--url", `host=${host} password=${canary}`, ...json), {}],
              [args(workspace, ...json), { PGHOST: host, PGPORT: "1", PGUSER: "u", PGPASSWORD: canary }],
              [["identify", "--url", `postgres://u:${canary}@${host}:1/db`, ...json], {}],
              [["slot", "list", "--url", `postgres://u:${canary}@${host}/db`, "--nonsense", ...json], {}]
            ]
          for (const [given, env] of failures) {
            const ended = yield* Effect.scoped(Effect.flatMap(startReplicant(given, env), (running) => running.ended))
            assert.notStrictEqual(ended.code, 0, given.join(" "))
            assert.isNotEmpty(ended.stderr)
            assert.notInclude(ended.stdout + ended.stderr, canary, given.join(" "))
            assert.notInclude(ended.stdout + ended.stderr, server.password)
          }
        }),
      { ...once, timeout: 180_000 }
    )
  }
})
