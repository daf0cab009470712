/**
 * One request, its worker, the stream and the target, between a server that is written to and a store: all that decides which
 * rows the target ends with. Phases, keys that are noted, chunks and the ledger are the real ones; the rest is the model.
 *
 * The worker's steps are those of `Worker.ts`, cut wherever it waits for the server or the stream. The target keeps the place
 * up to which it has the stream together with its rows, and passes over what comes again.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Change, Row } from "../../../src/change/Change.ts"
import { NextLsn, Run } from "../../../src/change/NextLsn.ts"
import * as Lsn from "../../../src/Lsn.ts"
import { SnapshotLedger } from "../../../src/rereading/Ledger.ts"
import { initial, type Phase, type PhaseEvent, type TableReading, touchedOf } from "../../../src/rereading/Phase.ts"
import { SnapshotCancelled } from "../../../src/rereading/RequestError.ts"
import type { Chunk } from "../../../src/rereading/TableReader.ts"
import { TouchedKeys } from "../../../src/rereading/TouchedKeys.ts"
import type { TableSnapshotCompleted } from "../../../src/snapshot/TableSnapshotChange.ts"
import { isVisible } from "../../../src/snapshot/TransactionSnapshot.ts"
import type { Client } from "./Client.ts"
import { copyOfKeys, copyOfLedger } from "./copy.ts"
import { type Commit, relationOf, Server } from "./Server.ts"
import { applyChange, type Target, textOf } from "./Target.ts"

const faultKinds = ["Pause", "CutReader", "Disconnect", "Crash", "Rerun", "Gap", "Alter", "Cancel"] as const
export type Fault = (typeof faultKinds)[number]

/** Without one of these to come it makes no difference what was acknowledged. */
const asksWhatIsDurable = (fault: Fault): boolean => fault === "Crash" || fault === "Rerun" || fault === "Disconnect"

export const isFault = ({ _tag }: Action): boolean => faultKinds.some((kind) => kind === _tag)

export type Action =
  | { readonly _tag: "Work" | "Deliver" | "Store" | "Save" | "Confirm" | "Resume" | Fault }
  | { readonly _tag: "Commit" | "Show"; readonly index: number }

export interface Scenario {
  /** The rows of the table, by their keys, in order. */
  readonly rows: string
  /** What is written: see `Server.ts`. */
  readonly script: string
  /** Which faults may happen, each once for each time it is named. */
  readonly faults?: ReadonlyArray<Fault> | undefined
  /** Whether all is acknowledged as soon as it is handed over, which leaves fewer states; else some time, or never. */
  readonly isPrompt?: boolean | undefined
  /** Rows of a chunk: 1. */
  readonly chunk?: number | undefined
  /** What is noted at most: see `TouchedKeys`. */
  readonly maxBytes?: number | undefined
}

export interface Violation {
  readonly law: "completed" | "end" | "cancelled" | "progress"
  readonly problem: string
}

/** A mark on its way, with what stands at its place. */
type Awaited = {
  readonly content: string
  readonly what: Began | { readonly _tag: "Followed" } | { readonly _tag: "Chunk"; readonly chunk: Chunk }
}
interface Began {
  readonly _tag: "Began"
  readonly shape: number
}

type Worker =
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Described"; readonly shape: number; readonly xmax: bigint }
  | { readonly _tag: "Asking"; readonly xmax: bigint }
  | { readonly _tag: "Read"; readonly chunk: Chunk }
  | { readonly _tag: "Waiting" }
  | { readonly _tag: "Completed"; readonly end: TableSnapshotCompleted }

/** More than any of these requests takes. */
const mostMarks = 60

const ready: Worker = { _tag: "Ready" }

const name = { schema: "public", name: "t" }
const run = new Run()
const shapeText = (shape: number) => `shape ${shape}`
const positionLsn = (position: number) => Lsn.make(BigInt(10 * position + 1))!

export class World {
  readonly client: Client
  readonly scenario: Scenario
  server: Server
  faults: ReadonlyArray<Fault>
  // What outlives the process: the slot's place, from where on a slot has WAL, the store, and what the target has made durable.
  confirmed = 0
  slotStart = 0
  stored: string | undefined
  durable: Target = { rows: new Map(), position: 0 }
  // The process.
  cursor = 0
  isGapTold = true
  target: Target = this.durable
  settled = 0
  ledger: SnapshotLedger
  job: { request: { id: string; table: typeof name; where: undefined }; isPaused: boolean; phase: Phase }
  worker: Worker = ready
  awaited: ReadonlyArray<Awaited> = []
  marks = 0
  /** Of the order in which the first beginning was asked about: see `asksEarly`. */
  early: bigint | undefined
  isCancelled = false
  violation: Violation | undefined

