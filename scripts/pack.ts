/**
 * What npm does not do when it packs: `publishConfig.exports` and `publishConfig.bin` take the place of the fields they
 * are named for, so that the checkout runs from `src` and the tarball from `dist`; author and repository, which stand in
 * the manifest of the root alone, are filled in; and links that lead out of the tarball lead to the repository. Run by
 * npm in a package's directory:
 *
 *     "prepack": "node ../../scripts/pack.ts prepare", "postpack": "node ../../scripts/pack.ts restore"
 *
 * `prepare` also builds, and copies LICENSE and, where `files` has them, the pages of docs; `restore` puts everything
 * back. A `prepare` after one that was cut short starts from the original.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { build } from "./build.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

interface Manifest {
  readonly publishConfig?: Readonly<Record<string, unknown>>
  readonly files?: ReadonlyArray<string>
  readonly keywords?: ReadonlyArray<string>
  readonly [field: string]: unknown
}

/** What the packages have in common, from the manifest of the root. */
interface Project {
  readonly author: string
  /** Where the repository is, for a browser: https://github.com/OWNER/replicant. */
  readonly repository: string
  readonly keywords: ReadonlyArray<string>
}

/** What npm itself reads of publishConfig; every other field of it is one of the manifest. */
const npmOwn = new Set(["access", "tag", "registry", "provenance"])

/**
 * The manifest of the tarball: the fields of publishConfig promoted, without the scripts, which need the checkout, and
 * with what a user finds the project by. `directory` is the package's own, from the root.
 */
export const promote = (manifest: Manifest, { author, keywords, repository }: Project, directory: string): Manifest => {
  const { publishConfig = {}, scripts: _, ...rest } = manifest
  const fields = Object.entries(publishConfig)
  return {
    ...rest,
    author,
    keywords: [...keywords, ...(manifest.keywords ?? [])],
    repository: { type: "git", url: `git+${repository}.git`, directory },
    homepage: `${repository}#readme`,
    bugs: `${repository}/issues`,
    ...Object.fromEntries(fields.filter(([name]) => !npmOwn.has(name))),
    publishConfig: Object.fromEntries(fields.filter(([name]) => npmOwn.has(name)))
  }
}

/**
 * A page as the tarball has it. Links to pages that are packed beside it stay as they are, all others lead to the
 * repository. `path` is the page's own, from the root, and `packed` are those that the tarball has in its place.
 */
export const packedPage = (text: string, path: string, packed: ReadonlySet<string>, repository: string): string =>
  text.replaceAll(/\]\(([^)#\s:]+)(#[^)\s]*)?\)/g, (link, target: string, anchor = "") => {
    const leads = Path.posix.join(Path.posix.dirname(path), target)
    const kind = Path.posix.extname(leads) === "" ? "tree" : "blob"
    return packed.has(leads) ? link : `](${repository}/${kind}/HEAD/${leads}${anchor})`
  })

/** What stands in the place of these files while the package is packed. */
const replaced = ["package.json", "README.md"]

/** Where the original of such a file is put. Not a name that npm packs unasked, as it does all that begin with README. */
const originalOf = (directory: string, name: string): string => Path.join(directory, `.original.${name}`)

/** What is there only while the package is packed. */
const added = ["LICENSE", "docs"]

export const restore = (directory: string): void => {
  for (const name of replaced) {
    const original = originalOf(directory, name)
    if (Fs.existsSync(original)) Fs.renameSync(original, Path.join(directory, name))
  }
  for (const name of added) Fs.rmSync(Path.join(directory, name), { recursive: true, force: true })
}

export const prepare = (directory: string): boolean => {
  restore(directory)
  if (!build([Path.basename(directory)])) return false
  const project: Project = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8"))
  const replace = (name: string, change: (text: string) => string): void => {
    const path = Path.join(directory, name)
    const text = Fs.readFileSync(path, "utf8")
    Fs.writeFileSync(originalOf(directory, name), text)
    Fs.writeFileSync(path, change(text))
  }
  const own = Path.relative(root, directory).replaceAll("\\", "/")
  const manifest: Manifest = JSON.parse(Fs.readFileSync(Path.join(directory, "package.json"), "utf8"))
  replace("package.json", () => `${JSON.stringify(promote(manifest, project, own), undefined, 2)}\n`)
  replace("README.md", (text) => packedPage(text, `${own}/README.md`, new Set(), project.repository))
  Fs.copyFileSync(Path.join(root, "LICENSE"), Path.join(directory, "LICENSE"))
  if (manifest.files?.includes("docs") === true) {
    Fs.mkdirSync(Path.join(directory, "docs"))
    const pages = Fs.readdirSync(Path.join(root, "docs")).filter((name) => name.endsWith(".md"))
    const packed = new Set(pages.map((name) => `docs/${name}`))
    for (const page of packed) {
      const text = Fs.readFileSync(Path.join(root, page), "utf8")
      Fs.writeFileSync(Path.join(directory, page), packedPage(text, page, packed, project.repository))
    }
  }
  return true
}

if (import.meta.main) {
  const [what] = process.argv.slice(2)
  const directory = process.cwd()
  if (what === "restore") restore(directory)
  else if (what !== "prepare" || !prepare(directory)) process.exitCode = 1
}
