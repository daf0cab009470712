/**
 * Text out of a message's bytes: short values are cut from longer pieces, so that a row of many costs few calls. Values that
 * are not text are read by `values/ScalarBytes.ts`.
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import { textAt } from "../values/ScalarBytes.ts"

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