  constructor(scenario: Scenario, client: Client) {
    this.scenario = scenario
    this.client = client
    this.server = new Server(scenario.rows, scenario.script)
    this.faults = scenario.faults ?? []
    this.ledger = this.newLedger()
    this.job = this.newJob()
    this.ledger.add(this.job)
    this.save()
  }

  private newJob(): World["job"] {
    return { request: { id: "1", table: name, where: undefined }, isPaused: false, phase: initial }
  }

  /** The store that a ledger of this world writes to. */
  private get store(): ConstructorParameters<typeof SnapshotLedger>[0] {
    if (this.scenario.faults?.some((fault) => fault === "Crash" || fault === "Rerun") !== true) return undefined
    const set = (text: string | undefined) =>
      Effect.sync(() => {
        this.stored = text
      })
    return {
      load: () => Effect.sync(() => Option.fromUndefinedOr(this.stored)),
      save: (_: string, text: string) => set(text),
      remove: () => set(undefined)
    } as ConstructorParameters<typeof SnapshotLedger>[0]
  }

  private newLedger(): SnapshotLedger {
    return new SnapshotLedger(this.store, "slot")
  }

  /** A copy that shares nothing that is changed in place. */
  clone(): World {
    const copy = Object.assign(Object.create(World.prototype) as World, this)
    copy.server = this.server.clone()
    const keys = touchedOf(this.job.phase)
    const phaseOf = (phase: Phase, touched: TouchedKeys): Phase =>
      phase._tag === "Ended"
        ? { ...phase, before: phaseOf(phase.before, touched) as never }
        : phase._tag === "Idle"
          ? phase
          : { ...phase, touched }
    copy.job = {
      ...this.job,
      phase: keys === undefined ? this.job.phase : phaseOf(this.job.phase, copyOfKeys(keys))
    }
    copy.ledger = copyOfLedger(this.ledger, copy.job, copy.store)
    return copy
  }

  /** Equal for worlds that can only behave alike. */
  get key(): string {
    const { awaited, confirmed, cursor, durable, early, faults, isCancelled, isGapTold, job, settled, slotStart } = this
    const { isLocked, shape, transactions, wal } = this.server
    const { entries, undurable } = this.ledger as unknown as Record<string, unknown>
    const server = [
      isLocked,
      shape,
      wal.map((one) => [one.mark ?? one.begin.xid, one.shape]),
      transactions.map((one) => one.state)
    ]
    const process = [awaited, cursor, isGapTold, job, this.target, this.worker, early, isCancelled]
    const isAsked = faults.some(asksWhatIsDurable)
    const rest = isAsked ? [confirmed, durable, settled, slotStart, this.stored, entries, undurable] : []
    return JSON.stringify([server, process, rest, faults], (key, value: unknown) => {
      if (key === "reading" || key === "relation") return undefined
      if (value instanceof Map || value instanceof Set) return Array.from(value as Iterable<unknown>)
      return typeof value === "bigint" ? `${value}` : value
    })
  }

  /** Everything that may happen now. */
  actions(): ReadonlyArray<Action> {
    const actions: Array<Action> = []
    const { server, worker } = this
    for (const index of server.transactions.keys()) {
      if (server.canCommit(index)) actions.push({ _tag: "Commit", index })
      if (server.canShow(index)) actions.push({ _tag: "Show", index })
    }
    if (this.canWork) actions.push({ _tag: "Work" })
    if (this.canDeliver) actions.push({ _tag: "Deliver" })
    if (this.scenario.isPrompt !== true && this.faults.some(asksWhatIsDurable)) {
      // One after the other, as a handler is asked.
      if (this.confirmed >= this.durable.position && this.durable.position < this.target.position)
        actions.push({ _tag: "Store" })
      if (this.settled < this.durable.position) actions.push({ _tag: "Save" })
      if (this.confirmed < this.acknowledged) actions.push({ _tag: "Confirm" })
    }
    if (this.job.isPaused && this.isLive) actions.push({ _tag: "Resume" })
    for (const fault of new Set(this.faults)) {
      const can = {
        Pause: this.isLive && !this.job.isPaused,
        CutReader: worker._tag !== "Ready" && worker._tag !== "Completed",
        Disconnect: this.cursor > this.confirmed,
        Crash: true,
        Rerun: true,
        // What is missed after its end is none of a request's business; and of a gap twice nothing new is to be learnt.
        Gap: this.isLive && worker._tag !== "Completed" && this.slotStart === 0,
        Alter: this.isLive && worker._tag !== "Completed" && server.isAlterable,
        Cancel: this.isLive && worker._tag !== "Completed"
      }
      if (can[fault]) actions.push({ _tag: fault })
    }
    return actions
  }

