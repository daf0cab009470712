/**
 * Changes -> messages, with the ends of units among them. Pure; one reader serves one session.
 *
 * A change is held back until the next one has come, as the last of a transaction says that it is. What follows always comes:
 * a transaction ends with its `Commit`, and nothing of it can be acknowledged before.
 */
import type { Begin, Change, Delete, Insert, Row, Truncate, Update } from "../change/Change.ts"
import { changeId } from "../change/ChangeId.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import { isKeyed, keyColumns, type Relation } from "../change/Relation.ts"
import * as Lsn from "../Lsn.ts"
import type { ChangeAfterSnapshot, SnapshotBeginning } from "../snapshot/SnapshotChange.ts"
import type { Encoder, Event, Message, Op, Origin, Source } from "./Message.ts"
import * as Place from "./Place.ts"
import type { Route, Subject } from "./Route.ts"
import { encodeValue } from "./ValueJson.ts"

/** How changes become messages. */
export interface ReaderOptions {
  readonly source: Source
  readonly route: Route
  readonly encode: Encoder
  /** Behind each deletion a message of its key without a value, for logs that are compacted. */
  readonly tombstones: boolean
  /** Each transaction ends with a message of op `e`. */
  readonly ends: boolean
  /** Whether the engine has this place already: such a message is neither made nor counted. */
  readonly holds: (id: string) => boolean
}

/** What comes of a read: messages, and of units that end behind so many of them what acknowledges them. */
export interface Output {
  readonly messages: Array<Message>
  readonly ends: Array<{ readonly behind: number; readonly nextLsn: NextLsn }>
}

/** An event that is not placed in its transaction yet: all but the last. */
type Unplaced = Omit<Event, "isLast" | "source">

const noColumns: ReadonlyArray<string> = []

interface Keyed {
  readonly columns: ReadonlyArray<string>
}

const keyOf = ({ columns }: Keyed, row: Row, other: Row | undefined): Row | undefined => {
  const key: Record<string, unknown> = {}
  for (const column of columns) {
    const value = row[column] === undefined ? other?.[column] : row[column]
    if (value === undefined) return undefined
    if (column === "__proto__") Object.defineProperty(key, column, { value, enumerable: true })
    else key[column] = value
  }
  return key
}

/** Key values as a JSON array of texts: one form whatever their type. */
const keyText = (key: Row): string =>
  `[${Object.values(key)
    .map((value) => {
      const text = encodeValue(value)
      return text.startsWith('"') ? text : JSON.stringify(text)
    })
    .join(",")}]`

export class MessageReader {
  private readonly options: ReaderOptions
  private readonly keys = new WeakMap<Relation, Keyed>()
  private readonly routes = new WeakMap<Relation, { readonly to: string | undefined }>()
  private readonly control: string | undefined
  private origin: Origin | undefined
  /** Its commit's, as it stands in places. */
  private commitLsn = ""
  private held: Unplaced | undefined
  /** Messages of this transaction; and rows, which have no ordinal of their own. */
  private count = 0
  private rows = 0
  /** Elements of the first copy under this seam. */
  private seam: Lsn.Lsn = Lsn.zero
  private copied = 0
  private out: Output = { messages: [], ends: [] }

  constructor(options: ReaderOptions) {
    this.options = options
    this.control = options.route({ kind: "control" })
  }

  /** What these changes become. */
  read(changes: ReadonlyArray<ChangeAfterSnapshot>): Output {
    this.out = { messages: [], ends: [] }
    for (const change of changes) this.take(change)
    return this.out
  }

