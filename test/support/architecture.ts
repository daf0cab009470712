/**
 * The walls of the house, as a checker over sources: which module may import which, and what a module may not say.
 * Pure, so that architecture.test.ts can plant violations and see them caught; that test also runs it over the
 * checkout.
 */

/** Sources by path from the root of the repository: `packages/core/src/Lsn.ts`. */
export type Sources = ReadonlyMap<string, string>

/** Rooms of one package from the ground up; of two on one line neither may import the other. */
type Floors = ReadonlyArray<ReadonlyArray<string>>

const coreFloors: Floors = [
  ["Lsn.ts", "PgTimestamp.ts", "ErrorForm.ts", "ServerError.ts", "SlotError.ts", "ReplicationError.ts"],
  ["refineServerError.ts", "isReplicationError.ts", "MonotonicTime.ts"],
  ["protocol"],
  ["values"],
  ["change"],
  ["pgoutput", "wal2json", "table"],
  ["outbox"],
  ["checkpoint", "server"],
  ["doctor"],
  ["replication"],
  ["snapshot"],
  ["copying", "lease", "rereading"],
  ["stream"],
  ["handling", "keeping", "operations", "sink"],
  ["index.ts", "driver.ts", "operations.ts", "sink.ts", "testing"]
]

const nodeFloors: Floors = [
  ["pg"],
  ["testing", "codegen", "copy", "sink", "letters"],
  ["cli"],
  ["Cli.ts"],
  ["index.ts", "bin.ts"]
]

/** Of an engine. */
const engineFloors: Floors = [["sink"], ["testing"], ["index.ts"]]

/** The packages, each with its floors. */
export const houses: ReadonlyArray<readonly [root: string, floors: Floors]> = [
  ["packages/core/src/", coreFloors],
  ["packages/node/src/", nodeFloors],
  ["packages/nats/src/", engineFloors],
  ["packages/redis/src/", engineFloors]
]

/** The first room of core in which effects run. */
const effectfulFrom = coreFloors.findIndex((rooms) => rooms.includes("server"))

/** What of effect is data only, and may be used where nothing runs. */
const pureModules =
  /^effect\/(Array|BigInt|Brand|Duration|Equal|Equivalence|Function|Hash|Match|Number|Option|Order|Predicate|Record|Redacted|Result|Schema|SchemaIssue|SchemaTransformation|String|Struct|Types)$/

const maxLines = 350

const coreRoot = "packages/core/src/"

/** The one module near the ground that asks the clock. */
const monotonicTime = `${coreRoot}MonotonicTime.ts`

/** What core does not say: no clock, no console, no timers, no bytes but Uint8Array, no promises, no one plugin. */
const bannedInCore: ReadonlyArray<readonly [pattern: RegExp, name: string]> = [
  [/\bBuffer\b/, "Buffer"],
  [/\bconsole\b/, "console"],
  [/\bDate\.now\b/, "Date.now"],
  [/\bperformance\.now\b/, "performance.now"],
  [/\b(setTimeout|setInterval|setImmediate)\b/, "a timer"],
  [/\basync\b/, "async"],
  [/\bprocess\./, "process"],
  [/\bplugin\.name\s*[!=]==?/, "which plugin it is"]
]

