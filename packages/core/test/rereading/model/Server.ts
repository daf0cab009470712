/**
 * The server of the model: one table, transactions that are in the WAL before others see them, row locks, the reader's table
 * lock, marks, and an ALTER that is told by no record. A script says what is written:
 *
 * - `ua` updates the row a and leaves its big value alone, `Ua` writes that too; `ma>b` and `Ma>b` move it to another key as well;
 * - `da` deletes, `ia` inserts, `t` truncates;
 * - statements of one transaction are joined by `+`, transactions parted by spaces; one under `!` has begun before all.
 */
import type { Begin, Change, Row } from "../../../src/change/Change.ts"
import type * as Relation from "../../../src/change/Relation.ts"
import * as Lsn from "../../../src/Lsn.ts"
import * as PgTimestamp from "../../../src/PgTimestamp.ts"
import { isVisible, type TransactionSnapshot } from "../../../src/snapshot/TransactionSnapshot.ts"

export type Rows = ReadonlyMap<string, Row>

/** What a statement did to the table, with the row as a whole. */
interface Effect {
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly row?: Row | undefined
}

/** A commit in the WAL: of a transaction, or of a mark and nothing else. */
export interface Commit {
  readonly begin: Begin
  readonly changes: ReadonlyArray<Change>
  readonly effects: ReadonlyArray<Effect | "truncate">
  readonly mark: string | undefined
  readonly shape: number
  /** The table where it was committed, as a reader that sees all would have it. */
  readonly table: Rows
}

type State = "unborn" | "open" | "committed" | "shown"

interface Transaction {
  readonly statements: ReadonlyArray<string>
  readonly xid: number
  readonly state: State
  readonly keys: ReadonlySet<string>
}

const columns = ["id", "note", "big", "more"].map((name) => ({
  name,
  isKey: name === "id",
  typeOid: 25,
  typeName: "text",
  typeModifier: -1
}))

export const relationOf = (shape: number): Relation.Relation => ({
  oid: 1,
  schema: "public",
  name: "t",
  replicaIdentity: "default",
  columns: columns.slice(0, 3 + shape)
})

/** A row that an ALTER has added a column to, as everybody sees it from then on. */
const altered = (row: Row, shape: number): Row => (shape === 0 ? row : { ...row, more: "7" })

const lay = (rows: Map<string, Row>, effects: Commit["effects"]): void => {
  for (const effect of effects) {
    if (effect === "truncate") rows.clear()
    else {
      if (effect.from !== undefined) rows.delete(effect.from)
      if (effect.to !== undefined) rows.set(effect.to, effect.row!)
    }
  }
}

export class Server {
  readonly start: Rows
  rows: Rows
  wal: ReadonlyArray<Commit> = []
  transactions: ReadonlyArray<Transaction>
  xmax = 100
  /** How often it was altered. */
  shape = 0
  /** Whether the reader holds the table. */
  isLocked = false

  constructor(ids: string, script: string) {
    this.start = new Map([...ids].map((id) => [id, { id, note: "0", big: `big ${id}` }]))
    this.rows = this.start
    this.transactions = (script === "" ? [] : script.split(" ")).map((text) => ({
      statements: text.replace("!", "").split("+"),
      xid: text.startsWith("!") ? this.xmax++ : 0,
      state: text.startsWith("!") ? "open" : "unborn",
      keys: new Set(text.includes("t") ? ["*"] : text.match(/(?<=[a-z>])[a-z]/gi))
    }))
  }

  /** Shares what is never changed in place, which is everything. */
  clone(): Server {
    return Object.assign(Object.create(Server.prototype) as Server, this)
  }

  get snapshot(): TransactionSnapshot {
    const running = this.transactions.filter(({ state }) => state === "open" || state === "committed")
    const xids = running.map(({ xid }) => xid)
    return { xmin: BigInt(Math.min(this.xmax, ...xids)), xmax: BigInt(this.xmax), running: new Set(xids.map(BigInt)) }
  }

  /** The table as a reader sees it. */
  seenBy(snapshot: TransactionSnapshot): Rows {
    const rows = new Map(this.start)
    for (const { begin, effects } of this.wal) if (isVisible(snapshot, begin.xid)) lay(rows, effects)
    return new Map(Array.from(rows, ([id, row]) => [id, altered(row, this.shape)]))
  }

