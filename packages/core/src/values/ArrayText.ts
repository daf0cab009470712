/**
 * The text of an array, as PostgreSQL's `array_out` prints it, to nested JavaScript arrays.
 *
 * Our own parser and not the one that comes with pg: that one takes no other delimiter (arrays of `box` have `;`), copies
 * the rest of the text at every nested array, and takes text that is no array for one. Core depends on effect alone.
 *
 * Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
 */

/** PostgreSQL's MAXDIM: deeper than this is no array of its. */
const maxDimensions = 6

/** `[2:3][-1:0]=`: printed only when a lower bound is not 1. */
const boundsPattern = /^(?:\[[+-]?\d+:[+-]?\d+\])+=/

const malformed = (): never => {
  throw new TypeError("not the text of an array")
}

class ArrayParser {
  private at: number
  private readonly source: string
  private readonly element: (text: string) => unknown
  private readonly delimiter: string

  constructor(source: string, element: (text: string) => unknown, delimiter: string) {
    this.source = source
    this.element = element
    this.delimiter = delimiter
    this.at = source[0] === "[" ? (boundsPattern.exec(source)?.[0].length ?? malformed()) : 0
  }

  parse(): ReadonlyArray<unknown> {
    const result = this.level(1)
    return this.at === this.source.length ? result : malformed()
  }

  /** One brace to its partner. Either all items are arrays, or none is. */
  private level(depth: number): ReadonlyArray<unknown> {
    if (this.source[this.at] !== "{" || depth > maxDimensions) malformed()
    this.at += 1
    const items: Array<unknown> = []
    if (this.source[this.at] === "}") {
      this.at += 1
      return items
    }
    const isNested = this.source[this.at] === "{"
    while (true) {
      items.push(isNested ? this.level(depth + 1) : this.item())
      const next = this.source[this.at]
      this.at += 1
      if (next === "}") return items
      if (next !== this.delimiter) malformed()
    }
  }

  private item(): unknown {
    if (this.source[this.at] === '"') return this.element(this.quoted())
    const start = this.at
    const { delimiter, source } = this
    let at = start
    let escaped = false
    for (; at < source.length; at++) {
      const character = source[at]!
      if (character === delimiter || character === "}") break
      if (character === "{" || character === '"') malformed()
      if (character === "\\") {
        escaped = true
        at += 1
      }
    }
    this.at = at
    const raw = source.slice(start, at)
    if (raw === "") malformed()
    if (raw === "NULL") return null
    return this.element(escaped ? raw.replace(/\\(.)/gs, "$1") : raw)
  }

  private quoted(): string {
    const start = this.at + 1
    const { source } = this
    let at = start
    let escaped = false
    while (source[at] !== '"') {
      if (source[at] === "\\") {
        escaped = true
        at += 1
      }
      at += 1
      if (at >= source.length) malformed()
    }
    this.at = at + 1
    const raw = source.slice(start, at)
    return escaped ? raw.replace(/\\(.)/gs, "$1") : raw
  }
}

/**
 * Nested arrays of what `element` makes of each item; an unquoted NULL is null, a quoted one the word. Explicit lower
 * bounds are dropped. Throws a `TypeError` without the text when it is not an array's, and whatever `element` throws.
 *
 * @example
 * parseArray('{{a,"b c"},{NULL,"NULL"}}', (text) => text) // => [["a", "b c"], [null, "NULL"]]
 */
export const parseArray = (
  source: string,
  element: (text: string) => unknown,
  delimiter: "," | ";" = ","
): ReadonlyArray<unknown> => new ArrayParser(source, element, delimiter).parse()
