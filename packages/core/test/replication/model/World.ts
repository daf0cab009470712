/**
 * One slot, its server, the connection, a client and its handler: all that decides whether a transaction may be lost. The
 * client's two books are the real `WalProgress`, with real `NextLsn`s out of a real `Batch`; the rest is the model.
 *
 * Two things are left out because they change nothing, which keeps the space of states small:
 *
 * - What the server says is received when it is said: what was under way when the connection broke was never said.
 * - A report arrives at once or never: a later arrival has the same effect, as nothing the server says depends on it. Lost
 *   reports are allowed on a connection that lives on, which is more than TCP does.
 */
import { NextLsn, Run } from "../../../src/change/NextLsn.ts"
import { Batch } from "../../../src/change/OutputPlugin.ts"
import type * as Lsn from "../../../src/Lsn.ts"
import type * as WalProgress from "../../../src/replication/WalProgress.ts"
import { isUnit, origin, type Piece, type Record, type Wal } from "./Wal.ts"

/** The functions under test; a planted mistake replaces some. */
export type Laws = Pick<
  typeof WalProgress,
  | "initial"
  | "receiveWal"
  | "acknowledge"
  | "acknowledgeThrough"
  | "flushed"
  | "reportFlushed"
  | "restart"
  | "resumeLsn"
>

/** How the client is built: its laws, and whether it counts what it could not decode as received, as it must not. */
export interface Client extends Laws {
  readonly receivesUndecodable?: boolean | undefined
}

export type Action =
  | { readonly _tag: "Read"; readonly pieces: number }
  | {
      readonly _tag: "KeepAlive" | "Report" | "LoseReport" | "Checkpoint" | "Reconnect" | "CrashClient" | "CrashServer"
    }
  | { readonly _tag: "Handle" | "Acknowledge" | "AcknowledgeThrough"; readonly unit: number }

/** How many faults may still happen. */
export interface Faults {
  readonly reconnects: number
  readonly clientCrashes: number
  readonly serverCrashes: number
}

/** A unit that was delivered, with what acknowledges it. */
interface Held {
  readonly record: Record
  readonly token: NextLsn
  /** Delivered on the connection that is open; else on the one before, in the same process. */
  readonly isCurrent: boolean
}

const lsn = (position: number) => BigInt(position) as Lsn.Lsn

/** What is wrong, for good. */
export interface Violation {
  readonly property: "loss" | "report" | "progress"
  readonly problem: string
}

export class World {
  readonly wal: Wal
  readonly client: Client
  faults: Faults
  // The server: what it has confirmed, what of that a crash leaves, where it decodes, and from where it does not skip.
  confirmed = origin
  persisted = origin
  cursor = 0
  startAt = origin
  sent = origin
  // The client, and what its handler has in hand.
  progress: WalProgress.WalProgress
  held: ReadonlyArray<Held> = []
  isOpen = false
  hasFailed = false
  lastReport = 0
  /** Which units are handled, for ever: the outcome that matters. */
  handled = 0
  /** The decoder understands what it did not. */
  isMended = false
  violation: Violation | undefined = undefined

  constructor(wal: Wal, client: Client, faults: Faults) {
    this.wal = wal
    this.client = client
    this.faults = faults
    this.progress = client.initial()
  }

  isHandled(record: Record): boolean {
    return (this.handled & (1 << record.index)) !== 0
  }

  /** A copy that shares nothing that changes: tokens are objects with a life of their own, so each is made anew. */
  clone(): World {
    const copy = Object.assign(Object.create(World.prototype) as World, this)
    const run = new Run()
    const oldRun = new Run()
    const tokens = new Map<NextLsn, NextLsn>()
    copy.held = this.held.map((held) => {
      const token = NextLsn.deliver(held.token.lsn, held.isCurrent ? run : oldRun)
      if (NextLsn.isDone(held.token)) NextLsn.finish(token)
      tokens.set(held.token, token)
      return { ...held, token }
    })
    for (const [before, after] of tokens) {
      const next = NextLsn.next(before)
      if (next !== undefined) NextLsn.link(after, tokens.get(next))
    }
    const { first, last } = this.progress
    copy.progress = {
      ...this.progress,
      run,
      first: first && tokens.get(first),
      last: last && tokens.get(last)
    }
    return copy
  }

