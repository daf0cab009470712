/** Names of columns as those of properties. */

/** `keep`: as they are. `camel`: `placed_at` as `placedAt`. */
export type Casing = "keep" | "camel"

/**
 * A name as JavaScript has them.
 *
 * @example
 * camelName("placed_at") // => "placedAt"
 */
export const camelName = (name: string): string => {
  const [before = ""] = /^_*/.exec(name) ?? []
  const words = name.split(/_|[^\p{ID_Continue}$]/u).filter((word) => word !== "")
  const isShouted = words.length > 1 && name === name.toUpperCase()
  const cased = (isShouted ? words.map((word) => word.toLowerCase()) : words).map((word, index) => {
    const [first = "", ...rest] = word
    return (index === 0 ? first.toLowerCase() : first.toUpperCase()) + rest.join("")
  })
  return words.length === 0 ? name : before + (words.length === 1 ? words[0]! : cased.join(""))
}

/** The property of each column. Columns that would share one keep their own names. */
export const propertyNames = (columns: ReadonlyArray<string>, casing: Casing): ReadonlyMap<string, string> => {
  if (casing === "keep") return new Map(columns.map((name) => [name, name]))
  const counts = new Map<string, number>()
  for (const name of columns) counts.set(camelName(name), (counts.get(camelName(name)) ?? 0) + 1)
  const isOwn = (name: string) => counts.get(camelName(name)) === 1 && !columns.includes(camelName(name))
  return new Map(columns.map((name) => [name, isOwn(name) ? camelName(name) : name]))
}
