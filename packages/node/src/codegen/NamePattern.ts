/** Names of tables by pattern: `*` for any characters, `?` for one, of the schema and of the name each by itself. */
import { Publication } from "@replicant/core"

/** A table by its raw names. */
export interface Name {
  readonly schema: string
  readonly name: string
}

/** Whether it is one, and no name. */
export const isPattern = (text: string): boolean => /[*?]/.test(text)

const expression = (pattern: string): RegExp => {
  const source = pattern.replace(/[.*+?^${}()|[\]\\]/g, (character) =>
    character === "*" ? ".*" : character === "?" ? "." : `\\${character}`
  )
  return new RegExp(`^${source}$`, "su")
}

/**
 * Whether one of the patterns, or of the names, is of a table. Without a schema it is of `public`.
 *
 * @example
 * matcher(["shop.*", "order?"])({ schema: "public", name: "orders" }) // => true
 */
export const matcher = (patterns: ReadonlyArray<string>): ((table: Name) => boolean) => {
  const compiled = patterns.map((text) => {
    const { name, schema } = Publication.tableName(text)
    return { schema: expression(schema), name: expression(name) }
  })
  return (table) => compiled.some(({ name, schema }) => schema.test(table.schema) && name.test(table.name))
}
