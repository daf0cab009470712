/**
 * Packs both packages, installs the tarballs into an empty project, type-checks a program against them and runs it:
 * what a user gets, seen before a user does. Ends with `N passed, N failed`.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const project = Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-pack-"))
const counts = { passed: 0, failed: 0 }

interface Result {
  readonly isOk: boolean
  readonly output: string
}

/** Runs a program to its end. Standard input is closed: nothing here may ask. */
const run = (directory: string, file: string, args: ReadonlyArray<string>): Result => {
  const { error, status, stderr, stdout } = spawnSync(file, args, {
    cwd: directory,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"]
  })
  return { isOk: status === 0, output: `${error ?? ""}${stdout}${stderr}` }
}

/** Counts a check, and says what was seen if it failed. Gives whether it held. */
const check = (what: string, { isOk, output }: Result): boolean => {
  counts[isOk ? "passed" : "failed"]++
  console.log(`${isOk ? "ok" : "FAILED"}  ${what}`)
  if (!isOk) console.log(output)
  return isOk
}

const readManifest = (path: string): Record<string, unknown> => JSON.parse(Fs.readFileSync(path, "utf8"))

/** The files that `exports` and `bin` lead to, at any depth: `dist/index.js`. */
const targetsOf = (field: unknown): ReadonlyArray<string> =>
  typeof field === "string"
    ? [field.replace(/^\.\//, "")]
    : Object.values((field ?? {}) as Record<string, unknown>).flatMap(targetsOf)

/** The source that a map in `dist` tells of: `dist/Lsn.d.ts.map` of `src/Lsn.ts`. */
const sourceOf = (map: string): string => map.replace(/^dist\//, "src/").replace(/(?:\.d\.ts|\.js)\.map$/, ".ts")

/** What a tarball must hold, and what it must not. */
const problemsOf = (files: ReadonlySet<string>, manifest: Record<string, unknown>): ReadonlyArray<string> => {
  const targets = [manifest.exports, manifest.bin].flatMap(targetsOf)
  const needed = ["LICENSE", "README.md", ...targets]
  const maps = [...files].filter((file) => file.endsWith(".map"))
  return [
    ...needed.filter((file) => !files.has(file)).map((file) => `lacks ${file}`),
    ...targets.filter((target) => target.startsWith("src/")).map((target) => `leads to ${target}`),
    ...[...files].filter((file) => !/^(?:src|dist)\/|^(?:LICENSE|README\.md|package\.json)$/.test(file)),
    ...maps.filter((map) => !files.has(sourceOf(map))).map((map) => `${map} has no source`)
  ]
}

/** Packs a package, checks what is in the tarball, and gives its path. */
const pack = (name: string): string | undefined => {
  const before = Fs.readFileSync(Path.join(root, "packages", name, "package.json"), "utf8")
  const packed = run(root, "npm", ["pack", "--workspace", `packages/${name}`, "--pack-destination", project])
  if (!check(`npm pack -w packages/${name}`, packed)) return undefined
  const after = Fs.readFileSync(Path.join(root, "packages", name, "package.json"), "utf8")
  check(`packages/${name}/package.json is as it was`, { isOk: after === before, output: after })
  const tarball = Path.join(project, `replicant-${name}-${JSON.parse(before).version}.tgz`)
  const list = run(project, "tar", ["-tzf", tarball]).output.trim().split("\n")
  const files = new Set(list.map((path) => path.replace(/^package\//, "")))
  const unpacked = Fs.mkdtempSync(Path.join(project, "unpacked-"))
  run(project, "tar", ["-xzf", tarball, "-C", unpacked])
  const problems = problemsOf(files, readManifest(Path.join(unpacked, "package/package.json")))
  const size = `${files.size} files, ${Math.round(Fs.statSync(tarball).size / 1024)} KiB`
  check(`the tarball of ${name} is whole (${size})`, { isOk: problems.length === 0, output: problems.join("\n") })
  return tarball
}

const program = `
import { NodeServices } from "@effect/platform-node"
import { Lsn, ReplicationSlot, type ReplicationError, SlotNotFound } from "@replicant/core"
import { message, TestWalSender, tx, type Written } from "@replicant/core/testing"
import * as Replicant from "@replicant/node"
import { PgServer, type PgServerFailed } from "@replicant/node/testing"
import { Effect, type Layer } from "effect"

const lsn: Lsn.Lsn | undefined = Lsn.fromString("16/B374D848")
const error: ReplicationError = new SlotNotFound({ slot: "orders" })
const layer: Layer.Layer<PgServer, PgServerFailed> = PgServer.layer({ settings: { wal_sender_timeout: "2s" } })
const program = Effect.gen(function* () {
  const server = yield* PgServer
  return yield* server.query("SELECT 1")
}).pipe(Effect.provide(layer), Effect.provide(NodeServices.layer))

const written: Effect.Effect<ReadonlyArray<Written>> = Effect.gen(function* () {
  const server = yield* TestWalSender
  return yield* server.write(tx(message("prefix", "content")))
}).pipe(Effect.provide(TestWalSender.layer({ slot: "orders" })))
const [transaction] = Effect.runSync(written)

// @ts-expect-error an LSN is not just any bigint
const wrong: Lsn.Lsn = 1n

console.log(lsn, error.message, typeof program, typeof ReplicationSlot, Object.keys(Replicant).length > 0, wrong)
console.log(transaction?._tag)
`

const tsconfig = (skipLibCheck: boolean): string =>
  JSON.stringify({
    compilerOptions: {
      target: "ES2022",
      lib: ["ES2024", "DOM", "DOM.Iterable"],
      module: "NodeNext",
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
      skipLibCheck,
      types: ["node"]
    },
    include: ["main.ts"]
  })

/** Installs the tarballs beside what a user has, and what the type-check needs. */
const install = (tarballs: ReadonlyArray<string>): boolean => {
  const { devDependencies } = readManifest(Path.join(root, "package.json")) as {
    readonly devDependencies: Readonly<Record<string, string>>
  }
  const theirs = ["effect", "@effect/platform-node", "typescript", "@types/node"]
  const dependencies = {
    "@replicant/core": `file:${tarballs[0]}`,
    "@replicant/node": `file:${tarballs[1]}`,
    ...Object.fromEntries(theirs.map((name) => [name, devDependencies[name]]))
  }
  Fs.writeFileSync(
    Path.join(project, "package.json"),
    JSON.stringify({ name: "project", private: true, type: "module", dependencies })
  )
  const flags = ["--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
  return check("npm install of both tarballs", run(project, "npm", ["install", ...flags]))
}

/** Everything after the installation. Programs run on the Node.js that runs this script. */
const use = (): void => {
  const bin = Path.join(project, "node_modules/.bin")
  Fs.writeFileSync(Path.join(project, "main.ts"), program)
  for (const skipLibCheck of [true, false]) {
    Fs.writeFileSync(Path.join(project, "tsconfig.json"), tsconfig(skipLibCheck))
    const how = skipLibCheck ? "" : ", declarations of dependencies included"
    check(`a program type-checks${how}`, run(project, Path.join(bin, "tsc"), ["-p", "."]))
  }
  const { isOk, output } = run(project, process.execPath, ["main.ts"])
  const isRight =
    output.includes(`97500059720n replication slot "orders" does not exist object object true`) &&
    output.includes("Transaction")
  check("the program runs", { isOk: isOk && isRight, output })
  const { isOk: isHelp, output: help } = run(project, process.execPath, [Path.join(bin, "replicant"), "--help"])
  check("replicant --help", { isOk: isHelp && /replicant/.test(help), output: help })
}

try {
  const tarballs = ["core", "node"].map(pack)
  if (tarballs.every((tarball) => tarball !== undefined) && install(tarballs)) use()
} finally {
  Fs.rmSync(project, { recursive: true, force: true })
}
console.log(`${counts.passed} passed, ${counts.failed} failed`)
process.exitCode = counts.failed === 0 && counts.passed > 0 ? 0 : 1