  private get unseen(): ReadonlyArray<Transaction> {
    return this.transactions.filter(({ state }) => state === "committed")
  }

  /** TRUNCATE keeps readers out until it is seen. */
  get isReadable(): boolean {
    return !this.unseen.some(({ keys }) => keys.has("*"))
  }

  /** ALTER needs the table for itself. */
  get isAlterable(): boolean {
    return !this.isLocked && this.shape === 0 && this.unseen.length === 0
  }

  canCommit(index: number): boolean {
    const { keys, state } = this.transactions[index]!
    if (state !== "unborn" && state !== "open") return false
    // In the script's order, save one that had begun.
    if (state === "unborn" && this.transactions.slice(0, index).some((other) => other.state === "unborn")) return false
    if (keys.has("*")) return !this.isLocked && this.unseen.length === 0
    return this.unseen.every((other) => !other.keys.has("*") && !Array.from(keys).some((key) => other.keys.has(key)))
  }

  canShow(index: number): boolean {
    return this.transactions[index]!.state === "committed"
  }

  commit(index: number): void {
    const transaction = this.transactions[index]!
    const xid = transaction.state === "open" ? transaction.xid : this.xmax++
    const begin = this.begin(xid)
    const changes: Array<Change> = []
    const effects: Array<Effect | "truncate"> = []
    const rows = new Map(this.rows)
    for (const [ordinal, statement] of transaction.statements.entries()) {
      const done = this.run(rows, statement, begin, ordinal)
      if (done === undefined) continue
      changes.push(done.change)
      effects.push(done.effect)
      lay(rows, [done.effect])
    }
    this.rows = rows
    this.append({ begin, changes, effects, mark: undefined })
    this.transactions = this.transactions.with(index, { ...transaction, xid, state: "committed" })
  }

  show(index: number): void {
    this.transactions = this.transactions.with(index, { ...this.transactions[index]!, state: "shown" })
  }

  mark(content: string): void {
    this.append({ begin: this.begin(this.xmax++), changes: [], effects: [], mark: content })
  }

  private begin(xid: number): Begin {
    const commitLsn = Lsn.make(BigInt(10 * (this.wal.length + 1)))!
    return { _tag: "Begin", xid, commitLsn, commitTime: PgTimestamp.make(0) }
  }

  private append(commit: Omit<Commit, "table" | "shape">): void {
    const table = new Map(Array.from(this.rows, ([id, row]) => [id, altered(row, this.shape)]))
    this.wal = [...this.wal, { ...commit, shape: this.shape, table }]
  }

  private run(rows: Rows, statement: string, begin: Begin, ordinal: number) {
    const relation = relationOf(this.shape)
    const common = { begin, ordinal, relation }
    const [kind, id = "", , to = id] = statement
    if (kind === "t") {
      const change: Change = {
        _tag: "Truncate",
        begin,
        ordinal,
        relations: [relation],
        cascade: false,
        restartIdentity: false
      }
      return { change, effect: "truncate" as const }
    }
    const before = rows.get(id)
    const note = `${begin.xid}.${ordinal}`
    if (kind === "i") {
      if (before !== undefined) return undefined
      const row = { id, note, big: `big ${note}` }
      const change: Change = { _tag: "Insert", ...common, row: altered(row, this.shape), unchanged: [] }
      return { change, effect: { to: id, row } }
    }
    if (before === undefined || (to !== id && rows.has(to))) return undefined
    if (kind === "d") {
      const change: Change = { _tag: "Delete", ...common, old: { _tag: "Key", row: { id } } }
      return { change, effect: { from: id } }
    }
    const isWhole = kind === "U" || kind === "M"
    const told = { id: to, note, ...(isWhole ? { big: `big ${note}` } : {}) }
    const change: Change = {
      _tag: "Update",
      ...common,
      row: altered(told, this.shape),
      unchanged: isWhole ? [] : ["big"],
      old: to === id ? undefined : { _tag: "Key", row: { id } }
    }
    return { change, effect: { from: id, to, row: { ...before, ...told } } }
  }
}
