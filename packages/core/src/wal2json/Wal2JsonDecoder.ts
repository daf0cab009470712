/**
 * The decoders of wal2json's formats: bytes to JSON, JSON to a message, message to changes. Strict in all three, and no
 * error of theirs holds a value.
 *
 * The bytes are borrowed for the call. Format 2 is one object a change. Format 1 is one object a transaction, as long
 * as the transaction is, up to PostgreSQL's 1 GB for one value.
 */
import * as Result from "effect/Result"
import type { Batch, Decoder } from "../change/OutputPlugin.ts"
import type { ByteReader, TextSlices } from "../protocol/ByteReader.ts"
import { DecodeError } from "../ReplicationError.ts"
import { ChangeAssembler, type ChangeAssemblerOptions, refuse } from "./ChangeAssembler.ts"
import { type JsonText, parseJsonText } from "./JsonText.ts"
import {
  type Column,
  decodeFormat1,
  decodeFormat2,
  type Format1Change,
  type Format1Message,
  type Format2Message,
  type RowMessage,
  zipColumns
} from "./Wal2JsonMessage.ts"

/** What the decoder was told to expect. */
export interface DecoderOptions extends Omit<ChangeAssemblerOptions, "hasWholeIdentity"> {
  readonly formatVersion: 1 | 2
}

const shapeless = "JSON that is no message of wal2json with the options it was given"
const unequal = "lists of names, types and values that differ in length"
const notUtf8 = "text that is not UTF-8"

const utf8 = new TextEncoder()

/** Latin-1 characters, one a byte, back to those bytes. */
const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0))

/**
 * wal2json counts a transaction's changes, and forgets to begin anew: a message outside any that follows one of two and
 * more changes comes with a comma before it.
 */
const withoutStrayComma = (text: string): string => (text.startsWith('{"change":[,') ? text.replace("[,", "[") : text)

const format1Message = (json: JsonText): Format1Message =>
  Result.getOrElse(decodeFormat1(json), () => refuse(shapeless))
const format2Message = (json: JsonText): Format2Message =>
  Result.getOrElse(decodeFormat2(json), () => refuse(shapeless))

/** A message whose content is bytes, not text: the JSON around it is read as Latin-1, its prefix as UTF-8 again. */
const appendBinaryMessage = (assembler: ChangeAssembler, batch: Batch, latin1: string, slices: TextSlices): void => {
  const message = format2Message(parseJsonText(latin1))
  if (message.action !== "M") refuse(notUtf8)
  const prefix = bytesOf(message.prefix)
  const text = slices.utf8(prefix, 0, prefix.length) ?? refuse(notUtf8)
  appendMessage(assembler, batch, message, text, bytesOf(message.content))
}

const appendMessage = (
  assembler: ChangeAssembler,
  batch: Batch,
  message: Extract<Format2Message, { readonly action: "M" }>,
  prefix: string,
  content: Uint8Array
): void => {
  const { lsn, transactional, xid } = message
  if (!transactional) assembler.standaloneMessage(batch, { prefix, content, lsn })
  else assembler.transactionalMessage(batch, { prefix, content, lsn }, xid ?? refuse(shapeless))
}

const appendFormat2 = (assembler: ChangeAssembler, batch: Batch, message: Format2Message): void => {
  switch (message.action) {
    case "B":
      assembler.begin(batch, message, message.lsn, message.nextlsn)
      break
    case "I":
    case "U":
    case "D":
      assembler.row(batch, rowOfFormat2(message), message.xid)
      break
    case "T":
      assembler.truncate(batch, message, message.xid)
      break
    case "M":
      appendMessage(assembler, batch, message, message.prefix, utf8.encode(message.content))
      break
    case "C":
      assembler.commit(batch, message.xid, message.lsn, message.nextlsn)
  }
}

const rowOfFormat2 = (message: Extract<Format2Message, { readonly action: "I" | "U" | "D" }>): RowMessage => ({
  action: message.action,
  schema: message.schema,
  table: message.table,
  columns: message.action === "D" ? [] : message.columns,
  identity: message.action === "I" ? undefined : message.identity,
  primaryKey: message.pk.map((column) => column.name)
})

const appendFormat1 = (assembler: ChangeAssembler, batch: Batch, message: Format1Message): void => {
  if (message.xid === undefined) {
    const [change] = message.change
    if (change.kind !== "message" || change.transactional) refuse(shapeless)
    const content = utf8.encode(change.content)
    assembler.standaloneMessage(batch, { prefix: change.prefix, content, lsn: assembler.lastDelivered })
    return
  }
  const { nextlsn, xid } = message
  assembler.begin(batch, message, nextlsn, nextlsn)
  for (const change of message.change) {
    if (change.kind !== "message") {
      assembler.row(batch, rowOfFormat1(change), xid)
    } else if (change.transactional) {
      const content = utf8.encode(change.content)
      assembler.transactionalMessage(batch, { prefix: change.prefix, content, lsn: nextlsn }, xid)
    } else {
      refuse(shapeless)
    }
  }
  assembler.commit(batch, xid, nextlsn, nextlsn)
}

const rowOfFormat1 = (change: Exclude<Format1Change, { readonly kind: "message" }>): RowMessage => {
  const { schema, table } = change
  const columns: ReadonlyArray<Column> =
    change.kind === "delete"
      ? []
      : (zipColumns(change.columnnames, change.columntypes, change.columntypeoids, change.columnvalues) ??
        refuse(unequal))
  const keys = change.kind === "insert" ? undefined : change.oldkeys
  const identity =
    keys === undefined
      ? undefined
      : (zipColumns(keys.keynames, keys.keytypes, keys.keytypeoids, keys.keyvalues) ?? refuse(unequal))
  const action = change.kind === "insert" ? "I" : change.kind === "update" ? "U" : "D"
  return { action, schema, table, columns, identity, primaryKey: change.pk?.pknames ?? [] }
}

/** Lives as long as one copy stream: so does what it learns of tables. */
export class Wal2JsonDecoder implements Decoder {
  private readonly assembler: ChangeAssembler
  private readonly formatVersion: 1 | 2

  constructor(options: DecoderOptions) {
    this.formatVersion = options.formatVersion
    this.assembler = new ChangeAssembler({ ...options, hasWholeIdentity: options.formatVersion === 2 })
  }

  get isOpen(): boolean {
    return this.assembler.isOpen
  }

  get lastCommitTime() {
    return this.assembler.lastCommitTime
  }

  decode(reader: ByteReader, batch: Batch): void {
    const start = reader.skip(reader.remaining)
    const { bytes, end, slices } = reader
    const text = slices.utf8(bytes, start, end)
    try {
      if (text === undefined) this.appendBytes(batch, slices.latin1(bytes, start, end), slices)
      else if (this.formatVersion === 2) appendFormat2(this.assembler, batch, format2Message(parseJsonText(text)))
      else appendFormat1(this.assembler, batch, format1Message(parseJsonText(withoutStrayComma(text))))
    } catch (error) {
      // What was thrown knows the place within the message at best.
      const { offset, problem } = DecodeError.caught(error)
      throw new DecodeError({ problem, offset: start + offset })
    }
  }

  /** Bytes that are not UTF-8 may stand in a message's content and nowhere else. */
  private appendBytes(batch: Batch, latin1: string, slices: TextSlices): void {
    if (this.formatVersion === 1) refuse(notUtf8)
    appendBinaryMessage(this.assembler, batch, latin1, slices)
  }
}
