/**
 * Single column values straight from the bytes of their text, without a string in between. Each gives exactly what its
 * namesake in `ScalarText.ts` makes of the same text, and `undefined` where that one throws.
 *
 * Bytes are borrowed: what is returned holds none of them. Bounds are the caller's to check: `start` and `end` must lie
 * within the message. The reader comes last, for those that need the text after all.
 */
import { type ByteReader, notUtf8 } from "../protocol/ByteReader.ts"
import { float, fromHex, bytea as fromText } from "./ScalarText.ts"

const minus = 0x2d
const zero = 0x30

/** `t` or `f`. */
export const booleanAt = (bytes: Uint8Array, start: number, end: number): boolean | undefined => {
  if (end - start !== 1) return undefined
  const byte = bytes[start]
  return byte === 0x74 ? true : byte === 0x66 ? false : undefined
}

/** A whole number of up to 15 digits, which a double holds exactly. */
export const integerAt = (bytes: Uint8Array, start: number, end: number): number | undefined => {
  const isNegative = bytes[start] === minus
  let at = isNegative ? start + 1 : start
  if (at >= end || end - at > 15) return undefined
  let value = 0
  do {
    const digit = bytes[at]! - zero
    if (digit < 0 || digit > 9) return undefined
    value = value * 10 + digit
    at += 1
  } while (at < end)
  return isNegative ? -value : value
}

/** One bigint and its two halves: reading it is a single allocation, where arithmetic on bigints makes several. */
const whole = new BigInt64Array(1)
const halves = new Int32Array(whole.buffer)
const low = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 0 : 1
const high = 1 - low

const two32 = 0x1_0000_0000

/** `-?` and 1 to 19 digits, within 64 bits. */
export const bigintAt = (bytes: Uint8Array, start: number, end: number): bigint | undefined => {
  const isNegative = bytes[start] === minus
  let at = isNegative ? start + 1 : start
  if (at >= end || end - at > 19) return undefined
  // Up to ten digits, then up to nine: both exact in a double, and so is each product below.
  const middle = end - at > 10 ? end - 9 : end
  let upper = 0
  for (; at < middle; at++) {
    const digit = bytes[at]! - zero
    if (digit < 0 || digit > 9) return undefined
    upper = upper * 10 + digit
  }
  let highBits: number
  let lowBits: number
  if (middle === end) {
    highBits = Math.floor(upper / two32)
    lowBits = upper - highBits * two32
  } else {
    let lower = 0
    for (; at < end; at++) {
      const digit = bytes[at]! - zero
      if (digit < 0 || digit > 9) return undefined
      lower = lower * 10 + digit
    }
    // upper * 10^9 + lower, in pieces of 16 bits of upper.
    const upperHigh = Math.floor(upper / 0x1_0000)
    const product = upperHigh * 1e9
    const carried = Math.floor(product / 0x1_0000)
    const rest = (upper - upperHigh * 0x1_0000) * 1e9 + lower + (product - carried * 0x1_0000) * 0x1_0000
    const overflow = Math.floor(rest / two32)
    highBits = carried + overflow
    lowBits = rest - overflow * two32
    if (highBits > 0x7fff_ffff && !(isNegative && highBits === 0x8000_0000 && lowBits === 0)) return undefined
  }
  if (isNegative) {
    halves[low] = -lowBits
    halves[high] = lowBits === 0 ? -highBits : ~highBits
  } else {
    halves[low] = lowBits
    halves[high] = highBits
  }
  return whole[0]
}

/** 10^0 to 10^22: all the powers of ten that are doubles. */
const powersOfTen = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent)

/**
 * `real` and `double precision`. Digits with or without a point are one exact division when there are 15 or fewer of
 * them; exponents, NaN, infinities and longer ones go the way of their text.
 */
export const floatAt = (bytes: Uint8Array, start: number, end: number, reader: ByteReader): number | undefined => {
  const isNegative = bytes[start] === minus
  const first = isNegative ? start + 1 : start
  if (first < end && end - first <= 16) {
    let mantissa = 0
    let point = end
    let at = first
    for (; at < end; at++) {
      const digit = bytes[at]! - zero
      if (digit >= 0 && digit <= 9) mantissa = mantissa * 10 + digit
      else if (digit === -2 && point === end && at > first) point = at
      else break
    }
    const digits = end - first - (point === end ? 0 : 1)
    if (at === end && digits <= 15) {
      const value = point === end ? mantissa : mantissa / powersOfTen[end - point - 1]!
      return isNegative ? -value : value
    }
  }
  const text = textAt(reader, bytes, start, end)
  try {
    return float(text)
  } catch {
    return undefined
  }
}

/** `bytea`: hex straight from the bytes, the escape format by way of its text. */
export const byteaAt = (bytes: Uint8Array, start: number, end: number, reader: ByteReader): Uint8Array | undefined => {
  if (end - start >= 2 && bytes[start] === 0x5c && bytes[start + 1] === 0x78) return fromHex(bytes, start + 2, end)
  const text = textAt(reader, bytes, start, end)
  try {
    return fromText(text)
  } catch {
    return undefined
  }
}

/** UTF-8 text, or a failure where it begins. */
export const textAt = (reader: ByteReader, bytes: Uint8Array, start: number, end: number): string => {
  const text = reader.slices.utf8(bytes, start, end)
  if (text !== undefined) return text
  reader.offset = start
  return reader.fail(notUtf8)
}