  /** What the stream is told, given that the ledger says yes. */
  private get acknowledged(): number {
    return this.client.savesLate === true ? this.durable.position : this.settled
  }

  get isLive(): boolean {
    return this.job.phase._tag !== "Ended"
  }

  private get canDeliver(): boolean {
    return !this.isGapTold || this.cursor < this.server.wal.length
  }

  private get canWork(): boolean {
    const { job, server, worker } = this
    switch (worker._tag) {
      case "Waiting":
        return false
      case "Ready":
        if (job.isPaused || !this.isLive) return false
        return job.phase._tag !== "Reading" || (server.isReadable && !this.isDoneButForOthers)
      case "Asking":
        return job.phase._tag !== "AwaitingOlder" || !this.runsOlder(worker.xmax)
      default:
        return true
    }
  }

  /** All is read, and keys are to be read again that no reader sees yet. The worker would try again and again. */
  private get isDoneButForOthers(): boolean {
    const { phase } = this.job
    if (phase._tag !== "Reading" || phase.touched.rereads.size === 0) return false
    const { snapshot } = this.server
    const after = phase.reached.after?.[0] ?? ""
    const isAtEnd = !Array.from(this.server.seenBy(snapshot).keys()).some((id) => id > after)
    return isAtEnd && !Array.from(phase.touched.rereads.values()).some(({ xid }) => isVisible(snapshot, xid))
  }

  private runsOlder(xmax: bigint): boolean {
    return Array.from(this.server.snapshot.running).some((xid) => xid < xmax)
  }

  apply(action: Action): void {
    if (isFault(action)) {
      this.faults = this.faults.toSpliced(this.faults.indexOf(action._tag as Fault), 1)
    }
    switch (action._tag) {
      case "Commit":
        this.server.commit(action.index)
        return
      case "Show":
        this.server.show(action.index)
        return
      case "Work":
        this.work()
        return
      case "Deliver":
        this.deliver()
        if (this.scenario.isPrompt === true)
          for (const _tag of ["Store", "Save", "Confirm"] as const) this.apply({ _tag })
        return
      case "Store":
        this.durable = this.target
        return
      case "Save":
        this.settled = this.durable.position
        this.ledger.acknowledged(positionLsn(this.settled))
        if (this.client.savesLate !== true) this.save()
        return
      case "Confirm":
        this.confirmed = this.acknowledged
        return
      case "Pause":
        this.job.isPaused = true
        this.advance({ _tag: "Lost" })
        return
      case "Resume":
        this.job.isPaused = false
        return
      case "CutReader":
        if (this.client.takesForgotten !== true) this.awaited = []
        this.stopReading()
        return
      case "Disconnect":
        this.connect()
        return
      case "Crash":
        this.job = this.newJob()
        this.attach()
        return
      case "Rerun":
        if (this.isLive) this.advance({ _tag: "Attached" })
        else this.job = this.newJob()
        this.attach()
        return
      case "Gap":
        this.slotStart = this.server.wal.length
        this.connect()
        return
      case "Alter":
        this.server.shape = 1
        return
      case "Cancel":
        this.isCancelled = true
        this.advance({ _tag: "Ended", end: new SnapshotCancelled({ id: "1", table: name }) })
        this.ledger.remove(this.job)
        this.save()
        this.awaited = []
        this.stopReading()
        return
    }
  }

  private advance(event: PhaseEvent): void {
    const phase = this.client.next(this.job.phase, event)
    if (phase !== this.job.phase) this.job.phase = this.client.enter(phase)
  }

  private save(): void {
    if (this.client.savesNoVoid === true && this.job.phase._tag === "Idle" && this.job.phase.tally.attempt > 0) return
    Effect.runSync(this.ledger.save)
  }

  private stopReading(): void {
    this.worker = ready
    this.server.isLocked = false
  }

  /** A connection is made: the server sends from what is confirmed, or from where its new slot begins. */
  private connect(): void {
    this.cursor = this.confirmed
    this.isGapTold = this.confirmed >= this.slotStart
  }

