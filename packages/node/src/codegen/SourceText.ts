/**
 * Names and texts of a database as TypeScript source: whatever they hold, they stay data. A quote ends no string, a comment
 * is not ended by what stands in it, `__proto__` is a property like any other, and nothing turns the reading direction.
 * Written as Biome and Prettier leave it.
 */

/** What an editor would hide or act upon: control and format characters, and separators of lines. */
const unseen = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

const escapeCharacter = (character: string): string => {
  const code = character.codePointAt(0)!.toString(16)
  return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, "0")}`
}

/**
 * A string literal: in double quotes, unless it holds more of those than of single ones.
 *
 * @example
 * stringLiteral('say "hi"') // => `'say "hi"'`
 */
export const stringLiteral = (text: string): string => {
  const literal = JSON.stringify(text).replace(unseen, escapeCharacter)
  const doubles = text.split('"').length
  if (doubles <= text.split("'").length) return literal
  return `'${literal.slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`
}

/** The key of a property in an object literal. Plain `__proto__` would set the prototype. */
export const propertyKey = (name: string): string => {
  if (name === "__proto__") return '["__proto__"]'
  return /^[\p{ID_Start}_$][\p{ID_Continue}$]*$/u.test(name) ? name : stringLiteral(name)
}

/** Text within a comment, on one line. */
export const commentText = (text: string): string => text.replace(unseen, escapeCharacter).replaceAll("*/", "*\\/")

/**
 * A word as a POSIX shell takes it.
 *
 * @example
 * shellWord("a b") // => "'a b'"
 */
export const shellWord = (word: string): string =>
  /^[\w./:@%+,=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`

/**
 * A name as that of a constant.
 *
 * @example
 * constantName("order_items") // => "OrderItems"
 */
export const constantName = (name: string): string => {
  const words = name.split(/_|[^\p{ID_Continue}]/u).filter((word) => word !== "")
  const joined = words
    .map((word) => {
      const [first = "", ...rest] = word
      return first.toUpperCase() + rest.join("")
    })
    .join("")
  return /^\p{ID_Start}/u.test(joined) ? joined : `T${joined}`
}

/** What a module of tables uses itself, and what it is unkind to hide. */
const reserved: ReadonlySet<string> = new Set(
  (
    "Array Atomics BigInt Boolean DataView Date Error EvalError Function Infinity Intl JSON Map Math NaN Number Object " +
    "Promise Proxy RangeError Reflect RegExp Schema Set String Symbol SyntaxError Table TypeError Uint8Array WeakMap WeakSet"
  ).split(" ")
)

/** Something that is to have a name of its own in the module. */
export interface Named {
  readonly schema: string
  readonly name: string
  /** What a name that is taken gets at its end. */
  readonly suffix: string
}

/**
 * A constant's name for each, in order, and all different: the bare name, which of several goes to the one in `public`,
 * after which come the schema before it, the suffix behind it, and a number. None is one of those that are `imported`.
 */
export const constantNames = (
  entities: ReadonlyArray<Named>,
  imported: ReadonlyArray<string> = []
): ReadonlyArray<string> => {
  const bare = entities.map(({ name }) => constantName(name))
  const taken = new Set([...reserved, ...imported])
  return entities.map(({ name, schema, suffix }, index) => {
    const own = bare[index]!
    const isShared = bare.some((other, at) => other === own && at !== index && entities[at]!.suffix === suffix)
    const first = isShared && schema !== "public" ? constantName(`${schema} ${name}`) : own
    let chosen = taken.has(first) ? `${first}${suffix}` : first
    for (let number = 2; taken.has(chosen); number++) chosen = `${first}${suffix}${number}`
    taken.add(chosen)
    return chosen
  })
}
