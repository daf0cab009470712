/**
 * Out of wal2json's messages, whatever their format, the same changes as from any other plugin; and the guard that they
 * come as they must: a change between its begin and its commit, and no begin within another.
 *
 * It owns what it makes. What wal2json does not tell is said where it shows: `truncate`, `origin`, `old`.
 */
import type { Begin, Change, FullRow, KeyRow, Row } from "../change/Change.ts"
import type { Batch } from "../change/OutputPlugin.ts"
import type { Relation } from "../change/Relation.ts"
import * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import { DecodeError } from "../ReplicationError.ts"
import type { Types } from "../values/TypeDecoder.ts"
import { type TableShape, TableShapes } from "./TableShapes.ts"
import { type Column, commitTime, type Envelope, type RowMessage, type Value } from "./Wal2JsonMessage.ts"

/** What a message outside its place, or one that contradicts another, fails with. */
export const refuse: (problem: string) => never = (problem) => {
  throw new DecodeError({ problem, offset: 0 })
}

/** A transaction under way. */
interface Open {
  readonly begin: Begin
  readonly xid: string
  readonly endLsn: Lsn.Lsn
}

/** The tables of one TRUNCATE so far: format 2 tells of each by itself, all at one LSN. */
interface OpenTruncate {
  readonly lsn: Lsn.Lsn
  readonly relations: Array<Relation>
}

/** A table that was truncated; `lsn` is that of the statement's record. */
export interface TableMessage {
  readonly schema: string
  readonly table: string
  readonly lsn: Lsn.Lsn
}

/** What `pg_logical_emit_message` wrote; `lsn` is the end of its record. */
export interface EmittedMessage {
  readonly prefix: string
  readonly content: Uint8Array
  readonly lsn: Lsn.Lsn
}

export interface ChangeAssemblerOptions {
  readonly types: Types
  readonly includeOrigin: boolean
  /** See `TableShapes`. */
  readonly hasWholeIdentity: boolean
}

const oidBytea = "17"
const nothing: ReadonlyArray<string> = []

/** wal2json cuts the `\x` off a bytea, though not off one that it takes for a domain. */
const textOf = (value: string | boolean, column: Column): string => {
  if (typeof value === "boolean") return value ? "t" : "f"
  return (column.typeoid === oidBytea || column.type === "bytea") && !value.startsWith("\\x") ? `\\x${value}` : value
}

const decodeRow = (shape: TableShape, columns: ReadonlyArray<Column>): Row => {
  const row: Record<string, unknown> = {}
  let at = 0
  for (const column of columns) {
    // Columns come in table order, so that the search ends where it begins, but for what was left out.
    while (at < shape.columns.length && shape.columns[at]!.name !== column.name) at++
    const { decode } = shape.columns[at++] ?? refuse("a row whose columns stand out of order")
    const value = column.value === null ? null : decode(textOf(column.value, column))
    if (column.name === "__proto__") {
      Object.defineProperty(row, column.name, { value, enumerable: true, configurable: true, writable: true })
    } else {
      row[column.name] = value
    }
  }
  return row
}

/** Keys have few columns, and looking for those is quicker than making a map. */
const mostLookedFor = 8

/** Whether the identity is another than in the new row. */
const isMoved = (identity: ReadonlyArray<Column>, columns: ReadonlyArray<Column>): boolean => {
  if (identity.length <= mostLookedFor) return identity.some((column) => valueOf(columns, column.name) !== column.value)
  const values = new Map(columns.map((column) => [column.name, column.value]))
  return identity.some((column) => values.get(column.name) !== column.value)
}

const valueOf = (columns: ReadonlyArray<Column>, name: string): Value | undefined => {
  for (const column of columns) {
    if (column.name === name) return column.value
  }
  return undefined
}

/** The columns of `shape` that `columns` do not have. */
const leftOut = (shape: TableShape, columns: ReadonlyArray<Column>): ReadonlyArray<string> => {
  const names = new Set(columns.map((column) => column.name))
  return shape.columns.map((column) => column.name).filter((name) => !names.has(name))
}

export class ChangeAssembler {
  /** When the last transaction begun was committed. */
  lastCommitTime: PgTimestamp | undefined = undefined
  private open: Open | undefined
  private truncating: OpenTruncate | undefined
  private ordinal = 0
  private delivered = Lsn.zero
  private readonly shapes: TableShapes
  private readonly options: ChangeAssemblerOptions

  constructor(options: ChangeAssemblerOptions) {
    this.options = options
    this.shapes = new TableShapes(options)
  }

  get isOpen(): boolean {
    return this.open !== undefined
  }

  /** The end of the last unit delivered, `0/0` before the first: a position that is surely not too far. */
  get lastDelivered(): Lsn.Lsn {
    return this.delivered
  }

