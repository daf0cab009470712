/**
 * Single column values straight from the bytes of their text, without a string in between. Each gives exactly what its
 * namesake in `values/ScalarText.ts` makes of the same text, and `undefined` where that one throws.
 *
 * Bytes are borrowed: what is returned holds none of them. Bounds are the caller's to check: `start` and `end` must lie
 * within the message.
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import { float, fromHex, bytea as fromText } from "../values/ScalarText.ts"

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
export const floatAt = (reader: ByteReader, bytes: Uint8Array, start: number, end: number): number | undefined => {
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
export const byteaAt = (reader: ByteReader, bytes: Uint8Array, start: number, end: number): Uint8Array | undefined => {
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
  return reader.fail("text that is not UTF-8")
}

/**
 * Longest text that is cut from a line. V8 copies a string of up to 12 characters out of a longer one, but lets a longer
 * one point into it, so that one kept value may keep its whole line. Text beyond this (uuids, the sort of value that is
 * kept as a key) is always a string of its own.
 */
const longestCut = 32
/** How much text is sliced at once for short values to be cut from: bounds what a kept value can keep alive. */
const lineLength = 256
/** Lines to go by before one is again hoped to be ASCII, after one was not. */
const patience = 8

/**
 * Cuts strings out of one message after another. A call into the runtime for every string costs more than copying it, so
 * short text is cut from a line that was sliced once for many.
 *
 * A line is taken for UTF-8 first: when it comes out with as many characters as it has bytes, then every byte of it was
 * ASCII, lengths and all, and positions in the text are positions in the bytes. Otherwise it is taken byte by byte, and
 * each value looked at on its own.
 */
export class TextCutter {
  private line = ""
  private from = 0
  private to = 0
  private isAscii = false
  private wait = 0

  /** Forgets the line: the bytes may have changed since. Due before each message. */
  reset(): void {
    this.to = 0
  }

  /** The UTF-8 text of `bytes[start, end)`; fails on what is not UTF-8. */
  cut(reader: ByteReader, bytes: Uint8Array, start: number, end: number): string {
    if (end - start > longestCut) return textAt(reader, bytes, start, end)
    if (end > this.to || start < this.from) this.turnTo(reader, bytes, start)
    if (!this.isAscii) {
      for (let at = start; at < end; at++) {
        if (bytes[at]! > 0x7f) return textAt(reader, bytes, start, end)
      }
    }
    return this.line.substring(start - this.from, end - this.from)
  }

  private turnTo(reader: ByteReader, bytes: Uint8Array, start: number): void {
    const to = Math.min(reader.end, start + lineLength)
    this.from = start
    this.to = to
    if (this.wait === 0) {
      const text = reader.slices.utf8(bytes, start, to)
      this.isAscii = text?.length === to - start
      if (text !== undefined && this.isAscii) {
        this.line = text
        return
      }
      this.wait = patience
    }
    this.wait -= 1
    this.isAscii = false
    this.line = reader.slices.latin1(bytes, start, to)
  }
}

/**
 * The same for text that is known to be ASCII, cut from lines that may reach beyond its message: a row of COPY is half the
 * length of a line, and between two of them lies nothing but a header.
 */
export class AsciiCutter {
  private line = ""
  private from = 0
  private to = 0
  private bytes: Uint8Array | undefined

  /** The text of `bytes[start, end)`, of which every byte is ASCII. Bytes of one array must not change between two cuts. */
  cut(reader: ByteReader, bytes: Uint8Array, start: number, end: number): string {
    if (end - start > longestCut) return reader.slices.latin1(bytes, start, end)
    if (end > this.to || start < this.from || bytes !== this.bytes) this.turnTo(reader, bytes, start)
    return this.line.substring(start - this.from, end - this.from)
  }

  /** Lets go of the bytes that it looked at last. */
  reset(): void {
    this.bytes = undefined
  }

  private turnTo(reader: ByteReader, bytes: Uint8Array, start: number): void {
    this.bytes = bytes
    this.from = start
    this.to = Math.min(bytes.length, start + lineLength)
    this.line = reader.slices.latin1(bytes, start, this.to)
  }
}
