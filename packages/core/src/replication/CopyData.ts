/**
 * One read of a copy stream, decoded in one plain loop: no Effect, no closure and no object a message here.
 *
 * It knows the streaming replication protocol and nothing of connections. What a read says beside changes (a demand for
 * a status update, a notice, an error, an end) is told in the outcome, after the changes that came before it.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html
 */
import { NextLsn, type Run } from "../change/NextLsn.ts"
import { Batch, type Decoder, type Gathering, type InProgressMode, type OutputPlugin } from "../change/OutputPlugin.ts"
import * as Lsn from "../Lsn.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { ByteReader, type TextSlices } from "../protocol/ByteReader.ts"
import { Frames } from "../protocol/Frames.ts"
import * as ReplicationMessage from "../protocol/ReplicationMessage.ts"
import { DecodeError, type ReplicationError, type ServerMessage } from "../ReplicationError.ts"
import { type ErrorContext, refineServerError, serverError } from "../refineServerError.ts"
import { isAskedAbout } from "./Stall.ts"

/** What a read came to. */
export interface CopyRead {
  /** How many bytes it had. */
  readonly bytes: number
  readonly batch: Batch
  /** The furthest position it told, `0/0` for none. */
  readonly received: Lsn.Lsn
  readonly isOpen: boolean
  readonly replyRequested: boolean
  readonly notices: ReadonlyArray<ServerMessage>
  /** Decoding has stopped behind this warning: what comes after it may lack changes. Goes on with its `rest`. */
  readonly warning: Warning | undefined
  /** The stream is over, for this reason, once `batch` is handed on. */
  readonly end: StreamEnd | undefined
}

/** A warning to be asked about, and what of the read came after it. */
export interface Warning {
  readonly notice: ServerMessage
  readonly rest: Uint8Array
}

/** How a copy stream ends: it failed, or the walsender closed it in good order. */
export type StreamEnd =
  | { readonly _tag: "Failed"; readonly error: ReplicationError }
  | { readonly _tag: "CopyDone" }
  | { readonly _tag: "CommandComplete" }

/** A position this far beyond everything known is a lie or damage: acknowledging it would lose all in between. 1 TiB. */
const absurdAdvance = 1n << 40n
/** The same for the upper half of an LSN. */
const absurdHighAdvance = Number(absurdAdvance >> 32n)

/** No record of the WAL is longer: `XLogRecordMaxSize` in src/include/access/xlogrecord.h is somewhat less. */
const longestRecord = 1n << 30n

/** Where an XLogData header, and a keep-alive, have the time of sending: microseconds of the server's clock. */
const sendTimeOffset = 17
const keepAliveTimeOffset = 9

/** What a copy stream is decoded with. */
export interface CopyDataOptions {
  readonly plugin: OutputPlugin
  readonly inProgress?: InProgressMode | undefined
  readonly slices: TextSlices
  readonly run: Run
  /** What server errors are about. */
  readonly context: Omit<ErrorContext, "stage">
  /** The server's position when the stream began, to tell an absurd keep-alive from a true one. */
  readonly serverLsn: Lsn.Lsn
  readonly maxFrameLength?: number | undefined
}

/** Decodes one copy stream, read by read. What it keeps between reads, relations above all, ends with the stream. */
export class CopyData {
  private readonly frames: Frames
  private readonly reader: ByteReader
  private readonly decoder: Decoder
  private readonly options: CopyDataOptions
  private hasStarted = false
  private readonly serverHigh: number
  private receivedHigh = 0
  private receivedLow = 0
  private behind = 0
  private sent: number | undefined
  private isFraming = false

  constructor(options: CopyDataOptions) {
    this.options = options
    this.frames = new Frames(options.maxFrameLength)
    this.serverHigh = Number(options.serverLsn >> 32n)
    this.reader = new ByteReader(options.slices)
    this.decoder = options.plugin.makeDecoder(options.slices, options.inProgress)
  }

  /** Whether the server has answered START_REPLICATION with CopyBothResponse. */
  get isStreaming(): boolean {
    return this.hasStarted
  }

  /** The transactions in progress that are gathered, where they are. */
  get gathering(): Gathering | undefined {
    return this.decoder.gathering
  }

  /** Milliseconds from the last transaction's commit to its arrival, by the server's own clock. */
  get behindMillis(): number {
    return this.behind
  }

  /** When the server sent the last message of the last read, by its own clock; `undefined` where that tells none. */
  get sentAt(): number | undefined {
    return this.sent
  }