  private take(change: ChangeAfterSnapshot): void {
    switch (change._tag) {
      case "Begin":
        this.begin(change)
        break
      case "Insert":
        this.row("c", change, change.row, undefined)
        break
      case "Update":
        this.update(change)
        break
      case "Delete":
        this.row("d", change, undefined, change.old.row)
        break
      case "Truncate":
        this.truncate(change)
        break
      case "Commit":
        this.place(true)
        if (this.options.ends && this.count > 0)
          this.emit(this.alone("e", changeId(change), { _tag: "End", count: this.count }), this.control)
        this.origin = undefined
        this.end(change.nextLsn)
        break
      case "Message":
        this.message(change)
        break
      case "Gap":
        this.emit(
          {
            ...this.alone("g", Lsn.formatSortable(change.consistentPoint), change),
            origin: at(change.consistentPoint)
          },
          this.control
        )
        this.end(change.nextLsn)
        break
      case "SnapshotRow":
        this.copy("r", change.snapshot, change.relation, change.row)
        break
      case "SnapshotRowDeleted":
        this.copy("d", change.snapshot, change.relation, undefined, change.old.row)
        break
      case "SnapshotStarted":
      case "SnapshotResumed":
        this.seam = change.consistentPoint
        this.copied = 0
        this.snapshot(change, change._tag === "SnapshotStarted" ? "started" : "resumed")
        break
      case "SnapshotCompleted":
        this.snapshot(change.snapshot, "completed")
        break
      case "SnapshotTableRestarted":
        this.table(change.relation, "restarted")
        break
      case "SnapshotTableCompleted":
        this.table(change.relation, "completed")
        break
      case "TableSnapshotStarted":
        this.table(change.relation, "started")
        break
      case "TableSnapshotResumed":
        this.table(change.relation, "resumed")
        break
      case "TableSnapshotCompleted":
        this.table(change.relation, "completed")
        break
      // Nothing that a reader of rows would act on; what is prepared is refused before (`SinkHandler`).
      case "SnapshotRangeCompleted":
      case "Origin":
      case "RelationChanged":
      case "Prepare":
      case "CommitPrepared":
      case "RollbackPrepared":
    }
  }

  private begin({ commitLsn, commitTime, xid }: Begin): void {
    this.origin = { lsn: commitLsn, time: commitTime, xid }
    this.commitLsn = Lsn.formatSortable(commitLsn)
    this.count = 0
    this.rows = 0
  }

  private keyed(relation: Relation): Keyed {
    let keyed = this.keys.get(relation)
    if (keyed === undefined) {
      keyed = { columns: isKeyed(relation) ? keyColumns(relation) : noColumns }
      this.keys.set(relation, keyed)
    }
    return keyed
  }

  private key(relation: Relation, row: Row, other: Row | undefined): Row | undefined {
    const keyed = this.keyed(relation)
    return keyed.columns.length === 0 ? undefined : keyOf(keyed, row, other)
  }

  private row(op: Op, change: Insert | Update | Delete, after: Row | undefined, old: Row | undefined): void {
    const { ordinal, relation } = change
    const unchanged = change._tag === "Delete" ? noColumns : change.unchanged
    const before = change._tag !== "Insert" && change.old?._tag === "Full" ? change.old.row : undefined
    const key = this.key(relation, (after ?? old)!, after === undefined ? undefined : old)
    // As `changeId` has it, of which one part is the same for all of a transaction.
    const id = Place.behind(this.commitLsn, ordinal)
    this.hold({ op, id, origin: this.origin!, ordinal, relation, key, after, before, unchanged })
  }

  /** A row that moves to another key is deleted under the one and created under the other: so each key tells its own story. */
  private update(change: Update): void {
    const { old, relation, row } = change
    const from = old === undefined ? undefined : this.key(relation, old.row, undefined)
    const to = this.key(relation, row, old?.row)
    if (from === undefined || to === undefined || keyText(from) === keyText(to)) this.row("u", change, row, old?.row)
    else this.move(change, from, to)
  }

  private move(change: Update, from: Row, to: Row): void {
    const { relation, row } = change
    const id = changeId(change)
    const both = { origin: this.origin!, ordinal: change.ordinal, relation }
    const gone = {
      ...both,
      op: "d" as const,
      id,
      key: from,
      after: undefined,
      before: full(change),
      unchanged: noColumns
    }
    this.hold(gone)
    // With its tombstone, if it has one, it is of two parts.
    const index = this.options.tombstones ? 2 : 1
    const { unchanged } = change
    this.hold({ ...both, op: "c", id: Place.part(id, index), key: to, after: row, before: undefined, unchanged })
  }

  private truncate(change: Truncate): void {
    const { ordinal, relations } = change
    for (const [index, relation] of relations.entries()) {
      const id = Place.part(changeId(change), index)
      this.hold({ ...this.alone("t", id, change), origin: this.origin!, ordinal, relation })
    }
  }

