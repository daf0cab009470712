/**
 * A bounds-checked big-endian cursor over borrowed bytes. It throws `DecodeError` and nothing else.
 *
 * It owns no bytes: `bytes` belongs to whoever filled it, and what is kept past the next read must be copied out. One
 * reader serves a whole stream; hot loops may read `bytes` themselves between `offset` and `end`.
 */
import * as Lsn from "../Lsn.ts"
import { DecodeError } from "../ReplicationError.ts"

/**
 * Cuts text out of bytes. The driver may bring a faster one than {@link portableText}; both must refuse bytes that are
 * not UTF-8 rather than replace them.
 */
export interface TextSlices {
  /** UTF-8 text of `bytes[start, end)`, or `undefined` when they are not UTF-8. Keeps a byte order mark. */
  readonly utf8: (bytes: Uint8Array, start: number, end: number) => string | undefined
  /** One character a byte: for digits, hex and other text known to be ASCII. */
  readonly latin1: (bytes: Uint8Array, start: number, end: number) => string
}

const fatalUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The most characters that a string can have, in V8: 1 GB of them are half a value of PostgreSQL's. */
export const longestText = 0x1fff_ffe8

/** The failure of text in other bytes. */
export const notUtf8 = "text that is not UTF-8"
const beyondString = "bytes of text are more than a string can hold"

/** Whether it is a text's failure to become a string. */
export const isOfText = ({ problem }: DecodeError): boolean => problem === notUtf8 || problem.endsWith(beyondString)

/** The failure of text that is longer than {@link longestText}: `start` is where it begins. */
export const tooLong = (length: number, start: number): DecodeError =>
  new DecodeError({
    problem: `${length} ${beyondString}`,
    offset: start,
    remedy: `keep such a value elsewhere, or leave its column out of the publication: a string holds ${longestText} characters`
  })

/** {@link TextSlices} out of what every JavaScript runtime has. */
export const portableText: TextSlices = {
  utf8: (bytes, start, end) => {
    try {
      return fatalUtf8.decode(bytes.subarray(start, end))
    } catch {
      if (end - start > longestText) throw tooLong(end - start, start)
      return undefined
    }
  },
  latin1: (bytes, start, end) => {
    let text = ""
    for (let from = start; from < end; from += 4096) {
      text += String.fromCharCode(...bytes.subarray(from, Math.min(end, from + 4096)))
    }
    return text
  }
}

const empty = new Uint8Array(0)

/** A cursor over `bytes[offset, end)`. Every read is checked against `end`, and fails with `DecodeError` beyond it. */
export class ByteReader {
  bytes: Uint8Array = empty
  /** Where the next byte is read. */
  offset = 0
  /** Where reading must stop: the byte after the message. */
  end = 0
  readonly slices: TextSlices

  constructor(slices: TextSlices = portableText) {
    this.slices = slices
  }

  /** A reader over all of `bytes`. */
  static over(bytes: Uint8Array, slices: TextSlices = portableText): ByteReader {
    return new ByteReader(slices).reset(bytes, 0, bytes.length)
  }

  /** Turns to `bytes[start, end)`. */
  reset(bytes: Uint8Array, start: number, end: number): this {
    this.bytes = bytes
    this.offset = start
    this.end = end
    return this
  }

  get remaining(): number {
    return this.end - this.offset
  }

  /** Fails with what was wrong, at the current offset. Never mentions the bytes themselves: they may be a row. */
  fail(problem: string): never {
    throw new DecodeError({ problem, offset: this.offset })
  }

  /** Moves past `count` bytes and returns where they began. */
  skip(count: number): number {
    const start = this.offset
    if (count < 0 || count > this.end - start) {
      this.fail(`${count} bytes wanted where ${this.end - start} are left`)
    }
    this.offset = start + count
    return start
  }

  uint8(): number {
    return this.bytes[this.skip(1)]!
  }

  int16(): number {
    const at = this.skip(2)
    return ((this.bytes[at]! << 24) >> 16) | this.bytes[at + 1]!
  }

  uint16(): number {
    return this.int16() & 0xffff
  }

  int32(): number {
    const at = this.skip(4)
    const bytes = this.bytes
    return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
  }

  /** OIDs and transaction ids are unsigned. */
  uint32(): number {
    return this.int32() >>> 0
  }

  lsn(): Lsn.Lsn {
    const high = this.int32()
    return Lsn.fromHalves(high, this.int32())
  }

  /** A signed 64-bit integer as a number: exact to 2^53, which microseconds since 2000 reach in the year 2285. */
  int64AsNumber(): number {
    const high = this.int32()
    return high * 0x1_0000_0000 + this.uint32()
  }

  /** Zero-terminated UTF-8: names, prefixes, fields of an ErrorResponse. */
  cstring(): string {
    const { bytes, end, offset } = this
    // Not `indexOf`, which would search on through the read behind this message. Names are short.
    let terminator = offset
    while (terminator < end && bytes[terminator] !== 0) terminator++
    if (terminator >= end) this.fail("text without its terminating zero")
    const text = this.utf8(offset, terminator)
    this.offset = terminator + 1
    return text
  }

  /** UTF-8 text of `bytes[start, end)`, which the caller has checked to lie within the message. */
  utf8(start: number, end: number): string {
    const text = this.slices.utf8(this.bytes, start, end)
    return text === undefined ? this.fail(notUtf8) : text
  }

  /** A copy of `count` bytes, safe to keep: a plain `Uint8Array`, also where `bytes` is one of its subclasses. */
  copy(count: number): Uint8Array {
    const start = this.skip(count)
    return new Uint8Array(this.bytes.subarray(start, start + count))
  }

  /** Everything has been read, or the message was longer than its kind allows. */
  expectEnd(): void {
    if (this.offset !== this.end) this.fail(`${this.end - this.offset} bytes too many`)
  }
}