  /** A run of the stream begins, with what is durable. */
  private attach(): void {
    this.target = this.durable
    this.settled = 0
    this.awaited = []
    this.stopReading()
    this.connect()
    this.ledger = this.newLedger()
    const [kept] = Effect.runSync(this.ledger.load)
    if (kept === undefined) {
      // It is over, and that is durable.
      if (this.isLive) this.advance({ _tag: "Ended", end: new SnapshotCancelled({ id: "1", table: name }) })
      return
    }
    if (this.isCancelled) this.fail("cancelled", "a request that was cancelled is back")
    this.job.isPaused = kept.isPaused
    const part = kept.reading === undefined ? undefined : this.client.left(kept.reading)
    this.advance({ _tag: "Adopted", attempt: kept.attempt, left: part })
    this.ledger.add(this.job, part?.reached)
    this.save()
  }

  private mark(what: Awaited["what"]): void {
    const content = `mark ${++this.marks}`
    if (this.marks > mostMarks) this.fail("progress", "the request is read for ever")
    this.server.mark(content)
    this.awaited = [...this.awaited, { content, what }]
    this.worker = { _tag: "Waiting" }
  }

  private work(): void {
    const { server, worker } = this
    switch (worker._tag) {
      case "Ready":
        this.step()
        break
      case "Described":
        this.early = worker.xmax
        this.mark({ _tag: "Began", shape: worker.shape })
        break
      case "Asking":
        this.worker = ready
        if (this.job.phase._tag === "AwaitingOlder") this.job.phase.touched.read(server.snapshot)
        this.advance({ _tag: "Settled" })
        break
      case "Read":
        server.isLocked = false
        this.mark({ _tag: "Chunk", chunk: worker.chunk })
        break
      case "Completed":
        this.worker = ready
        this.advance({ _tag: "Ended", end: worker.end })
        break
      case "Waiting":
    }
    this.save()
  }

  private step(): void {
    const { server } = this
    const { phase } = this.job
    switch (phase._tag) {
      case "Idle":
      case "Kept":
        this.advance({ _tag: "Tried" })
        this.worker = { _tag: "Described", shape: server.shape, xmax: server.snapshot.xmax }
        return
      case "Lost":
        this.mark({ _tag: "Followed" })
        return
      case "AwaitingOlder": {
        const xmax = this.client.asksEarly === true ? this.early! : server.snapshot.xmax
        this.worker = { _tag: "Asking", xmax }
        return
      }
      case "Reading": {
        if (phase.shape !== shapeText(server.shape)) {
          this.advance({ _tag: "Voided" })
          return
        }
        server.isLocked = this.client.unlocksEarly !== true
        this.worker = { _tag: "Read", chunk: this.read(phase.touched, phase.reached.after?.[0] ?? "") }
        return
      }
    }
  }

  private read(touched: TouchedKeys, after: string): Chunk {
    const { snapshot } = this.server
    touched.read(snapshot)
    const asked = Array.from(touched.rereads)
      .filter(([, { xid }]) => this.client.asksUnseen === true || isVisible(snapshot, xid))
      .map(([key]) => key)
    const seen = this.server.seenBy(snapshot)
    const part = Array.from(seen.keys())
      .sort()
      .filter((id) => id > after)
      .slice(0, this.scenario.chunk ?? 1)
    const end = part.at(-1)
    return {
      snapshot,
      rows: new Map([...part, ...asked].flatMap((id) => (seen.has(id) ? [[id, seen.get(id)!] as const] : []))),
      asked,
      bytes: part.length,
      end: end === undefined ? undefined : [end]
    }
  }

  private deliver(): void {
    if (!this.isGapTold) {
      this.isGapTold = true
      this.cursor = this.slotStart
      const lsn = positionLsn(this.slotStart)
      const nextLsn = NextLsn.deliver(lsn, run)
      this.note({ _tag: "Gap", slot: "slot", reason: "missing", lastLsn: undefined, consistentPoint: lsn, nextLsn })
      if (this.worker._tag === "Waiting") this.worker = ready
      this.awaited = []
      if (this.target.position < this.cursor) this.target = { ...this.target, position: this.cursor }
      return
    }
    const commit = this.server.wal[this.cursor++]!
    this.note(commit.begin)
    const rows = new Map(this.target.rows)
    const isNew = this.target.position < this.cursor
    for (const change of commit.changes) {
      this.note(change)
      if (isNew) applyChange(rows, change)
    }
    const awaited = this.awaited.find(({ content }) => content === commit.mark)
    if (awaited !== undefined) this.arrive(awaited, commit, rows)
    if (isNew) this.target = { rows, position: this.cursor }
  }