  private message(change: Extract<Change, { readonly _tag: "Message" }>): void {
    const event = this.alone("m", changeId(change), change)
    const { nextLsn } = change
    if (nextLsn === undefined) {
      this.hold({ ...event, origin: this.origin!, ordinal: change.ordinal })
      return
    }
    this.emit({ ...event, origin: at(change.lsn) }, this.options.route({ kind: "message", prefix: change.prefix }))
    this.end(nextLsn)
  }

  /** A row of a first copy stands before its seam; of a table that is read anew it is one of its transaction. */
  private copy(
    op: Op,
    { consistentPoint }: { readonly consistentPoint: Lsn.Lsn },
    relation: Relation,
    after: Row | undefined,
    old?: Row
  ): void {
    const key = this.key(relation, (after ?? old)!, undefined)
    const rest = { op, relation, key, after, before: undefined, unchanged: noColumns }
    if (this.origin === undefined) {
      const id = Place.before(this.seam, this.copied++)
      this.emit({ ...rest, id, origin: at(consistentPoint), ordinal: undefined }, this.to(relation))
    } else {
      const ordinal = this.rows++
      this.hold({ ...rest, id: Place.within(this.origin.lsn, ordinal), origin: this.origin, ordinal })
    }
  }

  private snapshot(of: SnapshotBeginning, state: "started" | "resumed" | "completed"): void {
    const id = Place.before(this.seam, this.copied++)
    this.emit({ ...this.alone("s", id, { _tag: "Snapshot", state, of }), origin: at(of.consistentPoint) }, this.control)
  }

  private table(relation: Relation, state: "started" | "resumed" | "restarted" | "completed"): void {
    const { origin } = this
    const detail = { _tag: "Table", state } as const
    if (origin === undefined) {
      const event = this.alone("s", Place.before(this.seam, this.copied++), detail)
      this.emit({ ...event, origin: at(this.seam), relation }, this.control)
      return
    }
    const ordinal = this.rows++
    this.hold({ ...this.alone("s", Place.within(origin.lsn, ordinal), detail), origin, ordinal, relation })
  }

  /** An event of no row. */
  private alone(op: Op, id: string, detail: Event["detail"]): Unplaced {
    const none = { relation: undefined, key: undefined, after: undefined, before: undefined, unchanged: noColumns }
    return { ...none, op, id, origin: this.origin ?? at(Lsn.zero), ordinal: undefined, detail }
  }

  private hold(event: Unplaced): void {
    this.place(false)
    this.held = event
  }

  /** The one that is held back goes its way, now that it is known whether another follows. */
  private place(isLast: boolean): void {
    const { held } = this
    if (held === undefined) return
    this.held = undefined
    this.count++
    this.emit(held, this.toOf(held), isLast)
  }

  private toOf({ detail, op, relation }: Unplaced): string | undefined {
    if (op === "s") return this.control
    if (relation !== undefined) return this.to(relation)
    return detail?._tag === "Message" ? this.options.route({ kind: "message", prefix: detail.prefix }) : this.control
  }

  private to(relation: Relation): string | undefined {
    let route = this.routes.get(relation)
    if (route === undefined) {
      const subject: Subject = { kind: "row", schema: relation.schema, table: relation.name }
      route = { to: this.options.route(subject) }
      this.routes.set(relation, route)
    }
    return route.to
  }

  private emit(unplaced: Unplaced, to: string | undefined, isLast = false): void {
    if (to === undefined) return
    const { encode, holds, source, tombstones } = this.options
    const { id, op } = unplaced
    const key = unplaced.key === undefined ? undefined : keyText(unplaced.key)
    const systemId = source.system?.systemId
    if (!holds(id)) {
      this.out.messages.push({ id, systemId, op, to, key, value: encode({ ...unplaced, isLast, source }) })
    }
    if (op !== "d" || !tombstones || key === undefined) return
    const tombstone = Place.part(id, 1)
    if (!holds(tombstone)) this.out.messages.push({ id: tombstone, systemId, op, to, key, value: undefined })
  }

  private end(nextLsn: NextLsn): void {
    this.out.ends.push({ behind: this.out.messages.length, nextLsn })
  }
}

const full = ({ old }: Update): Row | undefined => (old?._tag === "Full" ? old.row : undefined)

const at = (lsn: Lsn.Lsn): Origin => ({ lsn, xid: undefined, time: undefined })
