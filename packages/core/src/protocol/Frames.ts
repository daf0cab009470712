/**
 * Messages over reads of any size: one tag byte, an Int32 length that counts itself, a payload.
 *
 * `push` lends a read, `next` steps through its whole frames without copying. A frame that a read cuts is gathered once
 * into a buffer of its own; that buffer grows with what has arrived, never with what a length merely promises.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
import { DecodeError } from "../ReplicationError.ts"

/** One gigabyte and the four bytes of the length: PostgreSQL itself cannot send a longer message. */
export const defaultMaxFrameLength = 0x4000_0004

const headerLength = 5
/** What one read holds, about. */
const readLength = 65_536
const none = new Uint8Array(0)

/**
 * How large a buffer for a frame of `total` bytes may be once `held` have come: never more than four times that, or four
 * reads. The last step goes straight to `total`, so that growing copies less than the frame once over.
 */
const capacity = (held: number, total: number): number => {
  const arrived = Math.max(held, readLength)
  return total <= 4 * arrived ? total : 2 * arrived
}

/** A whole message of that type, ready to be sent: frontend and backend frame alike. Copies the payload. */
export const encodeFrame = (tag: number, payload: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(headerLength + payload.length)
  bytes[0] = tag
  new DataView(bytes.buffer).setInt32(1, 4 + payload.length)
  bytes.set(payload, headerLength)
  return bytes
}

/** Steps through whole backend messages. One serves a connection; `push` may be given reads of any size. */
export class Frames {
  /** Where the current frame lies: the read itself, or the gathered frame. Borrowed until the next `push`. */
  bytes: Uint8Array = none
  /** The current frame's type, the letter of its message. */
  tag = 0
  /** Payload of the current frame: `bytes[start, end)`. */
  start = 0
  end = 0

  private read: Uint8Array = none
  private offset = 0
  private partial: Uint8Array | undefined
  private filled = 0
  private readonly maxFrameLength: number

  constructor(maxFrameLength: number = defaultMaxFrameLength) {
    this.maxFrameLength = maxFrameLength
  }

  /** Lends the next read. Everything of the one before must have been stepped through. */
  push(read: Uint8Array): void {
    this.read = read
    this.offset = 0
  }

  /** What of the read has not been stepped through, to be pushed again later. */
  copyRest(): Uint8Array {
    return this.read.slice(this.offset)
  }

  /** Bytes of a frame that has begun and not ended. */
  get pending(): number {
    return this.filled
  }

  /** Steps to the next whole frame. False: the read is used up. Throws `DecodeError` on a length that cannot be. */
  next(): boolean {
    if (this.partial !== undefined) return this.completePartial(this.partial)
    const left = this.read.length - this.offset
    if (left === 0) return false
    const total = left < headerLength ? headerLength : this.totalLength(this.read, this.offset)
    if (total > left) {
      const partial = new Uint8Array(capacity(left, total))
      partial.set(this.read.subarray(this.offset))
      this.partial = partial
      this.filled = left
      this.offset = this.read.length
      return false
    }
    this.expose(this.read, this.offset, total)
    this.offset += total
    return true
  }

  private completePartial(partial: Uint8Array): boolean {
    if (this.filled < headerLength) {
      partial = this.take(partial, headerLength)
      if (this.filled < headerLength) return false
    }
    const total = this.totalLength(partial, 0)
    partial = this.take(partial, total)
    if (this.filled < total) return false
    this.partial = undefined
    this.filled = 0
    this.expose(partial, 0, total)
    return true
  }

  /** Moves what the read has of the partial frame's first `wanted` bytes, growing it as they come. */
  private take(partial: Uint8Array, wanted: number): Uint8Array {
    const count = Math.min(wanted - this.filled, this.read.length - this.offset)
    const needed = this.filled + count
    if (needed > partial.length) {
      const grown = new Uint8Array(capacity(needed, wanted))
      grown.set(partial.subarray(0, this.filled))
      this.partial = partial = grown
    }
    partial.set(this.read.subarray(this.offset, this.offset + count), this.filled)
    this.filled = needed
    this.offset += count
    return partial
  }

  private expose(bytes: Uint8Array, at: number, total: number): void {
    this.bytes = bytes
    this.tag = bytes[at]!
    this.start = at + headerLength
    this.end = at + total
  }

  private totalLength(bytes: Uint8Array, at: number): number {
    const length = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!
    if (length < 4 || length > this.maxFrameLength) {
      throw new DecodeError({
        problem: `a frame of type 0x${bytes[at]!.toString(16)} claims ${length} bytes; 4 to ${this.maxFrameLength} can be`,
        offset: this.offset
      })
    }
    return length + 1
  }
}
