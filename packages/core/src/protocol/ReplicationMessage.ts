/**
 * The messages that a walsender and its client exchange inside CopyData, both ways.
 *
 * The copy-data loop reads XLogData in place and makes no object of it (see `replication/CopyData.ts`); the codecs here
 * are the reference for it, and what the other side of a test speaks.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION
 */
import type * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type { ByteReader } from "./ByteReader.ts"

/** A piece of the stream: one message of the output plugin. */
export interface XLogData {
  readonly _tag: "XLogData"
  /** Where the message stands in the WAL; `0/0` for descriptions of relations and types. */
  readonly walStart: Lsn.Lsn
  /** The same, for logical replication. */
  readonly walEnd: Lsn.Lsn
  /** When it was sent, by the server's clock. */
  readonly sendTime: PgTimestamp.PgTimestamp
  /** The plugin's message: a copy once decoded, safe to keep. */
  readonly walData: Uint8Array
}

/** Sent by the walsender when idle, and as a demand for a status update. */
export interface PrimaryKeepAlive {
  readonly _tag: "PrimaryKeepAlive"
  /** Everything before it has been sent. An exclusive end. */
  readonly walEnd: Lsn.Lsn
  readonly sendTime: PgTimestamp.PgTimestamp
  readonly replyRequested: boolean
}

/** Tells the walsender how far its client is. Only `flushed` moves a logical slot. */
export interface StandbyStatusUpdate {
  readonly _tag: "StandbyStatusUpdate"
  readonly written: Lsn.Lsn
  readonly flushed: Lsn.Lsn
  readonly applied: Lsn.Lsn
  readonly sendTime: PgTimestamp.PgTimestamp
  /** Asks for a keep-alive in return: a ping. */
  readonly replyRequested: boolean
}

/** Keeps rows that a query on a standby still needs. A logical client has no use for it but may relay it. */
export interface HotStandbyFeedback {
  readonly _tag: "HotStandbyFeedback"
  readonly sendTime: PgTimestamp.PgTimestamp
  readonly xmin: number
  readonly xminEpoch: number
  readonly catalogXmin: number
  readonly catalogXminEpoch: number
}

export const xLogDataTag = 0x77 // w
export const primaryKeepAliveTag = 0x6b // k
export const standbyStatusUpdateTag = 0x72 // r
export const hotStandbyFeedbackTag = 0x68 // h

/** Bytes of XLogData before the plugin's message: tag, start, end, time. */
export const xLogDataHeaderLength = 25
export const primaryKeepAliveLength = 18

const timestamp = (reader: ByteReader): PgTimestamp.PgTimestamp => PgTimestamp.make(reader.int64AsNumber())

/** What the server says inside CopyData. */
export const decodeReplicationMessage = (reader: ByteReader): XLogData | PrimaryKeepAlive => {
  const tag = reader.uint8()
  switch (tag) {
    case xLogDataTag:
      return {
        _tag: "XLogData",
        walStart: reader.lsn(),
        walEnd: reader.lsn(),
        sendTime: timestamp(reader),
        walData: reader.copy(reader.remaining)
      }
    case primaryKeepAliveTag: {
      const message: PrimaryKeepAlive = {
        _tag: "PrimaryKeepAlive",
        walEnd: reader.lsn(),
        sendTime: timestamp(reader),
        replyRequested: reader.uint8() !== 0
      }
      reader.expectEnd()
      return message
    }
    default:
      return reader.fail(`an unknown streaming message of type 0x${tag.toString(16)}`)
  }
}

/** What a client says inside CopyData. */
export const decodeStandbyMessage = (reader: ByteReader): StandbyStatusUpdate | HotStandbyFeedback => {
  const tag = reader.uint8()
  switch (tag) {
    case standbyStatusUpdateTag: {
      const message: StandbyStatusUpdate = {
        _tag: "StandbyStatusUpdate",
        written: reader.lsn(),
        flushed: reader.lsn(),
        applied: reader.lsn(),
        sendTime: timestamp(reader),
        replyRequested: reader.uint8() !== 0
      }
      reader.expectEnd()
      return message
    }
    case hotStandbyFeedbackTag: {
      const message: HotStandbyFeedback = {
        _tag: "HotStandbyFeedback",
        sendTime: timestamp(reader),
        xmin: reader.uint32(),
        xminEpoch: reader.uint32(),
        catalogXmin: reader.uint32(),
        catalogXminEpoch: reader.uint32()
      }
      reader.expectEnd()
      return message
    }
    default:
      return reader.fail(`an unknown standby message of type 0x${tag.toString(16)}`)
  }
}

/** Writes fixed-width fields one after the other. */
const writer = (tag: number, length: number) => {
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  bytes[0] = tag
  let at = 1
  const uint64 = (value: bigint) => {
    view.setBigUint64(at, value)
    at += 8
  }
  return {
    bytes,
    uint64,
    timestamp: (value: PgTimestamp.PgTimestamp) => uint64(BigInt.asUintN(64, BigInt(Math.trunc(value)))),
    uint32: (value: number) => {
      view.setUint32(at, value)
      at += 4
    },
    flag: (value: boolean) => {
      bytes[at++] = value ? 1 : 0
    },
    rest: (value: Uint8Array) => bytes.set(value, at)
  }
}

/** A message without its `_tag`: what an encoder takes. */
type Fields<Message> = Omit<Message, "_tag">

export const encodeXLogData = (message: Fields<XLogData>): Uint8Array => {
  const out = writer(xLogDataTag, xLogDataHeaderLength + message.walData.length)
  out.uint64(message.walStart)
  out.uint64(message.walEnd)
  out.timestamp(message.sendTime)
  out.rest(message.walData)
  return out.bytes
}

export const encodePrimaryKeepAlive = (message: Fields<PrimaryKeepAlive>): Uint8Array => {
  const out = writer(primaryKeepAliveTag, primaryKeepAliveLength)
  out.uint64(message.walEnd)
  out.timestamp(message.sendTime)
  out.flag(message.replyRequested)
  return out.bytes
}

export const encodeStandbyStatusUpdate = (message: Fields<StandbyStatusUpdate>): Uint8Array => {
  const out = writer(standbyStatusUpdateTag, 34)
  out.uint64(message.written)
  out.uint64(message.flushed)
  out.uint64(message.applied)
  out.timestamp(message.sendTime)
  out.flag(message.replyRequested)
  return out.bytes
}

export const encodeHotStandbyFeedback = (message: Fields<HotStandbyFeedback>): Uint8Array => {
  const out = writer(hotStandbyFeedbackTag, 25)
  out.timestamp(message.sendTime)
  out.uint32(message.xmin)
  out.uint32(message.xminEpoch)
  out.uint32(message.catalogXmin)
  out.uint32(message.catalogXminEpoch)
  return out.bytes
}