  /** Decodes one read. The bytes are borrowed for the call; `DecodeError`s come as `end`. */
  decode(read: Uint8Array): CopyRead {
    const batch = new Batch(this.options.run)
    const notices: Array<ServerMessage> = []
    let replyRequested = false
    let end: StreamEnd | undefined
    let isBroken = false
    let warning: Warning | undefined
    const { frames } = this
    frames.push(read)
    try {
      while (end === undefined && warning === undefined && this.nextFrame()) {
        if (frames.tag === BackendMessage.copyDataTag) {
          if (!this.hasStarted) this.failOnEarlyData()
          if (frames.bytes[frames.start] === ReplicationMessage.xLogDataTag) {
            this.decodeXLogData(batch)
          } else if (this.decodeKeepAlive()) {
            replyRequested = true
          }
        } else if (frames.tag === BackendMessage.noticeResponseTag) {
          warning = this.decodeNotice(notices)
        } else {
          end = this.decodeOther()
        }
      }
    } catch (error) {
      end = { _tag: "Failed", error: this.locate(DecodeError.caught(error)) }
      isBroken = true
    }
    this.updateBehind()
    return {
      bytes: warning === undefined ? read.length : read.length - warning.rest.length,
      batch,
      received: Lsn.fromHalves(this.receivedHigh, this.receivedLow),
      // What is not understood may be of a transaction: no idle position is acknowledged any more.
      isOpen: isBroken || this.decoder.isOpen,
      replyRequested,
      notices,
      warning,
      end
    }
  }

  /** Steps over what a read says, but for how the stream ends: for when we have said goodbye. */
  skip(read: Uint8Array): StreamEnd | undefined {
    this.frames.push(read)
    try {
      while (this.nextFrame()) {
        if (this.frames.tag === BackendMessage.copyDataTag) continue
        const end = this.decodeOther()
        // The walsender answers CopyDone with its own, then with CommandComplete: that one ends it.
        if (end !== undefined && end._tag !== "CopyDone") return end
      }
    } catch (error) {
      return { _tag: "Failed", error: DecodeError.caught(error) }
    }
    return undefined
  }

  /** While it steps, an error is the framing's and tells of no message. */
  private nextFrame(): boolean {
    this.isFraming = true
    const hasFrame = this.frames.next()
    this.isFraming = false
    return hasFrame
  }

  private failOnEarlyData(): never {
    const { bytes, end, start } = this.frames
    return this.reader.reset(bytes, start, end).fail("data before the server has accepted START_REPLICATION")
  }

  /** Whether the current frame is XLogData with a whole header. */
  private isXLogData(): boolean {
    const { bytes, end, start, tag } = this.frames
    return (
      tag === BackendMessage.copyDataTag &&
      bytes[start] === ReplicationMessage.xLogDataTag &&
      end - start >= ReplicationMessage.xLogDataHeaderLength
    )
  }

  /** Whether it is a whole keep-alive. */
  private isKeepAlive(): boolean {
    const { bytes, end, start, tag } = this.frames
    return (
      tag === BackendMessage.copyDataTag &&
      bytes[start] === ReplicationMessage.primaryKeepAliveTag &&
      end - start === ReplicationMessage.primaryKeepAliveLength
    )
  }

  private decodeXLogData(batch: Batch): void {
    const { bytes, end, start } = this.frames
    const reader = this.reader.reset(bytes, start, end)
    if (end - start < ReplicationMessage.xLogDataHeaderLength) reader.fail("an XLogData message cut short")
    // The LSN stays two numbers here: a bigint a message would cost more than the rest of this method.
    const high =
      ((bytes[start + 1]! << 24) | (bytes[start + 2]! << 16) | (bytes[start + 3]! << 8) | bytes[start + 4]!) >>> 0
    const low =
      ((bytes[start + 5]! << 24) | (bytes[start + 6]! << 16) | (bytes[start + 7]! << 8) | bytes[start + 8]!) >>> 0
    if (high - Math.max(this.receivedHigh, this.serverHigh) > absurdHighAdvance) {
      this.failOnAbsurdLsn(reader, Lsn.fromHalves(high, low))
    }
    reader.offset = start + ReplicationMessage.xLogDataHeaderLength
    const delivered = batch.delivered.length
    this.decoder.decode(reader, batch)
    if (batch.delivered.length > delivered) {
      this.checkDelivered(batch, Lsn.fromHalves(high, low))
      this.dateDelivered(batch)
    }
    // Received only now that it is understood: outside any transaction, what is received may be acknowledged.
    if (high > this.receivedHigh || (high === this.receivedHigh && low > this.receivedLow)) {
      this.receivedHigh = high
      this.receivedLow = low
    }
  }

  /**
   * A unit ends where the message stands that tells of its end. One that claims to end further on would, once it is done,
   * pass for the end of all that comes meanwhile: it is not handed on.
   */
  private checkDelivered(batch: Batch, at: Lsn.Lsn): void {
    const { lsn } = batch.delivered.at(-1)!
    const ahead = this.options.plugin.tells.endAhead ? longestRecord : 0n
    if (Lsn.sub(lsn, at) <= ahead) return
    batch.delivered.pop()
    if (batch.gathered.at(-1)?.index === batch.changes.length) batch.gathered.pop()
    else batch.changes.pop()
    const { bytes, end, start } = this.frames
    const problem = `a unit claims to end at ${Lsn.format(lsn)}, beyond ${Lsn.format(at)} where its end is told`
    this.reader.reset(bytes, start, end).fail(problem)
  }

