/**
 * One COPY … TO STDOUT, read by read: its frames to rows, and the count that the server gives at the end against ours. A
 * copy is over when the server has said so in every way that it has, and in no other: one cut short is never complete.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
 */
import type { Row } from "../change/Change.ts"
import type { CopiedRows } from "../change/OutputPlugin.ts"
import type { Relation } from "../change/Relation.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { ByteReader, type TextSlices } from "../protocol/ByteReader.ts"
import { Frames } from "../protocol/Frames.ts"
import { DecodeError, type ReplicationError, ServerError, type ServerMessage } from "../ReplicationError.ts"
import { refineServerError, serverError } from "../refineServerError.ts"
import type { SnapshotDecoder } from "./SnapshotDecoder.ts"

const copyOutResponseTag = 0x48 // H
/** ReadyForQuery within a transaction block: the snapshot still holds. */
const inTransaction = 0x54 // T

/**
 * Rows decoded at a time. A read may hold tens of thousands; handed over in one piece they would outlive the young
 * generation, and collecting them costs as much as decoding them does.
 */
const mostRows = 256

/** The most that is decoded at a time. The last row of a portion may go beyond its bytes. */
export interface Portion {
  readonly rows: number
  readonly bytes: number
}

const unlimited: Portion = { rows: mostRows, bytes: Number.POSITIVE_INFINITY }

/** What a part of a read came to. Rows count also where `failure` says that there will be no more. */
export interface CopyOutRead {
  readonly rows: ReadonlyArray<Row>
  /** Of the rows, in text format. */
  readonly bytes: number
  readonly notices: ReadonlyArray<ServerMessage>
  /** `more` of the read is left to decode, the next one is `due`, or the copy is `done`. */
  readonly next: "more" | "due" | "done"
  readonly failure: ReplicationError | undefined
}

/** Reads the copies of one connection, one after the other: whoever asks it other things in between lends its frames. */
export class CopyOut {
  private readonly frames: Frames
  private readonly reader: ByteReader
  private readonly decoder: SnapshotDecoder
  private relation: Relation | undefined
  private readRow: CopiedRows["readRow"] | undefined
  private rows = 0
  private told: number | undefined
  private stage: "asked" | "copying" | "copied" | "ready" = "ready"

  constructor(decoder: SnapshotDecoder, slices: TextSlices, frames: Frames = new Frames()) {
    this.decoder = decoder
    this.frames = frames
    this.reader = new ByteReader(slices)
  }

  /** A copy of this relation's rows has been asked for. */
  begin(relation: Relation): void {
    this.relation = relation
    this.readRow = this.decoder.rowsOf(relation)
    this.rows = 0
    this.told = undefined
    this.stage = "asked"
  }

  /** Lends the next read, once the one before is decoded to its end. */
  push(read: Uint8Array): void {
    this.frames.push(read)
  }

  /** Decodes some hundred rows of what was lent; fewer, where a portion is to be smaller. */
  decode(portion: Portion = unlimited): CopyOutRead {
    const rowsHere = Math.min(mostRows, portion.rows)
    const { frames, reader } = this
    const readRow = this.readRow!
    const rows: Array<Row> = []
    const notices: Array<ServerMessage> = []
    let bytes = 0
    let failure: ReplicationError | undefined
    let isLeft = true
    try {
      while (failure === undefined && rows.length < rowsHere && bytes < portion.bytes) {
        isLeft = frames.next()
        if (!isLeft) break
        if (frames.tag === BackendMessage.copyDataTag && this.stage === "copying") {
          rows.push(readRow(reader.reset(frames.bytes, frames.start, frames.end)))
          bytes += frames.end - frames.start
        } else {
          failure = this.decodeOther(notices)
        }
      }
    } catch (error) {
      failure = DecodeError.caught(error)
    }
    this.rows += rows.length
    const isDone = this.stage === "ready" && !isLeft
    if (failure === undefined && isDone && this.told !== this.rows) {
      failure = new DecodeError({ problem: `a copy of ${this.told} rows, of which ${this.rows} came`, offset: 0 })
    }
    return { rows, bytes, notices, next: isDone ? "done" : isLeft ? "more" : "due", failure }
  }

  private decodeOther(notices: Array<ServerMessage>): ReplicationError | undefined {
    const { bytes, end, start, tag } = this.frames
    const reader = this.reader.reset(bytes, start, end)
    switch (tag) {
      case copyOutResponseTag:
        this.advance(reader, "asked", "copying")
        if (reader.uint8() !== 0) reader.fail("a copy in another format than text")
        return undefined
      case BackendMessage.copyDoneTag:
        this.advance(reader, "copying", "copied")
        return undefined
      case BackendMessage.commandCompleteTag: {
        const count = /^COPY (\d+)$/.exec(reader.cstring())?.[1]
        if (this.stage !== "copied" || count === undefined) reader.fail("the end of a command that is no copy")
        this.told = Number(count)
        return undefined
      }
      case BackendMessage.readyForQueryTag:
        if (this.told === undefined) reader.fail("the server is done before the copy is")
        this.advance(reader, "copied", "ready")
        if (reader.uint8() !== inTransaction) reader.fail("a transaction that ended with its copy")
        return undefined
      case BackendMessage.errorResponseTag:
        // As while streaming, texts that may quote values are left out.
        return this.inTable(
          refineServerError(serverError(BackendMessage.decodeServerMessage(reader), "Streaming"), {
            stage: "Streaming"
          })
        )
      case BackendMessage.noticeResponseTag:
        notices.push(BackendMessage.decodeServerMessage(reader))
        return undefined
      case BackendMessage.parameterStatusTag:
      case BackendMessage.notificationResponseTag:
        return undefined
      default:
        return reader.fail(`a backend message of type 0x${tag.toString(16)} in the wrong place`)
    }
  }

  /** The server tells the table in a text that may hold the row. */
  private inTable(error: ReplicationError): ReplicationError {
    if (error._tag !== "ServerError" || this.relation === undefined) return error
    const { name, schema } = this.relation
    return new ServerError({ ...error, table: { schema, name } })
  }

  private advance(reader: ByteReader, from: CopyOut["stage"], to: CopyOut["stage"]): void {
    if (this.stage !== from) reader.fail("messages of a copy in the wrong order")
    this.stage = to
  }
}
