/**
 * Type-checks what readers copy: each `ts` block of README.md, docs/*.md, the guides and the packages' READMEs, and each `@example`
 * in a docstring of the packages. Part of `npm run check`; what is wrong is told as `docs/tables.md:43`.
 *
 * A block is a whole module, with its imports: there is no way to leave one out. An example in a docstring is the body
 * of a generator, so that it may `yield*`; it sees all public names, those of its own module, and those of exampleNames.ts.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { packages } from "./packages.ts"
import { entries, publicNames } from "./publicNames.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** A module of its own for one block or example. Its lines are numbered as those of the file that it stands in. */
export interface Example {
  /** The file that it stands in, from the root of the repository, and the line above its first. */
  readonly file: string
  readonly line: number
  readonly code: string
}

/** What is found in one file, and what cannot be checked, which is a mistake. */
export interface Found {
  readonly examples: ReadonlyArray<Example>
  readonly problems: ReadonlyArray<string>
}

/** The `ts` blocks of a page. */
export const blocksOf = (file: string, text: string): Found => {
  const lines = text.split("\n")
  const examples: Array<Example> = []
  const problems: Array<string> = []
  for (let at = 0; at < lines.length; at++) {
    const [, fence, info] = /^(\s*`{3,})(.*)$/.exec(lines[at]!) ?? []
    if (fence === undefined) continue
    const end = lines.findIndex((line, index) => index > at && line.trimEnd() === fence)
    const line = at + 1
    const code = "\n".repeat(line) + lines.slice(line, end < 0 ? lines.length : end).join("\n")
    if (info === "ts") examples.push({ file, line, code: `${code}\n` })
    else if (/^\s*(ts|typescript|js|javascript|tsx|mts)\b/i.test(info!))
      problems.push(`${file}:${line}: a block of code is \`ts\` and nothing else`)
    if (end < 0) problems.push(`${file}:${line}: this block has no end`)
    at = end < 0 ? lines.length : end
  }
  return { examples, problems }
}

/** Names that examples in docstrings have in scope, and the module that gives them. */
export interface Scope {
  readonly from: string
  readonly names: ReadonlyArray<string>
}

/** The examples in a source's docstrings. Of two scopes that give one name, the first has it. */
export const examplesOf = (file: string, source: string, scopes: ReadonlyArray<Scope>): Found => {
  const lines = source.split("\n")
  const seen = new Set<string>()
  const imports = scopes.map(({ from, names }) => {
    const own = names.filter((name) => !seen.has(name) && seen.add(name))
    return `import { ${own.join(", ")} } from "${from}"`
  })
  const examples = lines.flatMap((text, at): ReadonlyArray<Example> => {
    if (!/^\s*\* @example\s*$/.test(text)) return []
    // It ends with the docstring, at the next tag, or where a paragraph begins.
    const length = lines.slice(at + 1).findIndex((line) => /^\s*\*(\/|\s*$| @)/.test(line))
    const code = lines.slice(at + 1, at + 1 + length).map((line) => line.replace(/^\s*\* ?/, ""))
    const whole = ["export const example = async function* () {", ...code, "}", ...imports]
    return [{ file, line: at + 1, code: `${"\n".repeat(at)}${whole.join("\n")}\n` }]
  })
  return { examples, problems: [] }
}

/** What the compiler says of the modules, told of the files that they came from. */
export const toldOf = (output: string): ReadonlyArray<string> =>
  output
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => line.replace(/^(.*?)\.\d+\.ts\((\d+),\d+\): error (TS\d+)/, "$1:$2: $3"))

const read = (path: string): string => Fs.readFileSync(Path.join(root, path), "utf8")

const filesBelow = (directory: string, extension: string, recursive: boolean): ReadonlyArray<string> =>
  Fs.readdirSync(Path.join(root, directory), { recursive, encoding: "utf8" })
    .filter((name) => name.endsWith(extension))
    .map((name) => `${directory}/${name.replaceAll("\\", "/")}`)

/** Every example there is. */
export const allExamples = (): Found => {
  const pages = [
    "README.md",
    ...packages.map((name) => `packages/${name}/README.md`),
    ...filesBelow("docs", ".md", false),
    ...filesBelow("docs/guides", ".md", false)
  ]
  const sources = packages.flatMap((name) => filesBelow(`packages/${name}/src`, ".ts", true))
  const scope = (path: string): Scope => ({
    from: Path.join(root, path),
    names: publicNames(path, read).map(({ name }) => name)
  })
  const everywhere = ["scripts/exampleNames.ts", ...entries().values()].map(scope)
  const found = [
    ...pages.map((page) => blocksOf(page, read(page))),
    ...sources
      .filter((source) => /^\s*\* @example\s*$/m.test(read(source)))
      .map((source) => examplesOf(source, read(source), [...everywhere, scope(source)]))
  ]
  return { examples: found.flatMap(({ examples }) => examples), problems: found.flatMap(({ problems }) => problems) }
}

/** Compiles examples in a directory of their own, and tells what is wrong with them. */
export const check = (examples: ReadonlyArray<Example>, directory: string): ReadonlyArray<string> => {
  Fs.rmSync(directory, { recursive: true, force: true })
  const files = examples.map(({ code, file, line }) => {
    const name = `${file}.${line}.ts`
    Fs.mkdirSync(Path.dirname(Path.join(directory, name)), { recursive: true })
    Fs.writeFileSync(Path.join(directory, name), code)
    return name
  })
  // An example in a docstring shows what is called, and need not use what comes back.
  const compilerOptions = { noUnusedLocals: false, noUnusedParameters: false, verbatimModuleSyntax: false }
  const configuration = { extends: Path.join(root, "tsconfig.json"), compilerOptions, files, include: [] }
  Fs.writeFileSync(Path.join(directory, "tsconfig.json"), JSON.stringify(configuration))
  const tsc = Path.join(root, "node_modules/.bin/tsc")
  const { error, status, stdout } = spawnSync(tsc, ["-p", ".", "--pretty", "false"], {
    cwd: directory,
    encoding: "utf8"
  })
  const told = toldOf(stdout)
  return status === 0 || told.length > 0 ? told : [`tsc ended with ${status}: ${error ?? ""}`]
}

if (import.meta.main) {
  const { examples, problems } = allExamples()
  const found = [...problems, ...check(examples, Path.join(root, "node_modules/.cache/examples"))]
  for (const problem of found) console.log(problem)
  console.log(`${examples.length} examples, ${found.filter((line) => !line.startsWith(" ")).length} problems`)
  process.exitCode = found.length === 0 ? 0 : 1
}
