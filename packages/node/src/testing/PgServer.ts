/**
 * A PostgreSQL server for tests and demonstrations: on a cluster of its own, listening on 127.0.0.1, set up for logical
 * replication, stopped and removed with its scope. Not for data anyone wants to keep: it does not fsync.
 *
 * It runs the `postgres` program itself rather than `pg_ctl`, so that it can be stopped in each of PostgreSQL's ways, or
 * killed (docs/decisions/0004-own-spawn-of-postgres.md). All of it happens in real time: under a `TestClock` it hangs.
 */
import { randomInt } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Path from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as PgCluster from "./PgCluster.ts"
import * as PgProcess from "./PgProcess.ts"
import { PgServerFailed } from "./PgProcess.ts"
import * as PgSession from "./PgSession.ts"

/** Where its programs are, and how the cluster is set up. */
export interface PgServerOptions extends PgCluster.PgClusterOptions {}

/**
 * `smart` waits for clients to leave, `fast` disconnects them, `immediate` aborts: a crash recovery follows. But `fast`
 * too waits for a walsender's client until it has confirmed everything.
 *
 * Source: https://www.postgresql.org/docs/current/server-shutdown.html
 */
export type StopMode = "smart" | "fast" | "immediate"

const stopSignal = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const

/**
 * A running server, and the ways to disturb it.
 *
 * @example
 * Effect.gen(function*() {
 *   const server = yield* PgServer
 *   yield* server.query("CREATE DATABASE shop")
 *   yield* server.query("CREATE TABLE orders (id int PRIMARY KEY)", "shop")
 *   yield* server.restart("immediate")
 * }).pipe(Effect.provide(PgServer.layer({ settings: { wal_sender_timeout: "2s" } })))
 */
export interface PgServerShape {
  /** As `postgres --version` gives it: `18.4`. */
  readonly version: string
  readonly host: "127.0.0.1"
  /** The same after a restart. */
  readonly port: number
  readonly dataDirectory: string
  /** The superuser, and its password. */
  readonly user: string
  readonly password: string
  /** A connection URL, of the superuser unless told otherwise. */
  readonly url: (database?: string, user?: string, password?: string) => string
  /** The postmaster's pid; `undefined` while it does not run. */
  readonly pid: Effect.Effect<number | undefined>
  /** What the server has written to its log, over all its starts; the last 4 million characters of it. */
  readonly log: Effect.Effect<string>
  /** Runs SQL text in a session of its own as the superuser, and gives the rows of its last statement. */
  readonly query: (sql: string, database?: string) => Effect.Effect<ReadonlyArray<PgSession.Row>, PgServerFailed>
  /** A session as the superuser, closed with the scope; interrupting a query also closes it. */
  readonly connect: (database?: string) => Effect.Effect<PgSession.PgSession, PgServerFailed, Scope.Scope>
  /** Starts a stopped server, and waits until it accepts connections. */
  readonly start: Effect.Effect<void, PgServerFailed>
  /** Stops the server, `fast` unless told otherwise, and waits until every backend has gone. No error if it has already. */
  readonly stop: (mode?: StopMode) => Effect.Effect<void, PgServerFailed>
  /** Kills the postmaster with SIGKILL, and waits until the backends have noticed. */
  readonly kill: Effect.Effect<void, PgServerFailed>
  /** Stops, and starts again on the same port. */
  readonly restart: (mode?: StopMode) => Effect.Effect<void, PgServerFailed>
  /** Makes the server read postgresql.conf and pg_hba.conf again. It does so soon after, not at once. */
  readonly reload: Effect.Effect<void>
}

/** Line 1 of postmaster.pid is the pid, line 8 the server's own report of its state: what `pg_ctl --wait` reads. */
export const isReady = (postmasterPid: string, pid: number | undefined): boolean => {
  const lines = postmasterPid.split("\n")
  return Number(lines[0]) === pid && lines[7]?.trim() === "ready"
}

const canListen = (port: number): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const server = Net.createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(true))))
  })

/**
 * A free port below those the system hands out for outgoing connections (from 32768 on Linux, 49152 elsewhere): such a
 * connection could take it while the server restarts.
 */
const freePort: Effect.Effect<number, PgServerFailed> = Effect.suspend(() => {
  const port = randomInt(15_000, 32_000)
  return Effect.flatMap(canListen(port), (isFree) =>
    isFree ? Effect.succeed(port) : new PgServerFailed({ stage: "Start", problem: `port ${port} is taken` })
  )
}).pipe(Effect.retry({ times: 50 }))

const maxLog = 4_000_000

