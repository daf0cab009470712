/**
 * What a source of ours exports, read off its text: the house style has no default export and no enum, each declaration
 * begins a line, and its docstring stands right before it. The compiler's own answer would take seconds; this one a unit
 * test can ask for.
 */
import { stripped } from "../test/support/architecture.ts"

export type Exported =
  /** Declared here. `doc` is its docstring, without stars. */
  | { readonly kind: "declared"; readonly name: string; readonly isType: boolean; readonly doc: string | undefined }
  /** `export { local as name } from "from"`, without `from` of what is declared or imported here. */
  | { readonly kind: "named"; readonly name: string; readonly local: string; readonly from: string | undefined }
  /** `export * as name from "from"`. `doc` is the docstring of the statement itself. */
  | { readonly kind: "namespace"; readonly name: string; readonly from: string; readonly doc: string | undefined }
  /** `export * from "from"`. */
  | { readonly kind: "star"; readonly from: string }

const declaration = /(?:declare )?(?:abstract )?(const|function|class|interface|type)\*? (\w+)/
const namespace = /(?:type )?\* as (\w+) from ["']([^"']+)["']/
const star = /(?:type )?\* from ["']([^"']+)["']/
const named = /(?:type )?\{([^}]*)\}(?:\s*from ["']([^"']+)["'])?/
const statement = new RegExp(
  `^export (?:${[declaration, namespace, star, named].map(({ source }) => source).join("|")})`,
  "gm"
)

/** The docstring that ends where a statement begins, without its stars. */
const docBefore = (source: string, at: number): string | undefined => {
  const text = source.slice(0, at).trimEnd()
  const start = text.lastIndexOf("/**")
  if (!text.endsWith("*/") || start < 0 || text.indexOf("*/", start) !== text.length - 2) return undefined
  return text
    .slice(start + 3, -2)
    .replaceAll(/^[ \t]*\*[ \t]?/gm, "")
    .trim()
}

export const exportsOf = (source: string): ReadonlyArray<Exported> => {
  const code = stripped(source, "comments")
  // What looks like a statement may be a line of a template.
  const bare = stripped(source, "everything")
  return [...code.matchAll(statement)].flatMap((match): ReadonlyArray<Exported> => {
    if (bare[match.index] !== "e") return []
    const [, keyword, name, space, ofSpace, ofStar, names, ofNames] = match
    const doc = docBefore(source, match.index)
    if (name !== undefined) return [{ kind: "declared", name, isType: /^(interface|type)$/.test(keyword!), doc }]
    if (space !== undefined) return [{ kind: "namespace", name: space, from: ofSpace!, doc }]
    if (ofStar !== undefined) return [{ kind: "star", from: ofStar }]
    return names!
      .split(",")
      .map((item) => item.trim().replace(/^type /, ""))
      .filter((item) => item !== "")
      .map((item) => {
        const [local, alias] = item.split(/ as /)
        return { kind: "named", name: alias ?? local!, local: local!, from: ofNames }
      })
  })
}
