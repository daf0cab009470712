import { writeFile } from "node:fs/promises"
import type { AddressInfo, Socket } from "node:net"
import * as Tls from "node:tls"
import { assert, describe, layer } from "@effect/vitest"
import { ConnectionError } from "@replicant/core"
import { Frames } from "@replicant/core/driver"
import { PgConfig, PgWalSender } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { Context, Effect, Fiber, Layer, Redacted, Result, type Scope } from "effect"
import { readOnDemand } from "../packages/node/src/pg/ReadOnDemand.ts"
import { type Certificates, makeCertificates } from "./support/Certificates.ts"
import { eventually } from "./support/eventually.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"

const connect = Effect.fnUntraced(function* (options: PgConfig.Options) {
  const { host, password, port, user } = yield* PgServer
  const given = { host, port, user, database: "postgres", password: Redacted.make(password), ...options }
  return yield* PgWalSender.make(Result.getOrThrow(PgConfig.resolve(given))).connect
})

const failure = (options: PgConfig.Options) => Effect.flip(Effect.scoped(connect(options)))

const secret = "it's a secret"

const roles = `
  SET password_encryption = 'scram-sha-256';
  CREATE ROLE scram LOGIN REPLICATION PASSWORD '${secret.replaceAll("'", "''")}';
  CREATE ROLE plain LOGIN REPLICATION PASSWORD '${secret.replaceAll("'", "''")}';
  CREATE ROLE carl LOGIN REPLICATION;
  CREATE ROLE trusted LOGIN REPLICATION;
  CREATE ROLE reader LOGIN PASSWORD '${secret.replaceAll("'", "''")}';
  SET password_encryption = 'md5';
  CREATE ROLE md5 LOGIN REPLICATION PASSWORD '${secret.replaceAll("'", "''")}'`

const hba = [
  "hostnossl all trusted 127.0.0.1/32 trust",
  "hostssl all carl 127.0.0.1/32 cert",
  "host all md5 127.0.0.1/32 md5",
  "host all plain 127.0.0.1/32 password",
  "host all rejected 127.0.0.1/32 reject"
]

const setup = Layer.effectDiscard(Effect.flatMap(PgServer, (server) => server.query(roles)))

const real = { excludeTestServices: true, timeout: "4 minutes" } as const

const as = (user: string, options: PgConfig.Options = {}): PgConfig.Options => ({
  user,
  password: Redacted.make(secret),
  sslmode: "disable",
  ...options
})

/** A slot with so many rows to read, and the command that reads them. */
const backlog = Effect.fnUntraced(function* (name: string, rows: number) {
  const server = yield* PgServer
  yield* server.query(`CREATE TABLE ${name} (id int PRIMARY KEY, note text)`)
  yield* server.query(`CREATE PUBLICATION ${name} FOR TABLE ${name}`)
  yield* server.query(`SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`)
  yield* server.query(`INSERT INTO ${name} SELECT id, 'row ' || id FROM generate_series(1, ${rows}) AS id`)
  return `START_REPLICATION SLOT ${name} LOGICAL 0/0 (proto_version '1', publication_names '${name}')`
})

/** The texts `row N` in all frames of what was pulled, in order. */
const rowsOf = (reads: ReadonlyArray<Uint8Array>): ReadonlyArray<number> => {
  const frames = new Frames()
  const rows: Array<number> = []
  for (const read of reads) {
    frames.push(read)
    while (frames.next()) {
      const text = Buffer.from(frames.bytes.buffer, frames.bytes.byteOffset + frames.start, frames.end - frames.start)
      const row = /row (\d+)$/.exec(text.toString("latin1"))
      if (row !== null) rows.push(Number(row[1]))
    }
  }
  return rows
}

/** Pulls until a frame holds the last row, and only then looks at all that was pulled. */
const drainHeld = Effect.fnUntraced(function* (options: PgConfig.Options, command: string, rows: number) {
  const connection = yield* connect(options)
  const copy = yield* connection.copyBoth(command)
  const held: Array<Uint8Array> = []
  const last = Buffer.from(`row ${rows}`)
  while (true) {
    const read = yield* copy.pull
    held.push(read)
    const tail = Buffer.concat(held.slice(-2))
    if (tail.includes(last)) return rowsOf(held)
  }
})

