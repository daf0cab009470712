/**
 * What a server says around a copy stream: the letters of its messages, the fields of its errors and notices, and how to
 * write them, which a scripted walsender needs.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
import type { ServerMessage } from "../ReplicationError.ts"
import type { ByteReader } from "./ByteReader.ts"
import { encodeFrame } from "./Frames.ts"

export const notificationResponseTag = 0x41 // A
export const commandCompleteTag = 0x43 // C
export const errorResponseTag = 0x45 // E
export const noticeResponseTag = 0x4e // N
export const parameterStatusTag = 0x53 // S
export const copyBothResponseTag = 0x57 // W
export const readyForQueryTag = 0x5a // Z
export const copyDoneTag = 0x63 // c
export const copyDataTag = 0x64 // d

/**
 * The fields of an ErrorResponse or NoticeResponse: a letter and a text each, ended by a zero byte. Unknown letters are
 * passed over, as the protocol asks.
 */
export const decodeServerMessage = (reader: ByteReader): ServerMessage => {
  const fields = new Map<number, string>()
  for (let letter = reader.uint8(); letter !== 0; letter = reader.uint8()) fields.set(letter, reader.cstring())
  reader.expectEnd()
  return {
    // V is never translated, S is; V came with PostgreSQL 9.6.
    severity: fields.get(0x56 /* V */) ?? fields.get(0x53 /* S */) ?? "ERROR",
    sqlState: fields.get(0x43 /* C */) ?? "XX000",
    message: fields.get(0x4d /* M */) ?? "",
    detail: fields.get(0x44 /* D */),
    hint: fields.get(0x48 /* H */),
    routine: fields.get(0x52 /* R */)
  }
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value)

/** The walsender accepts START_REPLICATION: text format, no columns. */
export const copyBothResponse: Uint8Array = encodeFrame(copyBothResponseTag, new Uint8Array(3))

export const copyData = (payload: Uint8Array): Uint8Array => encodeFrame(copyDataTag, payload)

export const copyDone: Uint8Array = encodeFrame(copyDoneTag, new Uint8Array(0))

export const commandComplete = (tag: string): Uint8Array => encodeFrame(commandCompleteTag, text(`${tag}\0`))

/** Idle, outside any transaction block. */
export const readyForQuery: Uint8Array = encodeFrame(readyForQueryTag, text("I"))

const serverMessage = (tag: number, message: ServerMessage): Uint8Array => {
  const { detail, hint, routine, severity, sqlState } = message
  const optional = (letter: string, value: string | undefined) => (value === undefined ? "" : `${letter}${value}\0`)
  const fields = `S${severity}\0V${severity}\0C${sqlState}\0M${message.message}\0`
  return encodeFrame(tag, text(`${fields}${optional("D", detail)}${optional("H", hint)}${optional("R", routine)}\0`))
}

export const errorResponse = (message: ServerMessage): Uint8Array => serverMessage(errorResponseTag, message)

export const noticeResponse = (message: ServerMessage): Uint8Array => serverMessage(noticeResponseTag, message)
