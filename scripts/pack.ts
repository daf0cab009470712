/**
 * What npm does not do when it packs: `publishConfig.exports` and `publishConfig.bin` take the place of the fields they
 * are named for, so that the checkout runs from `src` and the tarball from `dist`. Run by npm in a package's directory:
 *
 *     "prepack": "node ../../scripts/pack.ts prepare", "postpack": "node ../../scripts/pack.ts restore"
 *
 * `prepare` also builds and copies LICENSE; `restore` puts everything back. A `prepare` after one that was cut short
 * starts from the original.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { build } from "./build.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

interface Manifest {
  readonly publishConfig?: Readonly<Record<string, unknown>>
  readonly [field: string]: unknown
}

/** What npm itself reads of publishConfig; every other field of it is one of the manifest. */
const npmOwn = new Set(["access", "tag", "registry", "provenance"])

/** The manifest of the tarball: the fields of publishConfig promoted, without the scripts, which need the checkout. */
export const promote = (manifest: Manifest): Manifest => {
  const { publishConfig = {}, scripts: _, ...rest } = manifest
  const fields = Object.entries(publishConfig)
  return {
    ...rest,
    ...Object.fromEntries(fields.filter(([name]) => !npmOwn.has(name))),
    publishConfig: Object.fromEntries(fields.filter(([name]) => npmOwn.has(name)))
  }
}

/** The original manifest while the promoted one stands in its place. Not in `files`, so never in a tarball. */
const originalName = "package.json.original"

export const restore = (directory: string): void => {
  const original = Path.join(directory, originalName)
  if (!Fs.existsSync(original)) return
  Fs.renameSync(original, Path.join(directory, "package.json"))
  Fs.rmSync(Path.join(directory, "LICENSE"), { force: true })
}

export const prepare = (directory: string): boolean => {
  restore(directory)
  if (!build([Path.basename(directory)])) return false
  const path = Path.join(directory, "package.json")
  const text = Fs.readFileSync(path, "utf8")
  Fs.writeFileSync(Path.join(directory, originalName), text)
  Fs.writeFileSync(path, `${JSON.stringify(promote(JSON.parse(text)), undefined, 2)}\n`)
  Fs.copyFileSync(Path.join(root, "LICENSE"), Path.join(directory, "LICENSE"))
  return true
}

if (import.meta.main) {
  const [what] = process.argv.slice(2)
  const directory = process.cwd()
  if (what === "restore") restore(directory)
  else if (what !== "prepare" || !prepare(directory)) process.exitCode = 1
}