/** What runs on a cluster: one postmaster at most, started and stopped by turns. */
const makePostmaster = Effect.fnUntraced(function* (cluster: PgCluster.PgCluster, options: PgServerOptions) {
  const timeout = options.timeout ?? PgCluster.defaultTimeout
  let log = ""
  let last: PgProcess.Running | undefined
  const failed = (stage: "Start" | "Stop", problem: string): PgServerFailed =>
    new PgServerFailed({ stage, problem, log: PgCluster.tail(log) })

  const closed = Effect.suspend(() => (last === undefined ? Effect.void : Effect.promise(() => last!.closed)))
  const signal = (name: NodeJS.Signals): Effect.Effect<void> =>
    Effect.sync(() => void (last !== undefined && PgProcess.signal(last, name)))

  const launch = (port: number): Effect.Effect<PgProcess.Running> =>
    Effect.sync(() => {
      const started = PgProcess.start(cluster.postgres(["-p", String(port)]), (text) => {
        log = (log + text).slice(-maxLog)
      })
      last = started
      cluster.watchdog.guard(started.pid())
      started.closed.then(() => cluster.watchdog.guard(undefined))
      return started
    })

  const awaitReady = (started: PgProcess.Running): Effect.Effect<void, PgServerFailed> => {
    const file = Path.join(cluster.dataDirectory, "postmaster.pid")
    const ready = Effect.promise(() => Fs.readFile(file, "utf8").catch(() => "")).pipe(
      Effect.repeat({ until: (text) => isReady(text, started.pid()), schedule: Schedule.spaced("10 millis") })
    )
    const ended = Effect.flatMap(
      Effect.promise(() => started.closed),
      (outcome) => failed("Start", `postgres ${outcome.description}`)
    )
    return Effect.raceFirst(ready, ended).pipe(
      Effect.timeoutOrElse({ duration: timeout, orElse: () => failed("Start", "postgres was not ready in time") }),
      Effect.asVoid
    )
  }

  const start = (port: number): Effect.Effect<void, PgServerFailed> =>
    Effect.suspend(() => (last?.pid() === undefined ? Effect.flatMap(launch(port), awaitReady) : Effect.void))
  const end = (name: NodeJS.Signals): Effect.Effect<void, PgServerFailed> =>
    Effect.andThen(signal(name), closed).pipe(
      Effect.timeoutOrElse({ duration: timeout, orElse: () => failed("Stop", `postgres still runs after ${name}`) }),
      Effect.asVoid
    )

  // Whatever happens to the effects above, what was launched ends here.
  yield* Effect.addFinalizer(() =>
    Effect.andThen(signal("SIGQUIT"), closed).pipe(
      Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.andThen(signal("SIGKILL"), closed) })
    )
  )
  return { start, end, signal, pid: Effect.sync(() => last?.pid()), log: Effect.sync(() => log) }
})

/** Between looking for a free port and listening on it somebody else may take it: then another is tried. */
const startOnFreePort = Effect.fnUntraced(function* (start: (port: number) => Effect.Effect<void, PgServerFailed>) {
  for (let attempts = 1; ; attempts++) {
    const port = yield* freePort
    const failure = yield* start(port).pipe(
      Effect.as(undefined),
      Effect.catch((error) => Effect.succeed(error))
    )
    if (failure === undefined) return port
    if (attempts === 5 || (yield* canListen(port))) return yield* failure
  }
})

const make = Effect.fnUntraced(function* (
  options: PgServerOptions = {}
): Effect.fn.Return<PgServerShape, PgServerFailed, Scope.Scope> {
  const cluster = yield* PgCluster.make(options)
  const postmaster = yield* makePostmaster(cluster, options)
  const port = yield* startOnFreePort(postmaster.start)
  const turns = yield* Semaphore.make(1)
  const inTurn = Semaphore.withPermit(turns)

  const user = PgCluster.superuser
  const url: PgServerShape["url"] = (database = "postgres", name = user, password = cluster.password) =>
    `postgres://${encodeURIComponent(name)}:${password}@127.0.0.1:${port}/${encodeURIComponent(database)}`
  const start = postmaster.start(port)
  const stop = (mode: StopMode = "fast") => postmaster.end(stopSignal[mode])
  return {
    version: cluster.version,
    host: "127.0.0.1",
    port,
    dataDirectory: cluster.dataDirectory,
    user,
    password: cluster.password,
    url,
    pid: postmaster.pid,
    log: postmaster.log,
    query: (sql, database) => PgSession.query(url(database), sql),
    connect: (database) => PgSession.connect(url(database)),
    start: inTurn(start),
    stop: (mode) => inTurn(stop(mode)),
    kill: inTurn(postmaster.end("SIGKILL")),
    restart: (mode) => inTurn(Effect.andThen(stop(mode), start)),
    reload: postmaster.signal("SIGHUP")
  }
})

/** The server as a service. `make` is the server within a scope, `layer` the service. */
export class PgServer extends Context.Service<PgServer, PgServerShape>()("@replicant/node/testing/PgServer") {
  /** Makes a cluster and starts it, in about a second. Stopped and removed with the scope, however it ends. */
  static readonly make = make
  /** {@link make} as a Layer. */
  static readonly layer = (options: PgServerOptions = {}): Layer.Layer<PgServer, PgServerFailed> =>
    Layer.effect(PgServer, make(options))
}