  /** Equal for worlds that can only behave alike. */
  get key(): string {
    const { durable, first, isOpen, last, pending, received, reported } = this.progress
    let key = `${this.confirmed},${this.persisted},${this.cursor},${this.startAt},${this.sent},${this.handled},${this.lastReport},${received},${durable},${reported},${pending},${isOpen ? 1 : 0}${this.isOpen ? 1 : 0}${this.hasFailed ? 1 : 0}${this.faults.reconnects}${this.faults.clientCrashes}${this.faults.serverCrashes}`
    for (const { isCurrent, record, token } of this.held) {
      const place = token === first ? (token === last ? "b" : "f") : token === last ? "l" : ""
      const linked = NextLsn.next(token) === undefined ? "" : "n"
      key += `;${record.index}${isCurrent ? "c" : "o"}${NextLsn.isDone(token) ? "d" : ""}${place}${linked}`
    }
    return key
  }

  /** The piece that comes next, past what the server skips: it reads that too, and its keep-alives tell so. */
  private nextPiece(): Piece | undefined {
    const { pieces } = this.wal
    while (this.cursor < pieces.length && this.isSkipped(pieces[this.cursor]!.record)) {
      this.sent = pieces[this.cursor++]!.record.end
    }
    return pieces[this.cursor]
  }

  /** PostgreSQL skips what has its deciding record start before the position; a block goes with its transaction. */
  private isSkipped(record: Record): boolean {
    if (record.letter === "-") return record.end <= this.startAt
    const deciding = record.letter === "[" ? this.wal.records.find(({ letter }) => letter === "S")! : record
    return deciding.start < this.startAt
  }

  /** Everything that may happen now. */
  *actions(): Generator<Action> {
    if (!this.hasFailed) {
      const left = this.wal.pieces.length - (this.nextPiece() === undefined ? this.wal.pieces.length : this.cursor)
      if (left > 0) yield { _tag: "Read", pieces: 1 }
      if (left > 1) yield { _tag: "Read", pieces: 2 }
      yield { _tag: "KeepAlive" }
    }
    for (let unit = 0; unit < this.held.length; unit++) {
      if (!this.isHandled(this.held[unit]!.record)) {
        yield { _tag: "Handle", unit }
        continue
      }
      yield { _tag: "Acknowledge", unit }
      if (this.allHandledBefore(unit)) yield { _tag: "AcknowledgeThrough", unit }
    }
    yield { _tag: "Report" }
    yield { _tag: "LoseReport" }
    if (this.persisted < this.confirmed) yield { _tag: "Checkpoint" }
    if (this.faults.reconnects > 0) yield { _tag: "Reconnect" }
    if (this.faults.clientCrashes > 0) yield { _tag: "CrashClient" }
    if (this.faults.serverCrashes > 0) yield { _tag: "CrashServer" }
  }

  /** An honest handler says "and all before it" of what is so. */
  private allHandledBefore(unit: number): boolean {
    const { isCurrent } = this.held[unit]!
    return this.held.slice(0, unit).every((held) => held.isCurrent !== isCurrent || this.isHandled(held.record))
  }

  apply(action: Action): void {
    const { client } = this
    switch (action._tag) {
      case "Read":
        this.read(action.pieces)
        break
      case "KeepAlive":
        this.keepAlive()
        break
      case "Handle":
        this.handled |= 1 << this.held[action.unit]!.record.index
        break
      case "Acknowledge":
        this.progress = client.acknowledge(this.progress, this.held[action.unit]!.token)
        break
      case "AcknowledgeThrough":
        this.progress = client.acknowledgeThrough(this.progress, this.held[action.unit]!.token)
        break
      case "Report":
      case "LoseReport": {
        const flushed = this.report()
        if (action._tag === "Report" && flushed > this.confirmed) this.confirmed = flushed
        this.checkConfirmed(this.confirmed, "confirmed")
        break
      }
      case "Checkpoint":
        this.persisted = this.confirmed
        break
      case "Reconnect":
        this.faults = { ...this.faults, reconnects: this.faults.reconnects - 1 }
        this.reconnect()
        break
      case "CrashServer":
        this.faults = { ...this.faults, serverCrashes: this.faults.serverCrashes - 1 }
        this.confirmed = this.persisted
        this.reconnect()
        break
      case "CrashClient":
        this.faults = { ...this.faults, clientCrashes: this.faults.clientCrashes - 1 }
        this.progress = client.initial()
        this.lastReport = 0
        this.held = []
        this.connect(0)
        break
    }
  }

