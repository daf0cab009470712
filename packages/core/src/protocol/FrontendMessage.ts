/**
 * What a client says: the few frontend messages that a copy stream needs, each as bytes of its own.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */

/** A frame: type, Int32 length that counts itself, payload. */
const frame = (tag: number, payload: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(5 + payload.length)
  bytes[0] = tag
  new DataView(bytes.buffer).setInt32(1, 4 + payload.length)
  bytes.set(payload, 5)
  return bytes
}

const empty = new Uint8Array(0)

/**
 * A simple query, also of a replication command. The text is ended by a zero byte, so it must hold none:
 * `ReplicationCommand` refuses them before.
 */
export const query = (text: string): Uint8Array => frame(0x51 /* Q */, new TextEncoder().encode(`${text}\0`))

/** A part of a copy: here, a status update. */
export const copyData = (payload: Uint8Array): Uint8Array => frame(0x64 /* d */, payload)

/** We are done: the walsender answers with its own CopyDone and CommandComplete. */
export const copyDone: Uint8Array = frame(0x63 /* c */, empty)

/** Goodbye: the server closes the connection. */
export const terminate: Uint8Array = frame(0x58 /* X */, empty)