  private note(change: Change): void {
    if (!this.isLive) return
    const event = this.client.note(this.job.phase, change)
    if (event !== undefined) this.advance(event)
  }

  /** A mark is there: what stands at its place is handed over. */
  private arrive({ content, what }: Awaited, commit: Commit, rows: Map<string, Row>): void {
    const isForgotten = this.awaited.at(-1)?.content !== content
    this.awaited = this.awaited.filter((one) => one.content !== content)
    if (!isForgotten && this.worker._tag === "Waiting") this.worker = ready
    switch (what._tag) {
      case "Began":
        this.begin(what, commit, rows)
        return
      case "Followed":
        this.advance(what)
        return
      case "Chunk":
        this.take(what.chunk, commit, rows)
        return
    }
  }

  private begin({ shape }: Began, { begin: { commitLsn } }: Commit, rows: Map<string, Row>): void {
    const { maxBytes = 1e6 } = this.scenario
    const relation = relationOf(shape)
    this.advance({
      _tag: "Began",
      reading: { relation } as TableReading,
      shape: shapeText(shape),
      touched: new TouchedKeys({ oid: 1, keyColumns: ["id"], maxBytes }),
      read: { id: "1", relation, where: undefined, consistentPoint: commitLsn, estimatedRows: undefined }
    })
    const { phase } = this.job
    if (phase._tag === "Idle" || phase._tag === "Kept" || phase._tag === "Ended") return
    if (phase.snapshot._tag !== "TableSnapshotStarted") return
    if (this.isCancelled) this.fail("cancelled", "a table is begun though its request was cancelled")
    if (this.client.savesNoBeginning !== true) this.ledger.begin(this.job, commitLsn)
    rows.clear()
  }

  private take(chunk: Chunk, { begin: { commitLsn }, table }: Commit, rows: Map<string, Row>): void {
    const { phase } = this.job
    if (phase._tag !== "Reading") return
    const { isLast, rows: resolved, settled } = this.client.resolve(phase, chunk)
    this.advance({ _tag: "Taken", chunk, rows: resolved.length })
    if (this.isCancelled) this.fail("cancelled", "rows are handed over though their request was cancelled")
    for (const row of resolved) rows.set(String(row.id), row)
    const { reached, snapshot } = this.job.phase as typeof phase
    this.ledger.handedOver({ job: this.job, commitLsn, reached, settled, isLast })
    if (this.client.countsHandedOver === true) this.ledger.acknowledged(Lsn.add(commitLsn, 1n)!)
    if (!isLast) return
    const { relation } = snapshot
    const end = {
      _tag: "TableSnapshotCompleted",
      snapshot,
      relation,
      rows: reached.rows,
      bytes: reached.bytes
    } as const
    this.worker = { _tag: "Completed", end }
    if (textOf(rows) !== textOf(table)) {
      this.fail("completed", `the target has ${textOf(rows)}, and the table was ${textOf(table)}`)
    }
  }

  private fail(law: Violation["law"], problem: string): void {
    this.violation ??= { law, problem }
  }

  /** From here on nothing goes wrong, and all goes on. Spends this world. */
  finish(): void {
    this.job.isPaused = false
    this.faults = []
    for (let steps = 0; this.violation === undefined; steps++) {
      const action = this.actions()[0]
      if (action === undefined) {
        this.checkEnd()
        return
      }
      if (steps === 300) {
        this.fail("progress", "the request is read for ever")
        return
      }
      this.apply(action)
    }
  }

  /** Where nothing more happens by itself: whether the request has ended, durably, and the target is the table. */
  checkEnd(): void {
    const { phase } = this.job
    if (this.isLive) {
      this.fail("progress", `the request rests in ${phase._tag} though there is nothing to wait for`)
      return
    }
    // What an ALTER fills in is in no record, and comes with a request or not at all.
    const [rows, table] = [textOf(this.target.rows, false), textOf(this.server.rows, false)]
    if (!this.isCancelled && rows !== table)
      this.fail("end", `the target has ${rows} in the end, and the table is ${table}`)
    this.ledger.acknowledged(positionLsn(this.target.position))
    this.save()
    if (this.stored !== undefined) this.fail("progress", "the request has ended, and is kept for another process")
  }
}