const sockets = (): number => process.getActiveResourcesInfo().filter((name) => /^(TCP|TLS)/.test(name)).length

const plainServer = Layer.provideMerge(setup, PgServer.layer({ ...PostgresVersion.serverOptions(), hba }))

layer(plainServer, real)("PgWalSender with a server without TLS", (it) => {
  it.effect("authenticates by SCRAM, MD5, or trust", () =>
    Effect.gen(function* () {
      for (const user of ["scram", "md5", "trusted"]) {
        const connection = yield* connect(as(user))
        const [row] = yield* connection.query("SELECT current_user AS user")
        assert.deepStrictEqual({ ...row }, { user })
        assert.isAtLeast(connection.serverVersion, 140_000)
      }
    })
  )

  it.effect("[X1, X5] tells a wrong password, a missing one, and one that nobody should hear", () =>
    Effect.gen(function* () {
      for (const user of ["scram", "md5"]) {
        const error = yield* failure(as(user, { password: Redacted.make("wrong") }))
        assert.deepInclude(error, { _tag: "AuthenticationFailed", sqlState: "28P01" })
        assert.isFalse(error.isRetryable)
      }
      const missing = yield* failure({ user: "scram", password: undefined, sslmode: "disable" })
      assert.strictEqual(missing._tag, "AuthenticationFailed")
      const inPlainText = yield* failure(as("plain"))
      assert.strictEqual(inPlainText._tag, "AuthenticationFailed")
      assert.include(inPlainText.message, "in plain text")
    })
  )

  it.effect("[X1] asks the password provider anew at each attempt", () =>
    Effect.gen(function* () {
      const passwords = ["wrong", secret]
      const password = Effect.sync(() => Redacted.make(passwords.shift()!))
      assert.strictEqual((yield* failure(as("scram", { password })))._tag, "AuthenticationFailed")
      yield* connect(as("scram", { password })).pipe(Effect.scoped)
    })
  )

  it.effect("tells a database that is not there, a role that may not replicate, and one that pg_hba.conf rejects", () =>
    Effect.gen(function* () {
      const missing = yield* failure(as("scram", { database: "nowhere" }))
      assert.deepInclude(missing, { _tag: "ServerError", sqlState: "3D000", stage: "Connect" })
      assert.isFalse(missing.isRetryable)
      assert.deepInclude(yield* failure(as("reader")), {
        _tag: "PermissionDenied",
        remedy: 'ALTER ROLE "reader" REPLICATION; GRANT CONNECT ON DATABASE "postgres" TO "reader"'
      })
      assert.deepInclude(yield* failure(as("rejected")), { _tag: "AuthenticationFailed", sqlState: "28000" })
    })
  )

  it.effect("[X3] never goes without TLS where it was asked for, and does with prefer", () =>
    Effect.gen(function* () {
      for (const sslmode of ["require", "verify-full"] as const) {
        const error = yield* failure(as("scram", { sslmode }))
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "Tls" })
        assert.isFalse(error.isRetryable)
      }
      const connection = yield* connect(as("scram", { sslmode: "prefer" }))
      const [row] = yield* connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
      assert.deepStrictEqual({ ...row }, { ssl: "f" })
    })
  )

  it.effect("opens ordinary sessions, too: no walsender's, which end with their scope", () =>
    Effect.gen(function* () {
      const { host, password, port, query, user } = yield* PgServer
      const applicationName = "an ordinary session"
      const options = { host, port, user, database: "postgres", password: Redacted.make(password), applicationName }
      const { openSession } = PgWalSender.make(Result.getOrThrow(PgConfig.resolve(options)))
      const backends = query(`SELECT backend_type FROM pg_stat_activity WHERE application_name = '${applicationName}'`)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const session = yield* openSession
          assert.isAtLeast(session.serverVersion, 140_000)
          assert.deepStrictEqual(yield* backends, [{ backend_type: "client backend" }])
          const error = yield* Effect.flip(session.query("IDENTIFY_SYSTEM"))
          assert.deepInclude(error, { _tag: "ServerError", sqlState: "42601" })
        })
      )
      yield* eventually(Effect.map(backends, (left) => left.length === 0))
    })
  )

  it.effect("hands settings over as they are, and keeps a role's own out of the text of values", () =>
    Effect.gen(function* () {
      const server = yield* PgServer
      yield* server.query(
        "ALTER ROLE scram SET datestyle = 'German'; ALTER ROLE scram SET intervalstyle = 'sql_standard';" +
          "ALTER ROLE scram SET extra_float_digits = -4; ALTER ROLE scram SET bytea_output = 'escape'"
      )
      const value = String.raw`a\b, "c d"	e`
      const settings = { "replicant.test": value, wal_sender_timeout: "12s" }
      const connection = yield* connect(as("scram", { settings, applicationName: "a test" }))
      const show = (name: string) =>
        Effect.map(connection.query(`SHOW ${name}`), ([row]) => Object.values(row ?? {})[0])
      assert.strictEqual(yield* show("replicant.test"), value)
      assert.strictEqual(yield* show("wal_sender_timeout"), "12s")
      assert.strictEqual(yield* show("application_name"), "a test")
      const [row] = yield* connection.query(
        "SELECT DATE '2026-02-03' AS d, INTERVAL '1 day 2 h' AS i, 0.1::float8 + 0.2 AS f, '\\x00ff'::bytea AS b"
      )
      assert.deepStrictEqual(
        { ...row },
        { d: "2026-02-03", i: "1 day 02:00:00", f: "0.30000000000000004", b: "\\x00ff" }
      )
    })
  )

  it.effect("gives the text of the last statement's rows, and null", () =>
    Effect.gen(function* () {
      const connection = yield* connect(as("scram"))
      const rows = yield* connection.query(
        "SELECT 1; SELECT 42::int8 AS n, true AS b, NULL AS nothing, 'x' AS \"__proto__\""
      )
      assert.deepStrictEqual(Object.entries(rows[0]!), [
        ["n", "42"],
        ["b", "t"],
        ["nothing", null],
        ["__proto__", "x"]
      ])
      assert.deepStrictEqual(yield* connection.query(""), [])
      const [system] = yield* connection.query("IDENTIFY_SYSTEM")
      assert.strictEqual(system?.dbname, "postgres")
    })
  )

  it.effect("goes on after a query that failed, also to a copy", () =>
    Effect.gen(function* () {
      const command = yield* backlog("after_error", 3)
      const connection = yield* connect(as("scram"))
      assert.deepInclude(yield* Effect.flip(connection.query("SELECT 1/0")), {
        _tag: "ServerError",
        stage: "Query",
        sqlState: "22012"
      })
      assert.strictEqual((yield* connection.query("SELECT 1 AS one")).length, 1)
      yield* Effect.flip(connection.query("CREATE_REPLICATION_SLOT after_error LOGICAL pgoutput"))
      const copy = yield* connection.copyBoth(command)
      assert.strictEqual((yield* copy.pull)[0], 0x57 /* W: CopyBothResponse */)
    })
  )

  it.effect("gives the server's refusal of a copy with the first pull", () =>
    Effect.gen(function* () {
      const connection = yield* connect(as("scram"))
      const copy = yield* connection.copyBoth("START_REPLICATION SLOT nowhere LOGICAL 0/0")
      const answer = yield* copy.pull
      assert.strictEqual(answer[0], 0x45 /* E: ErrorResponse */)
      assert.include(Buffer.from(answer).toString(), "C42704")
    })
  )

  it.effect("waits with a copy for the answer to a query that was interrupted", () =>
    Effect.gen(function* () {
      const command = yield* backlog("after_interrupt", 3)
      const connection = yield* connect(as("scram"))
      const sleeping = yield* Effect.forkChild(connection.query("SELECT pg_sleep(0.3)"), { startImmediately: true })
      yield* Effect.sleep("50 millis")
      yield* Fiber.interrupt(sleeping)
      const copy = yield* connection.copyBoth(command)
      assert.strictEqual((yield* copy.pull)[0], 0x57 /* W: CopyBothResponse */)
    })
  )

  it.effect("reads a backlog whole, and nothing that was pulled changes while it is held", () =>
    Effect.gen(function* () {
      const rows = 100_000
      const command = yield* backlog("held", rows)
      const expected = Array.from({ length: rows }, (_, index) => index + 1)
      assert.deepStrictEqual(yield* drainHeld(as("scram"), command, rows), expected)
    }).pipe(Effect.scoped)
  )

  it.effect("fails a pull once the server has ended the connection, after its last words", () =>
    Effect.gen(function* () {
      const server = yield* PgServer
      const connection = yield* connect(as("scram"))
      const [backend] = yield* connection.query("SELECT pg_backend_pid() AS pid")
      const copy = yield* connection.copyBoth(yield* backlog("terminated", 1))
      yield* copy.pull
      yield* server.query(`SELECT pg_terminate_backend(${backend?.pid})`)
      const reads: Array<Uint8Array> = []
      const error = yield* Effect.flip(Effect.forever(Effect.map(copy.pull, (bytes) => reads.push(bytes))))
      assert.deepInclude(error, { _tag: "ConnectionError", reason: "Closed" })
      assert.include(Buffer.concat(reads).toString("latin1"), "C57P01")
      assert.strictEqual((yield* Effect.flip(copy.send(Buffer.from("c\0\0\0\x04"))))._tag, "ConnectionError")
    })
  )

  it.effect("leaves no socket, at the server or here, as its scope closes amid a copy", () =>
    Effect.gen(function* () {
      const server = yield* PgServer
      const command = yield* backlog("abandoned", 50_000)
      const before = sockets()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(as("scram", { applicationName: "left" }))
          const copy = yield* connection.copyBoth(command)
          yield* copy.pull
          assert.strictEqual(sockets(), before + 1)
        })
      )
      yield* eventually(Effect.sync(() => sockets() === before))
      const left = server.query("SELECT FROM pg_stat_activity WHERE application_name = 'left'")
      yield* eventually(Effect.map(left, (rows) => rows.length === 0))
    })
  )
})