/** A slash begins a regular expression, not a division, after an operator, an opening bracket or `return`. */
const beginsRegExp = /(?:^|[(,=:[!&|?{};+\-*%~<>])\s*$|\breturn\s*$/

/** One token that is not code: comment, regular expression (tried only where one may begin), text. */
const notCode = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/y
const regExp = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/y

const blank = (text: string): string => text.replace(/[^\n]/g, " ")

/**
 * The source with comments, and if asked strings and regular expressions too, blanked out; lines stay where they are. A
 * template is one string here, its `${}` included.
 */
export const stripped = (source: string, what: "comments" | "everything"): string => {
  let code = ""
  let before = "" // The code so far, in which a string is an operand: tells what a slash means.
  let at = 0
  while (at < source.length) {
    let token: string | undefined
    if (source[at] === "/" || source[at] === '"' || source[at] === "'" || source[at] === "`") {
      notCode.lastIndex = at
      token = notCode.exec(source)?.[0]
      if (token === undefined && beginsRegExp.test(before.slice(-40))) {
        regExp.lastIndex = at
        token = regExp.exec(source)?.[0]
      }
    }
    const isComment = token?.startsWith("//") || token?.startsWith("/*")
    if (token === undefined) code += source[at]
    else code += isComment || what === "everything" ? blank(token) : token
    before += token === undefined ? source[at] : isComment ? " " : "x"
    at += token?.length ?? 1
  }
  return code
}

export interface Import {
  readonly specifier: string
  /** Erased at run time. */
  readonly isType: boolean
  /** Loaded once it is needed. */
  readonly isLazy: boolean
}

/** Every module that a source imports or re-exports from, dynamic imports included. */
export const importsOf = (source: string): ReadonlyArray<Import> => {
  const code = stripped(source, "comments")
  const statements = code.matchAll(/^[ \t]*(?:import|export)\s(type\s)?[^"'`;=(]*?from\s+["']([^"']+)["']/gm)
  const effects = code.matchAll(/^[ \t]*import\s+()["']([^"']+)["']/gm)
  const dynamic = code.matchAll(/\bimport\s*\(\s*()["']([^"']+)["']/g)
  const found = (matches: Iterable<RegExpExecArray>, isLazy: boolean) =>
    [...matches].map((match) => ({ specifier: match[2]!, isType: match[1] !== undefined && match[1] !== "", isLazy }))
  return [...found(statements, false), ...found(effects, false), ...found(dynamic, true)]
}

/** The path that a relative specifier leads to. */
const resolve = (from: string, specifier: string): string => {
  const parts = from.split("/").slice(0, -1)
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop()
    else if (part !== ".") parts.push(part)
  }
  return parts.join("/")
}

/** What is loaded with a module, at once: modules of the sources by their paths, of others their specifiers. */
export const loadedWith = (path: string, sources: Sources): ReadonlySet<string> => {
  const loaded = new Set<string>()
  const load = (at: string): void => {
    if (loaded.has(at)) return
    loaded.add(at)
    for (const { isLazy, isType, specifier } of importsOf(sources.get(at) ?? "")) {
      if (isLazy || isType) continue
      const [, name, entry = "index"] = /^@replicant\/([^/]+)(?:\/(\w+))?$/.exec(specifier) ?? []
      const target = specifier.startsWith(".") ? resolve(at, specifier) : `packages/${name}/src/${entry}.ts`
      load(sources.has(target) ? target : specifier)
    }
  }
  load(path)
  return loaded
}

/** The floors of the package that a module belongs to, its room there, and the floor of that room; -1 for none. */
const placeOf = (path: string) => {
  const [root, floors] = houses.find(([root]) => path.startsWith(root)) ?? ["", []]
  const room = path.slice(root.length).split("/")[0]!
  return { floors, room, floor: floors.findIndex((rooms) => rooms.includes(room)) }
}

/** The root that a module may not leave by a relative import: its package's src, or its directory at the top. */
const rootOf = (path: string): string => /^packages\/[^/]+\/src\/|^[^/]+\//.exec(path)?.[0] ?? ""

function* importViolations(path: string, { specifier, isType }: Import): Generator<string> {
  const isSource = path.startsWith("packages/")
  const isCore = path.startsWith(coreRoot)
  if (specifier.startsWith(".")) {
    const target = resolve(path, specifier)
    if (!specifier.endsWith(".ts")) yield `imports ${specifier}: relative imports end in .ts`
    if (!target.startsWith(rootOf(path))) yield `imports ${specifier}: another package is imported by its name`
    else if (isSource) {
      const [from, to] = [placeOf(path), placeOf(target)]
      const areFiles = from.room.endsWith(".ts") && to.room.endsWith(".ts")
      const isSibling = from.floor === to.floor && from.room !== to.room && !areFiles
      if (to.floor > from.floor || isSibling) yield `imports ${specifier}: ${to.room} is not below ${from.room}`
    }
    return
  }
  if (isSource && specifier === "effect") yield `imports effect: in src its modules are imported one by one`
  if (/^@replicant\/[^/]+\/(?!(?:testing|driver|operations|sink)$)/.test(specifier))
    yield `imports ${specifier}: not public`
  if (isCore && specifier !== "effect" && !specifier.startsWith("effect/"))
    yield `imports ${specifier}: core has only effect`
  if (
    isCore &&
    specifier.startsWith("effect/") &&
    placeOf(path).floor < effectfulFrom &&
    path !== monotonicTime &&
    !pureModules.test(specifier)
  ) {
    yield `imports ${isType ? "type " : ""}${specifier}: below server nothing runs`
  }
}

function* moduleViolations(path: string, source: string): Generator<string> {
  const isCore = path.startsWith(coreRoot)
  const name = path.split("/").at(-1)!
  if (/^(utils?|helpers?|common|types|misc|shared)\.ts$/i.test(name))
    yield "a module is named for the one idea it holds"
  if (/\/(utils?|helpers?|common|types|misc)\//i.test(path)) yield "a directory is named for what its modules do"
  const { floor, floors, room } = placeOf(path)
  if (floors.length > 0 && floor < 0) yield `stands on no floor: ${room}`
  if (path.startsWith("packages/")) {
    const lines = source.trimEnd().split("\n").length
    if (lines > maxLines) yield `${lines} lines: more than ${maxLines} hold two ideas`
    if (
      name !== "bin.ts" &&
      /\b(Effect|ManagedRuntime|NodeRuntime)\.run(?!ToLayer)/.test(stripped(source, "everything"))
    ) {
      yield "runs an effect: only bin.ts does"
    }
  }
  if (isCore) {
    const code = stripped(source, "everything")
    for (const [pattern, banned] of bannedInCore) if (pattern.test(code)) yield `says ${banned}: core may not`
  }
}

/** Circles of modules that need each other, be it for types alone: neither can be read without the other. Each is told once. */
const cycles = (sources: Sources): ReadonlyArray<string> => {
  const found: Array<string> = []
  const finished = new Set<string>()
  const visit = (path: string, way: ReadonlyArray<string>): void => {
    if (way.includes(path)) {
      found.push(`${path}: imports itself by way of ${[...way.slice(way.indexOf(path) + 1), path].join(", ")}`)
      return
    }
    if (finished.has(path) || !sources.has(path)) return
    for (const { specifier } of importsOf(sources.get(path)!)) {
      if (specifier.startsWith(".")) visit(resolve(path, specifier), [...way, path])
    }
    finished.add(path)
  }
  for (const path of sources.keys()) visit(path, [])
  return found
}

/** What breaks the rules, each as `path: what and why`; empty when the house is in order. */
export const violations = (sources: Sources): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (const [path, source] of sources) {
    for (const problem of moduleViolations(path, source)) found.push(`${path}: ${problem}`)
    for (const imported of importsOf(source)) {
      for (const problem of importViolations(path, imported)) found.push(`${path}: ${problem}`)
    }
  }
  return [...found, ...cycles(sources)]
}
