/**
 * Values made of values, in PostgreSQL's binary format: arrays, vectors, ranges and multiranges. To the text that their
 * output functions print; arrays to nested JavaScript arrays as well.
 *
 * What is inside is read with `reader.end` moved to where it ends. After a failure `end` stays there: whoever catches it
 * puts it back.
 *
 * Source: `array_send` and `array_out` in src/backend/utils/adt/arrayfuncs.c, rangetypes.c, multirangetypes.c
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import type { TextOf } from "./BinaryText.ts"

/** A length, and a value of that length. */
const within = <A>(reader: ByteReader, read: (reader: ByteReader) => A): A => {
  const length = reader.int32()
  const start = reader.skip(length)
  const { end } = reader
  reader.offset = start
  reader.end = start + length
  const value = read(reader)
  reader.expectEnd()
  reader.end = end
  return value
}

/** PostgreSQL's MAXDIM. */
const maxDimensions = 6

interface ArrayShape {
  readonly sizes: ReadonlyArray<number>
  readonly lowerBounds: ReadonlyArray<number>
}

const readShape = (reader: ByteReader, elementOid: number | undefined): ArrayShape => {
  const dimensions = reader.int32()
  if (dimensions < 0 || dimensions > maxDimensions) reader.fail("an array of more than six dimensions")
  if (reader.uint32() > 1) reader.fail("an array of unknown flags")
  const oid = reader.uint32()
  if (elementOid !== undefined && oid !== elementOid) reader.fail("an array of another type than its column's")
  const sizes: Array<number> = []
  const lowerBounds: Array<number> = []
  let count = 1
  for (let index = 0; index < dimensions; index++) {
    const size = reader.int32()
    if (size < 0) reader.fail("an array of less than no elements")
    sizes.push(size)
    lowerBounds.push(reader.int32())
    count *= size
  }
  if (dimensions === 0 || count === 0) return { sizes: [], lowerBounds: [] }
  // Every element has a length: sizes are not to be believed before the bytes for them are there.
  if (count * 4 > reader.remaining) reader.fail("an array of more elements than there are bytes for")
  return { sizes, lowerBounds }
}

const isNullElement = (reader: ByteReader): boolean => {
  const start = reader.offset
  if (reader.int32() === -1) return true
  reader.offset = start
  return false
}

/**
 * Nested arrays, `null` for NULL; lower bounds are dropped. `elementOid` is compared with the one on the wire, where it is
 * known.
 */
export const readArray = (
  reader: ByteReader,
  element: (reader: ByteReader) => unknown,
  elementOid: number | undefined
): ReadonlyArray<unknown> => {
  const { sizes } = readShape(reader, elementOid)
  const level = (depth: number): ReadonlyArray<unknown> => {
    const items: Array<unknown> = []
    const size = sizes[depth] ?? 0
    const isInnermost = depth === sizes.length - 1
    for (let index = 0; index < size; index++) {
      if (!isInnermost) items.push(level(depth + 1))
      else items.push(isNullElement(reader) ? null : within(reader, element))
    }
    return items
  }
  return level(0)
}

/** What an element is quoted for: nothing in it, the word NULL, brackets, quotes, the delimiter, and ASCII's spaces. */
const mustBeQuoted = {
  ",": /^$|^null$|[\t-\r "\\{},]/i,
  ";": /^$|^null$|[\t-\r "\\{};]/i
} as const

const elementText = (text: string, delimiter: "," | ";"): string =>
  mustBeQuoted[delimiter].test(text) ? `"${text.replace(/["\\]/g, "\\$&")}"` : text

/** `{1,NULL}`, with the bounds before it where a lower one is not 1. */
export const arrayText =
  (element: TextOf, elementOid: number | undefined, delimiter: "," | ";"): TextOf =>
  (reader) => {
    const { lowerBounds, sizes } = readShape(reader, elementOid)
    if (sizes.length === 0) return "{}"
    const level = (depth: number): string => {
      const items: Array<string> = []
      const isInnermost = depth === sizes.length - 1
      for (let index = 0; index < sizes[depth]!; index++) {
        if (!isInnermost) items.push(level(depth + 1))
        else items.push(isNullElement(reader) ? "NULL" : elementText(within(reader, element), delimiter))
      }
      return `{${items.join(delimiter)}}`
    }
    const bounds = lowerBounds.some((bound) => bound !== 1)
      ? `${lowerBounds.map((bound, index) => `[${bound}:${bound + sizes[index]! - 1}]`).join("")}=`
      : ""
    return bounds + level(0)
  }

/** `int2vector` and `oidvector`: arrays on the wire, `1 2 3` as text. */
export const vectorText =
  (element: TextOf, elementOid: number): TextOf =>
  (reader) => {
    const { sizes } = readShape(reader, elementOid)
    if (sizes.length > 1) reader.fail("a vector of more than one dimension")
    const items: Array<string> = []
    for (let index = 0; index < (sizes[0] ?? 0); index++) items.push(within(reader, element))
    return items.join(" ")
  }

const flags = { empty: 0x01, lowerInclusive: 0x02, upperInclusive: 0x04, lowerInfinite: 0x08, upperInfinite: 0x10 }
const knownFlags = 0x1f

const boundText = (text: string): string =>
  text === "" || /[\t-\r "\\()[\],]/.test(text) ? `"${text.replace(/["\\]/g, "$&$&")}"` : text

/** `[1,10)`, `(,)`, `empty`. */
export const rangeText =
  (bound: TextOf): TextOf =>
  (reader) => {
    const byte = reader.uint8()
    if ((byte & ~knownFlags) !== 0) reader.fail("a range of unknown flags")
    if ((byte & flags.empty) !== 0) return "empty"
    const lower = (byte & flags.lowerInfinite) === 0 ? boundText(within(reader, bound)) : ""
    const upper = (byte & flags.upperInfinite) === 0 ? boundText(within(reader, bound)) : ""
    const open = (byte & flags.lowerInclusive) === 0 ? "(" : "["
    return `${open}${lower},${upper}${(byte & flags.upperInclusive) === 0 ? ")" : "]"}`
  }

/** `{[1,3),[5,9)}`. */
export const multirangeText = (bound: TextOf): TextOf => {
  const range = rangeText(bound)
  return (reader) => {
    const count = reader.int32()
    if (count < 0 || count * 4 > reader.remaining) reader.fail("more ranges than there are bytes for")
    const ranges: Array<string> = []
    for (let index = 0; index < count; index++) ranges.push(within(reader, range))
    return `{${ranges.join(",")}}`
  }
}