  /** What has no commit of its own, a message outside any transaction, is as old as its sending. */
  private dateDelivered(batch: Batch): void {
    const unit = batch.delivered.at(-1)!
    if (Number.isNaN(NextLsn.committedAt(unit))) NextLsn.date(unit, this.sendTime(sendTimeOffset))
  }

  /** The current frame's. */
  private sendTime(offset: number): number {
    const { bytes, end, start } = this.frames
    return this.reader.reset(bytes, start + offset, end).int64AsNumber()
  }

  private failOnAbsurdLsn(reader: ByteReader, lsn: Lsn.Lsn): never {
    const known = Lsn.max(this.options.serverLsn, Lsn.fromHalves(this.receivedHigh, this.receivedLow))
    return reader.fail(`a message claims to stand at ${Lsn.format(lsn)}, far beyond ${Lsn.format(known)}`)
  }

  /** Returns whether the walsender wants a reply at once. */
  private decodeKeepAlive(): boolean {
    const { bytes, end, start } = this.frames
    const reader = this.reader.reset(bytes, start, end)
    const tag = reader.uint8()
    if (tag !== ReplicationMessage.primaryKeepAliveTag) {
      reader.fail(`an unknown streaming message of type 0x${tag.toString(16)}`)
    }
    if (end - start !== ReplicationMessage.primaryKeepAliveLength) reader.fail("a keep-alive of the wrong length")
    const walEnd = reader.lsn()
    const known = Lsn.max(this.options.serverLsn, Lsn.fromHalves(this.receivedHigh, this.receivedLow))
    if (Lsn.sub(walEnd, known) > absurdAdvance) {
      reader.fail(`a keep-alive claims the WAL ends at ${Lsn.format(walEnd)}, far beyond ${Lsn.format(known)}`)
    }
    if (walEnd > Lsn.fromHalves(this.receivedHigh, this.receivedLow)) {
      this.receivedHigh = Number(walEnd >> 32n)
      this.receivedLow = Number(walEnd & 0xffff_ffffn)
    }
    return bytes[end - 1] !== 0
  }

  /** Everything but CopyData: how a stream starts, what is said beside it, how it ends. */
  private decodeOther(): StreamEnd | undefined {
    const reader = this.reader.reset(this.frames.bytes, this.frames.start, this.frames.end)
    switch (this.frames.tag) {
      case BackendMessage.copyBothResponseTag:
        if (this.hasStarted) reader.fail("the server accepts START_REPLICATION a second time")
        this.hasStarted = true
        return undefined
      case BackendMessage.errorResponseTag:
        return { _tag: "Failed", error: this.handleReplicationError(BackendMessage.decodeServerMessage(reader)) }
      case BackendMessage.noticeResponseTag:
      case BackendMessage.parameterStatusTag:
      case BackendMessage.notificationResponseTag:
        return undefined
      case BackendMessage.copyDoneTag:
        return { _tag: "CopyDone" }
      case BackendMessage.commandCompleteTag:
      case BackendMessage.readyForQueryTag:
        return { _tag: "CommandComplete" }
      default:
        return reader.fail(`an unknown backend message of type 0x${this.frames.tag.toString(16)}`)
    }
  }

  /** Names an ErrorResponse by its SQLSTATE and by whether the stream had started. */
  private handleReplicationError(message: ServerMessage): ReplicationError {
    const stage = this.hasStarted ? "Streaming" : "StartReplication"
    return refineServerError(serverError(message, stage), { ...this.options.context, stage })
  }

  /** A notice as it is; or as what is to be asked about before anything else is decoded. */
  private decodeNotice(notices: Array<ServerMessage>): Warning | undefined {
    const { bytes, end, start } = this.frames
    const notice = BackendMessage.decodeServerMessage(this.reader.reset(bytes, start, end))
    if (this.hasStarted && isAskedAbout(notice)) return { notice, rest: this.frames.copyRest() }
    notices.push(notice)
    return undefined
  }

  /** Gives a decoder's error the LSN of the message it stumbled over, when that message has one. */
  private locate(error: DecodeError): DecodeError {
    if (error.lsn !== undefined || this.isFraming || !this.isXLogData()) return error
    const { bytes, end, start } = this.frames
    const offset = error.offset - start
    const lsn = ByteReader.over(bytes)
      .reset(bytes, start + 1, end)
      .lsn()
    return new DecodeError({ problem: error.problem, offset, lsn })
  }

  /** Compares the last packet's time of sending with its transaction's commit: no clock of ours is asked. */
  private updateBehind(): void {
    const committed = this.decoder.lastCommitTime
    if (!this.isXLogData()) {
      this.behind = 0
      this.sent = this.isKeepAlive() ? this.sendTime(keepAliveTimeOffset) : undefined
    } else {
      this.sent = this.sendTime(sendTimeOffset)
      if (committed !== undefined) this.behind = (this.sent - committed) / 1000
    }
  }
}
