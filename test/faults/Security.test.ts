/**
 * Who may know what: passwords that are wrong, old or asked for by somebody else, roles that lose their rights, TLS
 * that is not there or not the right one. On servers of their own, since all of it stands in pg_hba.conf and roles.
 *
 * A server that breaks the protocol of authentication is played in packages/node/test/pg/PgAuthentication.test.ts.
 */
import { chmod, writeFile } from "node:fs/promises"
import { assert, layer } from "@effect/vitest"
import type { ReplicationError } from "@replicant/core"
import { PgConfig, PgWalSender } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { Context, Effect, Layer, Redacted, Result, Schedule } from "effect"
import { fakeServer, int32, message, until } from "../../packages/node/test/support/FakeServer.ts"
import { type Certificates, makeCertificates } from "../support/Certificates.ts"
import { eventually } from "../support/eventually.ts"
import { type FaultId, faultTitle } from "../support/Faults.ts"
import { follow } from "../support/Follow.ts"
import { makeIntruder } from "../support/Intruder.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

class Certs extends Context.Service<Certs, Certificates>()("test/Certificates") {}

const hba = [
  "host all nobody 127.0.0.1/32 reject",
  "hostssl all encrypted 127.0.0.1/32 scram-sha-256",
  "host all encrypted 127.0.0.1/32 reject"
]

const server = Layer.unwrap(
  Effect.gen(function* () {
    const { authority, server } = yield* Certs
    return PgServer.layer({
      ...PostgresVersion.serverOptions(),
      hba,
      settings: { ssl: "on", autovacuum: "off" },
      files: { "server.crt": server.cert, "server.key": server.key, "ca.crt": authority.cert }
    })
  })
).pipe(Layer.provideMerge(Layer.effect(Certs, makeCertificates)))

const table = "CREATE TABLE t (id int PRIMARY KEY)"

/**
 * A workspace with a role of its own that may replicate. Roles belong to the cluster, so they bear the workspace's
 * name.
 */
const makeRole = Effect.fnUntraced(function* (attributes = "REPLICATION PASSWORD 'first'") {
  const server = yield* PgServer
  const workspace = yield* makeWorkspace(server, { sql: table })
  const role = `${workspace.database}_role`
  yield* workspace.sql(`CREATE ROLE ${role} LOGIN ${attributes}`)
  // The server's log is where attempts are counted: a refused one and its role are a line.
  const refusals = Effect.map(server.log, (log) => log.match(new RegExp(`FATAL:.*"${role}"`, "g"))?.length ?? 0)
  return { workspace, role, refusals }
})

const as = ({ connection }: Workspace, user: string, options: PgConfig.Options) =>
  PgWalSender.layer({ ...connection, user, sslmode: "disable", password: undefined, ...options })

const connectAs = (workspace: Workspace, user: string, options: PgConfig.Options = {}) => {
  const said = { ...workspace.connection, user, password: Redacted.make("first"), ...options }
  return PgWalSender.make(Result.getOrThrow(PgConfig.resolve(said))).connect
}

const refusal = (workspace: Workspace, user: string, options?: PgConfig.Options) =>
  Effect.flip(Effect.scoped(connectAs(workspace, user, options)))