class Certs extends Context.Service<Certs, Certificates>()("test/Certificates") {}

const tlsServer = Layer.unwrap(
  Effect.gen(function* () {
    const { authority, server } = yield* Certs
    return Layer.provideMerge(
      setup,
      PgServer.layer({
        ...PostgresVersion.serverOptions(),
        hba,
        settings: { ssl: "on", ssl_ca_file: "ca.crt" },
        files: { "server.crt": server.cert, "server.key": server.key, "ca.crt": authority.cert }
      })
    )
  })
).pipe(Layer.provideMerge(Layer.effect(Certs, makeCertificates)))

layer(tlsServer, real)("PgWalSender with a server with TLS", (it) => {
  const isEncrypted = (options: PgConfig.Options) =>
    Effect.scoped(
      Effect.gen(function* () {
        const connection = yield* connect({ host: "localhost", ...options })
        const [row] = yield* connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return row?.ssl === "t"
      })
    )

  it.effect("[X3, X4] follows sslmode", () =>
    Effect.gen(function* () {
      const { authority, otherAuthority } = yield* Certs
      const ours = authority.certFile
      const others = otherAuthority.certFile
      const cases: ReadonlyArray<readonly [PgConfig.Options, "plain" | "encrypted" | RegExp]> = [
        [{ sslmode: "disable" }, "plain"],
        [{}, "encrypted"],
        [{ sslmode: "require" }, "encrypted"],
        [{ sslmode: "require", host: "127.0.0.1" }, "encrypted"],
        [{ sslmode: "require", sslrootcert: others }, /UNABLE_TO|SELF_SIGNED|SIGNATURE/],
        [{ sslmode: "verify-ca", sslrootcert: ours, host: "127.0.0.1" }, "encrypted"],
        [{ sslmode: "verify-ca", sslrootcert: others }, /UNABLE_TO|SELF_SIGNED|SIGNATURE/],
        [{ sslmode: "verify-full", sslrootcert: ours }, "encrypted"],
        [{ sslmode: "verify-full", sslrootcert: authority.cert }, "encrypted"],
        [{ sslmode: "verify-full", sslrootcert: ours, host: "127.0.0.1" }, /ERR_TLS_CERT_ALTNAME_INVALID/],
        [{ sslmode: "verify-full", sslrootcert: others }, /UNABLE_TO|SELF_SIGNED|SIGNATURE/],
        [{ sslmode: "verify-full", sslrootcert: "system" }, /UNABLE_TO|SELF_SIGNED|SIGNATURE/],
        [{ sslmode: "verify-full" }, /UNABLE_TO|SELF_SIGNED|SIGNATURE/]
      ]
      for (const [options, outcome] of cases) {
        const said = as("scram", { sslmode: undefined, ...options })
        if (outcome instanceof RegExp) {
          const error = yield* failure({ host: "localhost", ...said })
          assert.deepInclude(error, { _tag: "ConnectionError", reason: "Tls" }, JSON.stringify(options))
          assert.match(error.message, outcome)
          assert.isFalse(error.isRetryable)
        } else assert.strictEqual(yield* isEncrypted(said), outcome === "encrypted", JSON.stringify(options))
      }
    })
  )

  it.effect("[X5] lets a password in plain text through TLS", () =>
    Effect.gen(function* () {
      const { authority } = yield* Certs
      assert.isTrue(yield* isEncrypted(as("plain", { sslmode: "verify-full", sslrootcert: authority.cert })))
    })
  )

  const direct =
    PostgresVersion.current() < 17
      ? "is told that the server is too old to begin with TLS at once"
      : "begins with TLS at once where sslnegotiation is direct"
  it.effect(direct, () =>
    Effect.gen(function* () {
      const { authority } = yield* Certs
      const options = { sslmode: "verify-full", sslnegotiation: "direct", sslrootcert: authority.cert } as const
      if (PostgresVersion.current() >= 17) return assert.isTrue(yield* isEncrypted(as("scram", options)))
      // PostgreSQL 16 takes the first bytes of TLS for the length of a packet, and hangs up.
      const error = yield* failure({ host: "localhost", ...as("scram", options) })
      assert.deepInclude(error, { _tag: "ConnectionError", remedy: "sslnegotiation=direct needs PostgreSQL 17" })
    })
  )

  it.effect("[X5] binds SCRAM to the TLS connection, and takes nothing less where that is required", () =>
    Effect.gen(function* () {
      const options = { sslmode: "require", channelBinding: "require", host: "localhost" } as const
      assert.isTrue(yield* isEncrypted(as("scram", options)))
      for (const user of ["md5", "plain"]) {
        const error = yield* failure(as(user, options))
        assert.strictEqual(error._tag, "AuthenticationFailed")
        assert.include(error.message, "does not bind")
      }
    })
  )

  it.effect("shows its certificate, from text or from files", () =>
    Effect.gen(function* () {
      const { authority, client } = yield* Certs
      const options = {
        user: "carl",
        password: undefined,
        sslmode: "verify-full",
        sslrootcert: authority.cert
      } as const
      const { certFile, keyFile } = client
      assert.isTrue(yield* isEncrypted({ ...options, sslcert: certFile, sslkey: keyFile }))
      assert.isTrue(yield* isEncrypted({ ...options, sslcert: client.cert, sslkey: Redacted.make(client.key) }))
      const error = yield* failure({ ...options, host: "localhost" })
      assert.strictEqual(error._tag, "AuthenticationFailed")
    })
  )

  it.effect("tells which file it cannot use", () =>
    Effect.gen(function* () {
      const { authority, client, server } = yield* Certs
      const cases: ReadonlyArray<readonly [string, PgConfig.Options]> = [
        ["sslrootcert", { sslrootcert: "/nonexistent/ca.pem" }],
        ["sslrootcert", { sslrootcert: client.keyFile }],
        ["sslcert", { sslcert: client.keyFile, sslkey: client.keyFile }],
        ["sslkey", { sslcert: client.certFile, sslkey: client.certFile }],
        ["sslkey", { sslcert: client.certFile, sslkey: server.keyFile }]
      ]
      for (const [option, options] of cases) {
        const error = yield* failure(as("scram", { sslmode: "verify-full", sslrootcert: authority.cert, ...options }))
        assert.deepInclude(error, { _tag: "InvalidOption", option })
      }
    })
  )

  it.effect("[X4] reads the files anew at each attempt", () =>
    Effect.gen(function* () {
      const { authority, otherAuthority } = yield* Certs
      const file = `${authority.certFile}.renewed`
      const options = as("scram", { sslmode: "verify-full", sslrootcert: file })
      yield* Effect.promise(() => writeFile(file, otherAuthority.cert))
      assert.deepInclude(yield* failure({ host: "localhost", ...options }), { reason: "Tls" })
      yield* Effect.promise(() => writeFile(file, authority.cert))
      assert.isTrue(yield* isEncrypted(options))
    })
  )

  it.effect("reads a backlog whole through TLS", () =>
    Effect.gen(function* () {
      const rows = 50_000
      const command = yield* backlog("encrypted", rows)
      const expected = Array.from({ length: rows }, (_, index) => index + 1)
      assert.deepStrictEqual(yield* drainHeld(as("scram", { sslmode: "require" }), command, rows), expected)
    }).pipe(Effect.scoped)
  )

  it.effect("leaves no socket as its scope closes", () =>
    Effect.gen(function* () {
      const before = sockets()
      yield* Effect.scoped(connect(as("scram", { sslmode: "require" })))
      yield* eventually(Effect.sync(() => sockets() === before))
    })
  )
})

