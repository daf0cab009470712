/**
 * The public names of the packages, by entry, and docs/api.md, which lists them: `npm run api` writes it, and a test holds
 * it against the sources, so that a name that comes or goes is seen in review.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { exportsOf } from "./exportsOf.ts"
import { packages } from "./packages.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** What a user imports from, by specifier, and the source that it leads to. */
export const entries = (): ReadonlyMap<string, string> =>
  new Map(
    packages.flatMap((name) => {
      const manifest = JSON.parse(Fs.readFileSync(Path.join(root, "packages", name, "package.json"), "utf8")) as {
        readonly exports: Readonly<Record<string, string>>
      }
      return Object.entries(manifest.exports)
        .filter(([, target]) => target.endsWith(".ts"))
        .map(([path, target]): readonly [string, string] => [
          Path.posix.join(`@replicant/${name}`, path),
          Path.posix.join("packages", name, target)
        ])
    })
  )

/** A public name. Of a value and a type of one name there is one. */
export interface PublicName {
  readonly name: string
  /** Its docstring, or its module's where it is a namespace. */
  readonly doc: string | undefined
  /** What a namespace holds. */
  readonly members: ReadonlyArray<PublicName> | undefined
}

const moduleDoc = (source: string): string | undefined =>
  /^\/\*\*([\s\S]*?)\*\//
    .exec(source)?.[1]
    ?.replaceAll(/^[ \t]*\*[ \t]?/gm, "")
    .trim()

/** The names that a module exports, also those that it takes from others, in the order of the alphabet. */
export const publicNames = (path: string, read: (path: string) => string): ReadonlyArray<PublicName> => {
  const source = read(path)
  const found = new Map<string, PublicName>()
  const add = (entry: PublicName) => {
    const known = found.get(entry.name)
    if (known === undefined || known.doc === undefined) found.set(entry.name, entry)
  }
  const at = (from: string) => Path.posix.join(Path.posix.dirname(path), from)
  for (const exported of exportsOf(source)) {
    switch (exported.kind) {
      case "declared":
        add({ name: exported.name, doc: exported.doc, members: undefined })
        break
      case "star":
        publicNames(at(exported.from), read).forEach(add)
        break
      case "namespace": {
        const target = at(exported.from)
        add({ name: exported.name, doc: moduleDoc(read(target)), members: publicNames(target, read) })
        break
      }
      case "named": {
        // What was imported here under this name is looked for where it was imported from.
        const imported = new RegExp(`^import [^;]*?\\b${exported.local}\\b[^;]*? from "(\\.[^"]+)"`, "m").exec(source)
        const from = exported.from ?? imported?.[1]
        const one = from?.startsWith(".")
          ? publicNames(at(from), read).find(({ name }) => name === exported.local)
          : undefined
        add({ name: exported.name, doc: one?.doc, members: one?.members })
      }
    }
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** The first sentence of a docstring, on one line, with links as code. */
export const firstSentence = (doc: string): string => {
  const text = doc
    .split(/\n\s*(?:\n|@)/)[0]!
    .replaceAll(/\{@link ([^}]+)\}/g, "`$1`")
    .replaceAll(/\s+/g, " ")
    .replace(/^The public module `\w+`: (.)/, (_, first: string) => first.toUpperCase())
  return /^.*?[.:!?](?=\s+[A-Z`"]|\s*$)/.exec(text)?.[0].replace(/:$/, ".") ?? text
}

const readSource = (path: string): string => Fs.readFileSync(Path.join(root, path), "utf8")

/** Public names of every entry, by specifier. */
export const allPublicNames = (): ReadonlyMap<string, ReadonlyArray<PublicName>> =>
  new Map([...entries()].map(([specifier, path]) => [specifier, publicNames(path, readSource)]))

/** The page. */
export const apiPage = (names: ReadonlyMap<string, ReadonlyArray<PublicName>>): string => {
  const line = (indent: string) => (name: PublicName) =>
    `${indent}- \`${name.name}\`${name.doc === undefined ? "" : ` — ${firstSentence(name.doc)}`}`
  const sections = [...names].map(([specifier, entry]) => {
    const lines = entry.flatMap((name) => [line("")(name), ...(name.members ?? []).map(line("  "))])
    return `## ${specifier}\n\n${lines.join("\n")}\n`
  })
  return `# Public names

Everything that can be imported, by entry, with the first sentence of what is said of it there. Written by \`npm run api\`;
a test fails when it is not what the sources say. A name that is not here is not public.

${sections.join("\n")}`
}

export const apiPath = Path.join(root, "docs/api.md")

if (import.meta.main) Fs.writeFileSync(apiPath, apiPage(allPublicNames()))
