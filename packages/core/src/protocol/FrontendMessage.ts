/**
 * What a client says: the few frontend messages that a copy stream needs, each as bytes of its own.
 *
 * There is no CopyFail: a walsender answers it by breaking the connection off, as it does for all that is not CopyData,
 * CopyDone or Terminate (`ProcessRepliesIfAny` in src/backend/replication/walsender.c).
 *
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
import { encodeFrame } from "./Frames.ts"

const empty = new Uint8Array(0)

/**
 * A simple query, also of a replication command. The text is ended by a zero byte, so it must hold none: whoever takes
 * text from outside refuses it there, as `ReplicationCommand` does, and one that comes this far is a defect. Throws
 * `TypeError` for it.
 */
export const query = (text: string): Uint8Array => {
  if (text.includes("\0")) throw new TypeError("a query cannot hold a zero byte")
  return encodeFrame(0x51 /* Q */, new TextEncoder().encode(`${text}\0`))
}

/** A part of a copy: here, a status update. */
export const copyData = (payload: Uint8Array): Uint8Array => encodeFrame(0x64 /* d */, payload)

/** We are done: the walsender answers with its own CopyDone and CommandComplete. */
export const copyDone: Uint8Array = encodeFrame(0x63 /* c */, empty)

/** Goodbye: the server closes the connection. */
export const terminate: Uint8Array = encodeFrame(0x58 /* X */, empty)
