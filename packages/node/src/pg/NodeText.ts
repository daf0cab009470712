/**
 * Cuts text out of bytes with `Buffer`'s own slicers, which take offsets: no view is made for each value. Owns no bytes.
 */
import { isUtf8 } from "node:buffer"
import { type TextSlices, tooLong } from "@replicant/core/driver"

/** As every `Buffer` has them; Node's types leave them out. */
interface BufferSlicers {
  utf8Slice(this: Uint8Array, start: number, end: number): string
  latin1Slice(this: Uint8Array, start: number, end: number): string
}

const { latin1Slice, utf8Slice } = Buffer.prototype as unknown as BufferSlicers

/** What `utf8Slice` puts where bytes are not UTF-8; well-formed text may hold it too. */
const replacement = "\uFFFD"

/** A value of a gigabyte fits PostgreSQL, but no string of V8. */
const slice = (slicer: typeof utf8Slice, bytes: Uint8Array, start: number, end: number): string => {
  try {
    return slicer.call(bytes, start, end)
  } catch {
    throw tooLong(end - start, start)
  }
}

/** `TextSlices` of Node.js, at a fraction of what `TextDecoder` costs for short values: docs/performance.md. */
export const nodeText: TextSlices = {
  utf8: (bytes, start, end) => {
    const text = slice(utf8Slice, bytes, start, end)
    return text.includes(replacement) && !isUtf8(bytes.subarray(start, end)) ? undefined : text
  },
  latin1: (bytes, start, end) => slice(latin1Slice, bytes, start, end)
}
