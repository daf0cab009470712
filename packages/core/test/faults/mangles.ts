/**
 * Forty ways to mangle a message, whatever it says: each makes bytes that no PostgreSQL sends in that place, so each
 * must be refused. Not a test.
 */
import { frame, header, maxFrameLength } from "./Hostile.ts"

/** Makes a frame, or what is left of one, out of what stands inside its CopyData. */
export type Mangle = (payload: Uint8Array) => Uint8Array

const copyDataTag = "d"
const xLogDataTag = 0x77
const headerLength = 25

const isXLogData = (payload: Uint8Array): boolean => payload[0] === xLogDataTag

const joined = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat(parts))

/** A frame whose length is not that of its payload. */
const lying = (payload: Uint8Array, length: number): Uint8Array => joined(header(copyDataTag, length), payload)

const honest = (payload: Uint8Array): Uint8Array => frame(copyDataTag, payload)

const at = (payload: Uint8Array, offset: number, ...bytes: ReadonlyArray<number>): Uint8Array => {
  const copy = payload.slice()
  copy.set(bytes, offset)
  return copy
}

/** In XLogData the plugin's letter. A keep-alive has none: there, it is the letter of the keep-alive itself. */
const letterOffset = (payload: Uint8Array): number => (isXLogData(payload) ? headerLength : 0)

const lettered =
  (letter: (was: number) => number): Mangle =>
  (payload) =>
    honest(at(payload, letterOffset(payload), letter(payload[letterOffset(payload)]!)))

const swappedBytes = (value: number): number => Buffer.from(header("d", value).subarray(1).toReversed()).readInt32BE()

const ascii = (letter: string): number => letter.charCodeAt(0)

export const mangles: Readonly<Record<string, Mangle>> = {
  // The length of its frame.
  "a length of 2^31 - 1": (payload) => lying(payload, 0x7fff_ffff),
  "a length of -1": (payload) => lying(payload, -1),
  "a length of -2^31": (payload) => lying(payload, -0x8000_0000),
  "a length of 0": (payload) => lying(payload, 0),
  "a length of 3": (payload) => lying(payload, 3),
  "a length of 4, which is nothing": (payload) => lying(payload, 4),
  "a length one beyond the limit": (payload) => lying(payload, maxFrameLength + 1),
  "a length with its bytes reversed": (payload) => lying(payload, swappedBytes(payload.length + 4)),
  "a length one too short": (payload) => lying(payload, payload.length + 3),
  "a length one too long": (payload) => lying(payload, payload.length + 5),
  // The type of its frame.
  "a type that is unknown": (payload) => frame("z", payload),
  "a type of 0x00": (payload) => frame(0x00, payload),
  "a type of 0xff": (payload) => frame(0xff, payload),
  "the type of a row": (payload) => frame("D", payload),
  "the type of a request for a password": (payload) => frame("R", payload),
  "the type of a CopyInResponse": (payload) => frame("G", payload),
  "the type of an error": (payload) => frame("E", payload),
  "the type of a notice": (payload) => frame("N", payload),
  "the type of the answer to START_REPLICATION": (payload) => frame("W", payload),
  // What is in it, the frame being honest about its length.
  "an empty payload": () => honest(new Uint8Array(0)),
  "nothing but its kind": (payload) => honest(payload.subarray(0, 1)),
  "half of it": (payload) => honest(payload.subarray(0, payload.length >> 1)),
  "all but its last byte": (payload) => honest(payload.subarray(0, -1)),
  "a zero byte too many": (payload) => honest(joined(payload, new Uint8Array(1))),
  "five bytes too many": (payload) => honest(joined(payload, new Uint8Array(5).fill(0x41))),
  "itself twice": (payload) => honest(joined(payload, payload)),
  "a byte before it": (payload) => honest(joined(new Uint8Array(1), payload)),
  "a byte put in after its kind": (payload) =>
    honest(joined(payload.subarray(0, 1), new Uint8Array(1), payload.subarray(1))),
  "a byte left out after its kind": (payload) => honest(joined(payload.subarray(0, 1), payload.subarray(2))),
  "a header cut short": (payload) => honest(payload.subarray(0, isXLogData(payload) ? headerLength - 1 : 9)),
  // The kind of copy data.
  "a kind that is unknown": (payload) => honest(at(payload, 0, ascii("?"))),
  "a kind of 0x00": (payload) => honest(at(payload, 0, 0)),
  "the kind of a status update, which is the client's to send": (payload) => honest(at(payload, 0, ascii("r"))),
  "the other kind": (payload) => honest(at(payload, 0, ascii(isXLogData(payload) ? "k" : "w"))),
  // Where it stands in the WAL.
  "a position of FFFFFFFF/FFFFFFFF": (payload) => honest(at(payload, 1, ...Array.from({ length: 8 }, () => 0xff))),
  "a position with its highest bit turned": (payload) => honest(at(payload, 1, 0x80)),
  // The plugin's letter.
  "a letter that is unknown": lettered(() => ascii("z")),
  "a letter of 0x00": lettered(() => 0),
  "a letter of 0xff": lettered(() => 0xff),
  "its letter in the other case": lettered((was) => was ^ 0x20)
}
