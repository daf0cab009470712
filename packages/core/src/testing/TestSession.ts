/**
 * One walsender in a copy stream: sends what its slot has not confirmed, in order; takes status updates; asks a silent
 * client for one, and gives it up; ends in good order when the server stops.
 *
 * It decides as PostgreSQL does, and speaks at once: its `Wire` is where bytes wait.
 *
 * Source: src/backend/replication/walsender.c
 */
import * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import { concat } from "../pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { ByteReader } from "../protocol/ByteReader.ts"
import { Frames } from "../protocol/Frames.ts"
import * as ReplicationMessage from "../protocol/ReplicationMessage.ts"
import { ConnectionError, DecodeError, type ReplicationError, type ServerMessage } from "../ReplicationError.ts"
import type { Started } from "./StartReplication.ts"
import { TestEncoder } from "./TestEncoder.ts"
import type { TestServer } from "./TestServer.ts"
import { decidingLsn } from "./TestWal.ts"
import type { Wire } from "./Wire.ts"

/** A status update as the server got it, and when, in milliseconds of Unix time. */
export interface StatusUpdate extends ReplicationMessage.StandbyStatusUpdate {
  readonly receivedAt: number
}

export interface TestSessionOptions {
  readonly server: TestServer
  readonly wire: Wire
  readonly started: Started
  readonly onStatus: (status: StatusUpdate) => void
  /** When it starts, in milliseconds of Unix time. */
  readonly now: number
}

const copyDoneTag = 0x63 // c
const terminateTag = 0x58 // X

export class TestSession {
  readonly slot: Started["slot"]
  isEnded = false
  private readonly server: TestServer
  private readonly wire: Wire
  private readonly started: Started
  private readonly encoder: TestEncoder
  private readonly frames = new Frames()
  private readonly onStatus: (status: StatusUpdate) => void
  private readonly startAt: Lsn.Lsn
  private cursor = 0
  private sent: Lsn.Lsn
  private written = Lsn.zero
  private flushed = Lsn.zero
  private lastReply: number
  private isPinged = false
  private hasWarned = false

  constructor({ now, onStatus, server, started, wire }: TestSessionOptions) {
    this.server = server
    this.wire = wire
    this.started = started
    this.slot = started.slot
    this.onStatus = onStatus
    this.encoder = new TestEncoder(server, started)
    this.startAt = Lsn.max(started.startLsn, this.slot.confirmedFlushLsn)
    this.sent = this.slot.confirmedFlushLsn
    this.lastReply = now
    this.push(BackendMessage.copyBothResponse, now)
    this.advance(now)
  }

  /** Sends what has been written since; then asks for nothing, but tells its position to a client that lags behind it. */
  advance(now: number): void {
    const { entries } = this.server.wal
    const sendTime = PgTimestamp.fromMillis(now)
    while (this.cursor < entries.length && !this.isEnded) {
      const entry = entries[this.cursor++]!
      this.sent = Lsn.max(this.sent, entry.endLsn)
      // What starts before the position is skipped: `SnapBuildXactNeedsSkip` compares the start of the record.
      if (entry._tag === "Unpublished" || decidingLsn(entry) < this.startAt) continue
      if (entry._tag === "Transaction" && !this.hasPublications(now)) continue
      const frames =
        entry._tag === "Transaction" ? this.encoder.transaction(entry, sendTime) : this.encoder.message(entry, sendTime)
      if (frames !== undefined) this.push(frames, now)
    }
    if (this.server.state === "stopping") this.finishStopping(now)
    else if (this.flushed < this.sent && this.written < this.sent) this.keepAlive(now, "inform")
  }

  /** From PostgreSQL 18 a publication that is not there is a warning, and its changes are left out; before, an error. */
  private hasPublications(now: number): boolean {
    const missing = this.started.publications.find((name) => !this.server.publications.has(name))
    if (missing === undefined || this.hasWarned) return true
    this.hasWarned = true
    if (this.server.serverVersion >= 180_000) {
      const message = `skipped loading publication "${missing}"`
      this.push(BackendMessage.noticeResponse({ severity: "WARNING", sqlState: "55000", message }), now)
      return true
    }
    this.fail({ severity: "ERROR", sqlState: "42704", message: `publication "${missing}" does not exist` }, now)
    return false
  }