/** Ends the walsender of a slot, as an administrator would. */
const terminate = (workspace: Workspace) =>
  workspace.sql(
    `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
  )

const soon = { reconnect: Schedule.spaced("50 millis") }

/** A provider of the passwords in a row, the last of them for ever, and how often it was asked. */
const provider = (...passwords: ReadonlyArray<string>) => {
  let asked = 0
  const password = Effect.sync(() => Redacted.make(passwords[Math.min(asked++, passwords.length - 1)]!))
  return { password, asked: () => asked }
}

const stream = (workspace: Workspace, role: string, options: PgConfig.Options) =>
  follow(workspace, { options: soon, layer: as(workspace, role, options) })

layer(server, { excludeTestServices: true, timeout: "4 minutes" })("Security", (it) => {
  const test = (ids: FaultId | ReadonlyArray<FaultId>, title: string, body: Parameters<typeof it.effect>[1]) =>
    it.effect(faultTitle(ids, title), body)

  test("X1", "a password that is wrong at the first start fails at once, whoever gives it", () =>
    Effect.gen(function* () {
      const { refusals, role, workspace } = yield* makeRole()
      const { asked, password } = provider("wrong", "first")
      const failed = yield* stream(workspace, role, { password })
      assert.deepInclude(yield* failed.failure, {
        _tag: "AuthenticationFailed",
        sqlState: "28P01",
        isRetryable: false
      })
      assert.strictEqual(asked(), 1)
      yield* eventually(Effect.map(refusals, (count) => count === 1))
    })
  )

  test("X1", "a password that changes in mid-life is asked for again, and the stream goes on", () =>
    Effect.gen(function* () {
      const { role, workspace } = yield* makeRole()
      const { asked, password } = provider("first", "first", "second")
      const streaming = yield* stream(workspace, role, { password })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* streaming.saw("Insert", 1)
      yield* workspace.sql(`ALTER ROLE ${role} PASSWORD 'second'`)
      yield* terminate(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* streaming.saw("Insert", 2)
      // Once refused, as the provider was late.
      assert.strictEqual(asked(), 3)
    })
  )

  test("X1", "a provider that gives the refused password twice is the end", () =>
    Effect.gen(function* () {
      const { refusals, role, workspace } = yield* makeRole()
      const { asked, password } = provider("first")
      const streaming = yield* stream(workspace, role, { password })
      yield* workspace.sql(`ALTER ROLE ${role} PASSWORD 'second'`)
      yield* terminate(workspace)
      assert.deepInclude(yield* streaming.failure, { _tag: "AuthenticationFailed", isRetryable: false })
      assert.strictEqual(asked(), 3)
      yield* eventually(Effect.map(refusals, (count) => count === 2))
    })
  )

  test("X1", "a fixed password that is refused in mid-life is the end at once", () =>
    Effect.gen(function* () {
      const { refusals, role, workspace } = yield* makeRole()
      const streaming = yield* stream(workspace, role, { password: Redacted.make("first") })
      yield* workspace.sql(`ALTER ROLE ${role} PASSWORD 'second'`)
      yield* terminate(workspace)
      assert.deepInclude(yield* streaming.failure, { _tag: "AuthenticationFailed", isRetryable: false })
      yield* eventually(Effect.map(refusals, (count) => count === 1))
    })
  )

  test("X1", "a password file is read again, and a line that is changed in it keeps the stream going", () =>
    Effect.gen(function* () {
      const { role, workspace } = yield* makeRole()
      const { authority } = yield* Certs
      const passfile = `${authority.certFile}.${role}.pgpass`
      const write = (password: string) => Effect.promise(() => writeFile(passfile, `*:*:*:${role}:${password}\n`))
      yield* write("first")
      yield* Effect.promise(() => chmod(passfile, 0o600))
      const streaming = yield* stream(workspace, role, { passfile })
      yield* workspace.sql(`ALTER ROLE ${role} PASSWORD 'second'`)
      yield* write("second")
      yield* terminate(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* streaming.saw("Insert", 1)
    })
  )

  const lost: ReadonlyArray<readonly [FaultId, string, (role: string) => string, Partial<ReplicationError>]> = [
    ["X1", "expires", (role) => `ALTER ROLE ${role} VALID UNTIL '2020-01-01'`, { _tag: "AuthenticationFailed" }],
    ["X1", "may no longer log in", (role) => `ALTER ROLE ${role} NOLOGIN`, { _tag: "AuthenticationFailed" }],
    ["X1", "is renamed", (role) => `ALTER ROLE ${role} RENAME TO ${role}_2`, { _tag: "AuthenticationFailed" }],
    ["X1", "is dropped", (role) => `DROP ROLE ${role}`, { _tag: "AuthenticationFailed" }],
    ["X2", "may no longer replicate", (role) => `ALTER ROLE ${role} NOREPLICATION`, { _tag: "PermissionDenied" }]
  ]
  for (const [id, what, sql, expected] of lost) {
    test(id, `a role that ${what} streams on, and fails for good as it reconnects`, () =>
      Effect.gen(function* () {
        const { role, workspace } = yield* makeRole()
        const { asked, password } = provider("first")
        const streaming = yield* stream(workspace, role, { password })
        yield* workspace.sql(sql(role))
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* streaming.saw("Insert", 1)
        yield* terminate(workspace)
        const error = yield* streaming.failure
        assert.deepInclude(error, { ...expected, isRetryable: false })
        assert.isAtMost(asked(), 3)
        if (id === "X2") assert.include((error as { remedy: string }).remedy, `ALTER ROLE "${role}" REPLICATION`)
      })
    )
  }

  test("X3", "a server that admits nobody without TLS is told, and TLS is the cure", () =>
    Effect.gen(function* () {
      const { workspace } = yield* makeRole()
      yield* workspace.sql("CREATE ROLE encrypted LOGIN REPLICATION PASSWORD 'first'")
      const error = yield* refusal(workspace, "encrypted", { sslmode: "disable" })
      assert.deepInclude(error, { _tag: "AuthenticationFailed", sqlState: "28000", isRetryable: false })
      assert.include((error as { remedy: string }).remedy, "sslmode")
      yield* Effect.scoped(connectAs(workspace, "encrypted", { sslmode: "require", host: "localhost" }))
    })
  )

  test("X3", "a man in the middle who answers that there is no TLS hears nothing more", () =>
    Effect.gen(function* () {
      const { role, workspace } = yield* makeRole()
      const { authority } = yield* Certs
      for (const sslmode of ["require", "verify-ca", "verify-full"] as const) {
        const intruder = yield* fakeServer([Buffer.from("N")])
        const error = yield* refusal(workspace, role, { sslmode, port: intruder.port, sslrootcert: authority.cert })
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "Tls", isRetryable: false })
        yield* until(() => intruder.open() === 0)
        assert.deepStrictEqual(Buffer.concat(intruder.heard), Buffer.concat([int32(8), int32(80_877_103)]))
      }
    })
  )

  test("X4", "a certificate that has expired, is another's or bears another name ends it before a word is said", () =>
    Effect.gen(function* () {
      const { role, workspace } = yield* makeRole()
      const { authority, expired, otherAuthority, server } = yield* Certs
      const cases = [
        [expired, { sslrootcert: authority.cert }, "CERT_HAS_EXPIRED"],
        [server, { sslrootcert: otherAuthority.cert }, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
        [server, { sslrootcert: "system" }, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
        [server, { sslrootcert: authority.cert, host: "127.0.0.1" }, "ERR_TLS_CERT_ALTNAME_INVALID"]
      ] as const
      for (const [certificate, options, code] of cases) {
        const intruder = yield* fakeServer([], { tls: certificate })
        const said = { host: "localhost", sslmode: "verify-full", port: intruder.port, ...options } as const
        const error = yield* refusal(workspace, role, said)
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "Tls", isRetryable: false })
        assert.include(error.message, code)
        yield* until(() => intruder.open() === 0)
        assert.deepStrictEqual(intruder.heard, [])
      }
      // The same server under the right name, to see that it would have heard.
      const heard = yield* fakeServer(["end"], { tls: server })
      yield* refusal(workspace, role, {
        host: "localhost",
        sslmode: "verify-full",
        sslrootcert: authority.cert,
        port: heard.port
      })
      assert.include(Buffer.concat(heard.heard).toString("latin1"), role)
    })
  )

  /** Somebody with a good certificate, where the client looks at none. */
  const meddler = Effect.fnUntraced(function* (isStripping: boolean) {
    const { authority, intruder } = yield* Certs
    return yield* makeIntruder(yield* PgServer, {
      tls: { cert: intruder.cert, key: intruder.key, ca: authority.cert },
      toClient: (bytes) =>
        isStripping && bytes.includes("SCRAM-SHA-256-PLUS") ? message("R", int32(10), "SCRAM-SHA-256\0", "\0") : bytes
    })
  })

  test("X5", "a man in the middle of TLS is found out by channel binding, and by its being taken away", () =>
    Effect.gen(function* () {
      const { role, workspace } = yield* makeRole()
      for (const isStripping of [false, true]) {
        const { port } = yield* meddler(isStripping)
        const options = { host: "localhost", port, sslmode: "require" } as const
        const error = yield* refusal(workspace, role, options)
        assert.deepInclude(error, { _tag: "AuthenticationFailed", sqlState: "28000", isRetryable: false })
        // Without it nobody notices: which shows that the man in the middle is one.
        yield* Effect.scoped(connectAs(workspace, role, { ...options, channelBinding: "disable" }))
      }
    })
  )

  test("X5", "required channel binding that is taken away is refused before any answer", () =>
    Effect.gen(function* () {
      const { role, workspace } = yield* makeRole()
      const { heard, open, port } = yield* meddler(true)
      const options = { host: "localhost", port, sslmode: "require", channelBinding: "require" } as const
      const error = yield* refusal(workspace, role, options)
      assert.deepInclude(error, { _tag: "AuthenticationFailed", sqlState: "", isRetryable: false })
      assert.include(error.message, "does not bind")
      yield* until(() => open() === 0)
      // The startup message, and no more.
      assert.strictEqual(heard.length, 1)
      yield* Effect.scoped(
        connectAs(workspace, role, { host: "localhost", sslmode: "require", channelBinding: "require" })
      )
    })
  )

  test("X10", "a role with REPLICATION and CONNECT alone streams, past grants and row security", () =>
    Effect.gen(function* () {
      const { role, workspace } = yield* makeRole()
      yield* workspace.sql(`
        REVOKE ALL ON DATABASE ${workspace.database} FROM PUBLIC;
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
        ALTER TABLE t ENABLE ROW LEVEL SECURITY;
        ALTER TABLE t FORCE ROW LEVEL SECURITY;
        CREATE POLICY nothing ON t USING (false)`)
      const denied = yield* refusal(workspace, role, { sslmode: "disable" })
      assert.deepInclude(denied, { _tag: "PermissionDenied", isRetryable: false })
      const grant = `GRANT CONNECT ON DATABASE "${workspace.database}" TO "${role}"`
      assert.include((denied as { remedy: string }).remedy, grant)
      yield* workspace.sql(grant)
      const rights = yield* workspace.sql(`
        SELECT has_table_privilege('${role}', 't', 'SELECT') AS "select", rolsuper, rolreplication, rolbypassrls
        FROM pg_roles WHERE rolname = '${role}'`)
      assert.deepInclude(rights[0], { select: false, rolsuper: false, rolreplication: true, rolbypassrls: false })
      const streaming = yield* stream(workspace, role, { password: Redacted.make("first") })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* streaming.saw("Insert", 1)
    })
  )
})
