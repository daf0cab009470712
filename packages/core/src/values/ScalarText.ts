/**
 * The text of single values, as PostgreSQL's output functions print it, to JavaScript. Each function is a `TypeDecoder`
 * that throws a `TypeError` without the text when it is not what the type prints.
 *
 * Strict on purpose: `Number("")` is 0 and `BigInt("0x10")` is 16, and a wrong value is worse than none.
 */

const refuse = (type: string): never => {
  throw new TypeError(`not the text of a ${type}`)
}

/** The text itself. */
export const text = (source: string): string => source

/** `t` or `f`. */
export const boolean = (source: string): boolean =>
  source === "t"
    ? true
    : source === "f"
      ? false
      : source === "true"
        ? true
        : source === "false"
          ? false
          : refuse("boolean")

const integerPattern = /^-?\d{1,15}$/

/** A whole number of up to 15 digits: smallint, integer, oid, xid. */
export const integer = (source: string): number => (integerPattern.test(source) ? Number(source) : refuse("number"))

const bigintPattern = /^-?\d{1,19}$/

/** `bigint`: its 64 bits do not fit a number. */
export const bigint = (source: string): bigint => {
  const value = bigintPattern.test(source) ? BigInt(source) : refuse("bigint")
  return BigInt.asIntN(64, value) === value ? value : refuse("bigint")
}

/** An opt-in decoder for `bigint` columns known to stay within ±2^53: a number, and refused beyond. */
export const safeInteger = (source: string): number => {
  const value = bigintPattern.test(source) ? Number(source) : Number.NaN
  return Number.isSafeInteger(value) ? value : refuse("safe integer")
}

/** One way to match every digit, and no second: else a long row of them would be tried again from each of its places. */
const floatPattern = /^-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$|^NaN$|^-?Infinity$/

/** `real` and `double precision`, with NaN, the infinities and negative zero. */
export const float = (source: string): number => (floatPattern.test(source) ? Number(source) : refuse("float"))

/** `JSON.parse`; see `TypeDecoders.json` for what it cannot keep. `__proto__` is a key like any other. */
export const json = (source: string): unknown => JSON.parse(source)

/** The value of a hex digit by its character code; 255 is none. */
const hexDigits: Uint8Array = new Uint8Array(256).fill(255)
for (let digit = 0; digit < 16; digit++) {
  const character = digit.toString(16)
  hexDigits[character.charCodeAt(0)] = digit
  hexDigits[character.toUpperCase().charCodeAt(0)] = digit
}

/** The bytes that the hex digits in `bytes[start, end)` stand for, or `undefined`: how `bytea` comes off the wire. */
export const fromHex = (bytes: Uint8Array, start: number, end: number): Uint8Array | undefined => {
  const length = (end - start) >> 1
  if (((end - start) & 1) !== 0) return undefined
  const result = new Uint8Array(length)
  let seen = 0
  for (let index = 0, at = start; index < length; index++, at += 2) {
    const high = hexDigits[bytes[at]!]!
    const low = hexDigits[bytes[at + 1]!]!
    seen |= high | low
    result[index] = (high << 4) | low
  }
  return seen > 15 ? undefined : result
}

/**
 * `bytea` in either of its output formats: `\x` and hex digits, or printable ASCII with `\\` and octal `\ooo`.
 *
 * Source: https://www.postgresql.org/docs/current/datatype-binary.html
 */
export const bytea = (source: string): Uint8Array => {
  const result = new Uint8Array(source.length)
  if (source.startsWith("\\x")) {
    for (let index = 0; index < source.length; index++) {
      const code = source.charCodeAt(index)
      result[index] = code > 255 ? 0 : code
    }
    return fromHex(result, 2, result.length) ?? refuse("bytea")
  }
  let length = 0
  for (let index = 0; index < source.length; length++) {
    const code = source.charCodeAt(index)
    if (code !== 0x5c) {
      if (code > 0x7f) refuse("bytea")
      result[length] = code
      index += 1
    } else if (source.charCodeAt(index + 1) === 0x5c) {
      result[length] = 0x5c
      index += 2
    } else {
      const octal = source.slice(index + 1, index + 4)
      if (!/^[0-3][0-7]{2}$/.test(octal)) refuse("bytea")
      result[length] = Number.parseInt(octal, 8)
      index += 4
    }
  }
  return result.slice(0, length)
}