describe("readOnDemand over TLS", () => {
  layer(
    Layer.effect(Certs, makeCertificates),
    real
  )((it) => {
    const connected = (): Effect.Effect<{ ours: Socket; theirs: Socket }, never, Certs | Scope.Scope> =>
      Effect.flatMap(Certs, ({ authority, server: { cert, key } }) =>
        Effect.acquireRelease(
          Effect.callback<{ ours: Socket; theirs: Socket; stop: () => void }>((resume) => {
            const server = Tls.createServer({ cert, key }, (theirs) => {
              const stop = (): void => {
                ours.destroy()
                theirs.destroy()
                server.close()
              }
              theirs.on("error", () => undefined)
              if (ours.authorized) resume(Effect.succeed({ ours, theirs, stop }))
              else ours.once("secureConnect", () => resume(Effect.succeed({ ours, theirs, stop })))
            })
            let ours: Tls.TLSSocket
            server.listen(0, "127.0.0.1", () => {
              const { port } = server.address() as AddressInfo
              ours = Tls.connect({ port, host: "127.0.0.1", servername: "localhost", ca: authority.cert })
            })
          }),
          ({ stop }) => Effect.sync(stop)
        )
      )
    const toError = (thrown: unknown): ConnectionError =>
      new ConnectionError({ reason: "Closed", detail: String(thrown) })

    it.effect("reads nothing more while nobody pulls, and loses nothing", () =>
      Effect.gen(function* () {
        const { ours, theirs } = yield* connected()
        const copy = readOnDemand(ours, toError)
        const sent = Buffer.from(Array.from({ length: 8 * 1024 * 1024 }, (_, index) => (index * 7) & 0xff))
        theirs.write(sent)
        const reads = [yield* copy.pull]
        yield* Effect.sleep("100 millis")
        const { bytesRead } = ours
        yield* Effect.sleep("100 millis")
        assert.strictEqual(ours.bytesRead, bytesRead)
        assert.isBelow(bytesRead, sent.length)
        for (let pulled = reads[0]!.length; pulled < sent.length; pulled += reads.at(-1)!.length) {
          reads.push(yield* copy.pull)
        }
        assert.strictEqual(Buffer.compare(Buffer.concat(reads), sent), 0)
      })
    )
  })
})