  /** Says where it stands; `demand` wants a status update at once. */
  keepAlive(now: number, why: "inform" | "demand"): void {
    const sendTime = PgTimestamp.fromMillis(now)
    const replyRequested = why === "demand"
    const keepAlive = { walEnd: this.sent, sendTime, replyRequested }
    this.push(BackendMessage.copyData(ReplicationMessage.encodePrimaryKeepAlive(keepAlive)), now)
  }

  /** Takes what the client sends. */
  receive(bytes: Uint8Array, now: number): void {
    this.frames.push(bytes)
    try {
      while (!this.isEnded && this.frames.next()) this.receiveFrame(now)
    } catch (error) {
      const { problem } = DecodeError.caught(error)
      this.fail({ severity: "FATAL", sqlState: "08P01", message: `invalid standby message: ${problem}` }, now)
    }
  }

  private receiveFrame(now: number): void {
    const { bytes, end, start, tag } = this.frames
    if (tag === copyDoneTag) {
      const goodbye = [BackendMessage.copyDone, BackendMessage.commandComplete("COPY 0"), BackendMessage.readyForQuery]
      this.push(concat(goodbye), now)
    }
    if (tag === copyDoneTag || tag === terminateTag) {
      this.disconnect("Closed")
      return
    }
    const message = ReplicationMessage.decodeStandbyMessage(new ByteReader().reset(bytes, start, end))
    this.lastReply = now
    this.isPinged = false
    if (message._tag !== "StandbyStatusUpdate") return
    this.written = message.written
    this.flushed = message.flushed
    // Only a flush position that is not zero moves a logical slot, and never back.
    if (message.flushed > this.slot.confirmedFlushLsn) this.slot.confirmedFlushLsn = message.flushed
    this.onStatus({ ...message, receivedAt: now })
    if (message.replyRequested) this.keepAlive(now, "inform")
    this.advance(now)
  }

  /** Asks a client that has been silent for half of `wal_sender_timeout`, and leaves it after all of it. */
  watch(now: number): void {
    const { walSenderTimeout } = this.server
    if (walSenderTimeout === 0 || this.isEnded) return
    if (now - this.lastReply >= walSenderTimeout) {
      this.disconnect("Closed")
    } else if (now - this.lastReply >= walSenderTimeout / 2 && !this.isPinged) {
      this.isPinged = true
      this.keepAlive(now, "demand")
    }
  }

  /** Milliseconds until it has something to watch for; `undefined` for never. */
  nextWatch(now: number): number | undefined {
    const { walSenderTimeout } = this.server
    if (walSenderTimeout === 0) return undefined
    return Math.max(1, this.lastReply + (this.isPinged ? walSenderTimeout : walSenderTimeout / 2) - now)
  }

  /** A server that stops waits until the client has all of it, and asks for nothing else (`WalSndDone`). */
  private finishStopping(now: number): void {
    if (this.isEnded) return
    const replicated = this.flushed === Lsn.zero ? this.written : this.flushed
    if (replicated < this.sent) {
      this.keepAlive(now, "demand")
    } else {
      this.push(BackendMessage.commandComplete("COPY 0"), now)
      this.disconnect("Closed")
    }
  }

  /** An ErrorResponse, and the end. */
  fail(message: ServerMessage, now: number): void {
    this.push(BackendMessage.errorResponse(message), now)
    this.disconnect("Closed")
  }

  /** The connection ends behind what was said (`Closed`), or breaks off and loses it (`Reset`). */
  disconnect(reason: "Closed" | "Reset"): void {
    if (this.isEnded) return
    this.isEnded = true
    this.slot.activePid = undefined
    const failure: ReplicationError = new ConnectionError({
      reason,
      detail: reason === "Closed" ? "the server closed the connection" : "the connection broke"
    })
    if (reason === "Closed") this.wire.end(failure)
    else this.wire.break(failure)
  }

  private push(bytes: Uint8Array, now: number): void {
    if (this.isEnded || this.wire.push(bytes, now)) return
    this.isEnded = true
    this.slot.activePid = undefined
    this.wire.end(new ConnectionError({ reason: "Reset", detail: "the connection broke" }))
  }
}