  begin(batch: Batch, message: Envelope, commitLsn: Lsn.Lsn, endLsn: Lsn.Lsn): void {
    if (this.open !== undefined) refuse("a transaction that begins within another")
    const time = commitTime(message.timestamp)
    if (time === undefined) refuse("a commit timestamp that is none")
    const begin: Begin = { _tag: "Begin", xid: Number(message.xid), commitLsn, commitTime: time }
    this.open = { begin, xid: message.xid, endLsn }
    this.ordinal = 0
    this.lastCommitTime = time
    batch.changes.push(begin)
    // wal2json numbers origins (`pg_replication_origin.roident`), and says neither their names nor their positions.
    if (this.options.includeOrigin && message.origin !== undefined && message.origin !== "0") {
      const ordinal = this.ordinal++
      batch.changes.push({ _tag: "Origin", begin, ordinal, name: message.origin, originLsn: Lsn.zero })
    }
  }

  row(batch: Batch, message: RowMessage, xid: string): void {
    const { begin } = this.within(batch, xid)
    const { before, isFull, shape } = this.shapes.describe(message)
    const { relation } = shape
    if (before !== undefined) {
      batch.changes.push({ _tag: "RelationChanged", begin, ordinal: this.ordinal, before, relation })
    }
    batch.changes.push(this.rowChange(message, shape, isFull, begin, this.ordinal++))
  }

  private rowChange(message: RowMessage, shape: TableShape, isFull: boolean, begin: Begin, ordinal: number): Change {
    const { relation } = shape
    const { columns, identity } = message
    switch (message.action) {
      case "I":
        return { _tag: "Insert", begin, ordinal, relation, row: decodeRow(shape, columns), unchanged: nothing }
      case "U":
        return {
          _tag: "Update",
          begin,
          ordinal,
          relation,
          row: decodeRow(shape, columns),
          unchanged: columns.length === shape.columns.length ? nothing : leftOut(shape, columns),
          // wal2json gives the key always, out of the new row where it did not change.
          old:
            identity !== undefined && (isFull || isMoved(identity, columns))
              ? this.oldRow(shape, identity, isFull)
              : undefined
        }
      case "D":
        return { _tag: "Delete", begin, ordinal, relation, old: this.oldRow(shape, identity ?? [], isFull) }
    }
  }

  private oldRow(shape: TableShape, identity: ReadonlyArray<Column>, isFull: boolean): FullRow | KeyRow {
    const row = decodeRow(shape, identity)
    return isFull ? { _tag: "Full", row } : { _tag: "Key", row }
  }

  /** One table of a TRUNCATE. Options are not told: `cascade` and `restartIdentity` are false. */
  truncate(batch: Batch, message: TableMessage, xid: string): void {
    const { lsn, schema, table } = message
    if (this.truncating?.lsn !== lsn) {
      this.within(batch, xid)
      this.truncating = { lsn, relations: [] }
    }
    this.truncating.relations.push(this.shapes.named(schema, table))
  }

  /** A message of the transaction under way. */
  transactionalMessage(batch: Batch, message: EmittedMessage, xid: string): void {
    const { begin } = this.within(batch, xid)
    const ordinal = this.ordinal++
    const { content, lsn, prefix } = message
    batch.changes.push({
      _tag: "Message",
      transactional: true,
      begin,
      ordinal,
      lsn,
      prefix,
      content,
      nextLsn: undefined
    })
  }

  /** A message outside any transaction: its `lsn` acknowledges it. */
  standaloneMessage(batch: Batch, message: EmittedMessage): void {
    if (this.open !== undefined) refuse("a message outside any transaction, within one")
    const { content, lsn, prefix } = message
    const nextLsn = this.deliver(batch, lsn)
    batch.changes.push({
      _tag: "Message",
      transactional: false,
      begin: undefined,
      ordinal: 0,
      lsn,
      prefix,
      content,
      nextLsn
    })
  }

  commit(batch: Batch, xid: string, commitLsn: Lsn.Lsn, endLsn: Lsn.Lsn): void {
    const { begin, endLsn: announced } = this.within(batch, xid)
    if (commitLsn !== begin.commitLsn || endLsn !== announced) refuse("a commit elsewhere than its begin said")
    this.open = undefined
    batch.changes.push({
      _tag: "Commit",
      begin,
      commitLsn,
      endLsn,
      nextLsn: this.deliver(batch, endLsn, begin.commitTime)
    })
  }

  private deliver(batch: Batch, lsn: Lsn.Lsn, committedAt?: PgTimestamp | undefined) {
    this.delivered = Lsn.max(this.delivered, lsn)
    return batch.deliver(lsn, committedAt)
  }

  /** The transaction that the next change belongs to. Ends a truncate, whose last table has now been seen. */
  private within(batch: Batch, xid: string): Open {
    const { open, truncating } = this
    if (open === undefined) refuse("a change outside any transaction")
    if (open.xid !== xid) refuse("a change of another transaction than the one that has begun")
    if (truncating !== undefined) {
      this.truncating = undefined
      batch.changes.push({
        _tag: "Truncate",
        begin: open.begin,
        ordinal: this.ordinal++,
        relations: truncating.relations,
        cascade: false,
        restartIdentity: false
      })
    }
    return open
  }
}
