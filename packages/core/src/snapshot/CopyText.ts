/**
 * A row of COPY's text format as the pgoutput message that an insert of it would have been: so that one decoder makes the
 * values of both, of any type and with any option.
 *
 * Each byte is looked at once. The message lies in a buffer that the next one overwrites; decoders copy what they keep.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2 and `CopyAttributeOutText` in
 * src/backend/commands/copyto.c, which writes these escapes and no others.
 */
import { DecodeError } from "../ReplicationError.ts"

const tab = 0x09
const newline = 0x0a
const backslash = 0x5c
const nullLetter = 0x4e // N

/** What a letter after a backslash stands for; 0 for what COPY does not write. */
const escapes = new Uint8Array(256)
escapes[0x62] = 0x08 // b
escapes[0x66] = 0x0c // f
escapes[0x6e] = 0x0a // n
escapes[0x72] = 0x0d // r
escapes[0x74] = 0x09 // t
escapes[0x76] = 0x0b // v
escapes[backslash] = backslash

/** `I`, the relation's OID, `N`, and the count of columns. */
const headerLength = 8
/** `t`, and the length of a value. */
const valueHeader = 5

/** Beyond this a row has a buffer of its own, which goes with it. */
const keptLength = 1024 * 1024

const fail = (problem: string, offset: number): never => {
  throw new DecodeError({ problem, offset })
}

/** Turns rows into Insert messages, one at a time. */
export class CopyText {
  /** The message is `bytes[0, length)`, until the next. */
  bytes: Uint8Array = new Uint8Array(8192)
  private kept = this.bytes

  /**
   * Takes the row in `bytes[start, end)`, its newline included, of a relation of so many columns, and returns the length of
   * the message. Throws `DecodeError` for what is not one row of that many columns.
   */
  encodeInsert(relation: number, columns: number, row: Uint8Array, start: number, end: number): number {
    if (end <= start || row[end - 1] !== newline) fail("a row of a copy without its end", start)
    const out = this.room(headerLength + columns * valueHeader + (end - start))
    out[0] = 0x49 // I
    out[1] = relation >>> 24
    out[2] = relation >>> 16
    out[3] = relation >>> 8
    out[4] = relation
    out[5] = 0x4e // N
    out[6] = columns >>> 8
    out[7] = columns
    let to = headerLength
    let at = start
    // The row of a relation without columns is a newline alone.
    if (columns === 0) at += 1
    for (let column = 0; column < columns; column++) {
      const ending = column === columns - 1 ? newline : tab
      if (row[at] === backslash && row[at + 1] === nullLetter) {
        if (row[at + 2] !== ending) fail("a null in a row of a copy that goes on", at)
        out[to++] = 0x6e // n
        at += 3
        continue
      }
      const header = to
      to += valueHeader
      let byte = row[at++]!
      while (byte > newline || (byte !== tab && byte !== newline)) {
        if (byte === backslash) {
          byte = escapes[row[at++]!]!
          if (byte === 0) fail("an escape in a row of a copy that PostgreSQL does not write", at - 1)
        }
        out[to++] = byte
        byte = row[at++]!
      }
      if (byte !== ending) fail(`a row of a copy that has not ${columns} columns`, at - 1)
      const length = to - header - valueHeader
      out[header] = 0x74 // t
      out[header + 1] = length >>> 24
      out[header + 2] = length >>> 16
      out[header + 3] = length >>> 8
      out[header + 4] = length
    }
    if (at !== end) fail(`a row of a copy that has not ${columns} columns`, at)
    return to
  }

  private room(length: number): Uint8Array {
    if (length > keptLength) this.bytes = new Uint8Array(length)
    else {
      if (length > this.kept.length) this.kept = new Uint8Array(Math.min(keptLength, 2 * length))
      this.bytes = this.kept
    }
    return this.bytes
  }
}