  /** One read of this many pieces: entered before the handler has any of it. */
  private read(pieces: number): void {
    let received = 0
    const batch = new Batch(this.progress.run)
    const held = [...this.held]
    for (let read = 0; read < pieces; read++) {
      const piece = this.nextPiece()
      if (piece === undefined) break
      const { record, says } = piece
      if (record.letter === "X" && !this.isMended) {
        if (this.client.receivesUndecodable === true) received = record.end
        this.hasFailed = true
        this.isOpen = false
        break
      }
      this.cursor++
      const isEnd = says === "End"
      this.isOpen = says === "Begin" || says === "BlockStart"
      if (isEnd || says === "BlockEnd" || says === "Nothing") this.sent = record.end
      // Unpublished work is told by no message: only a keep-alive tells how far the server has come.
      if (says !== "Nothing") received = Math.max(received, isEnd ? record.ack : record.start)
      if (isEnd) held.push({ record, token: batch.deliver(lsn(record.ack)), isCurrent: true })
    }
    this.held = held
    const { delivered } = batch
    this.progress = this.client.receiveWal(this.progress, { received: lsn(received), isOpen: this.isOpen, delivered })
  }

  /**
   * PostgreSQL's keep-alive says what is sent. The documentation promises no more than "the current end of WAL", so this
   * server tells, in the middle of a transaction, the end of the record that it is sending.
   */
  private keepAlive(): void {
    const current = this.isOpen ? this.wal.pieces[this.cursor]!.record.end : this.sent
    const received = lsn(Math.max(current, this.sent))
    this.progress = this.client.receiveWal(this.progress, { received, isOpen: this.isOpen, delivered: [] })
  }

  private report(): number {
    const { received, reported } = this.progress
    const flushed = this.client.flushed(this.progress)
    this.progress = this.client.reportFlushed(this.progress, flushed)
    if (flushed < this.lastReport) this.fail("report", `a report went back from ${this.lastReport} to ${flushed}`)
    if (flushed > received && flushed > reported) {
      this.fail("report", `a report of ${flushed} passed ${received}, all that was received`)
    }
    this.lastReport = Number(flushed)
    return Number(flushed)
  }

  /** The connection breaks, and the same process makes another. */
  private reconnect(): void {
    this.held = this.held.filter(({ isCurrent }) => isCurrent).map((held) => ({ ...held, isCurrent: false }))
    this.progress = this.client.restart(this.progress)
    this.connect(Number(this.client.resumeLsn(this.progress)))
  }

  private connect(startLsn: number): void {
    this.isOpen = false
    this.hasFailed = false
    this.startAt = Math.max(startLsn, this.confirmed)
    this.sent = origin
    this.cursor = 0
    this.nextPiece()
    this.checkConfirmed(this.startAt, "skipped up to")
  }

  /** The law of laws: what no handler has handled is never below the position from which the server sends again. */
  private checkConfirmed(position: number, what: string): void {
    for (const record of this.wal.records) {
      if (isUnit(record) && record.start < position && !this.isHandled(record)) {
        this.fail("loss", `${record.name} at ${record.start} was never handled, and all is ${what} ${position}`)
      }
    }
  }

  private fail(property: Violation["property"], problem: string): void {
    this.violation ??= { property, problem }
  }

  /**
   * From here on nothing goes wrong, the decoder is mended, and every unit is handled and acknowledged: whether all of
   * the WAL ends up handled and confirmed. Spends this world.
   */
  finish(): void {
    this.isMended = true
    if (this.hasFailed) this.reconnect()
    while (this.nextPiece() !== undefined) this.read(1)
    for (const { isCurrent, record, token } of this.held) {
      if (!isCurrent) continue
      this.handled |= 1 << record.index
      this.progress = this.client.acknowledge(this.progress, token)
    }
    this.keepAlive()
    this.apply({ _tag: "Report" })
    const missed = this.wal.records.find((record) => isUnit(record) && !this.isHandled(record))
    if (missed !== undefined) this.fail("progress", `${missed.name} is never handled, though all goes well from here`)
    if (this.confirmed !== this.wal.end) {
      this.fail("progress", `confirmed up to ${this.confirmed} of ${this.wal.end}, though all is handled`)
    }
  }
}
