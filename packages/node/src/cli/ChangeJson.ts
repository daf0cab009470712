/**
 * Changes as JSON lines: one object a change, of a shape that stays (docs/cli.md). Nothing is lost on the way: what JSON's
 * numbers or most readers of them cannot hold is a string, and `json` and `jsonb` columns are PostgreSQL's own text.
 *
 * Written by hand rather than by `JSON.stringify`, which knows no bigint, no NaN, no -0 and no text that is JSON already.
 */
import { type Begin, Lsn, PgTimestamp, type Relation, type Row, type Snapshot, type TypeDecoder } from "@replicant/core"

/** The text of a `json` or `jsonb` column: goes into the line as it is, numbers with all their digits. */
export class JsonText {
  readonly text: string
  /** A value of a column that is not NULL. */
  get isNull(): boolean {
    return this.text.trim() === "null"
  }

  constructor(text: string) {
    // Line breaks can stand between JSON's tokens only, and would break ours.
    this.text = text.replaceAll(/[\r\n]+/g, " ")
  }
}

const jsonText = (text: string): JsonText => new JsonText(text)

/** How the columns of a stream are decoded when its changes are to be printed. */
export const types: TypeDecoder.TypeDecoders = {
  byOid: new Map([
    [114, jsonText],
    [3802, jsonText]
  ]),
  byName: new Map([
    ["json", jsonText],
    ["jsonb", jsonText]
  ])
}

/** `JSON.stringify` leaves DEL and the C1 controls alone, and some terminals obey those. */
const quote = (text: string): string =>
  JSON.stringify(text).replaceAll(
    /[\u007f-\u009f]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")

/**
 * A column's value.
 *
 * @example
 * encodeValue(9007199254740993n) // => "\"9007199254740993\""
 */
export const encodeValue = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return quote(value)
    case "number":
      return Number.isFinite(value) ? (Object.is(value, -0) ? "-0" : String(value)) : `"${value}"`
    case "bigint":
      return `"${value}"`
    case "boolean":
      return String(value)
    case "object":
      if (value === null) return "null"
      if (value instanceof JsonText) return value.text
      if (value instanceof Uint8Array) return `"\\\\x${hex(value)}"`
      if (Array.isArray(value)) return `[${value.map(encodeValue).join(",")}]`
      return encodeObject(value as Row)
    default:
      return "null"
  }
}

/** An object's own members; a column may be named `__proto__`. */
const encodeObject = (row: Row): string => {
  let text = "{"
  for (const name of Object.keys(row)) {
    text += `${text.length === 1 ? "" : ","}${quote(name)}:${encodeValue(row[name])}`
  }
  return `${text}}`
}

const pointerStep = (name: string): string => `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`

const addJsonNulls = (value: unknown, pointer: string, found: Array<string>): void => {
  if (value instanceof JsonText) {
    if (value.isNull) found.push(pointer)
  } else if (Array.isArray(value)) {
    for (const [index, element] of value.entries()) addJsonNulls(element, `${pointer}/${index}`, found)
  }
}

/**
 * Which nulls of these rows are JSON's own, and not SQL's: no JSON value could tell that in its place, since a `jsonb` may
 * be any. They are told by where they are in the line.
 *
 * Source: RFC 6901, JSON Pointer
 */
const jsonNulls = (rows: { readonly [member: string]: Row | undefined }): string => {
  const found: Array<string> = []
  for (const [member, row] of Object.entries(rows)) {
    if (row === undefined) continue
    for (const name of Object.keys(row)) addJsonNulls(row[name], `/${member}${pointerStep(name)}`, found)
  }
  return found.length === 0 ? "" : `,"jsonNull":${encodeValue(found)}`
}

const place = (kind: string, relation: Relation.Relation): string =>
  `{"kind":"${kind}","schema":${quote(relation.schema)},"table":${quote(relation.name)}`

const tableName = ({ name, schema }: { readonly schema: string; readonly name: string }): string =>
  `{"schema":${quote(schema)},"table":${quote(name)}}`

/** Which transaction a change belongs to. */
const transaction = (begin: Begin): string =>
  `,"lsn":"${Lsn.format(begin.commitLsn)}","xid":${begin.xid},"time":"${PgTimestamp.format(begin.commitTime)}"`

const position = ({ begin, ordinal }: { readonly begin: Begin; readonly ordinal: number }): string =>
  `${transaction(begin)},"ordinal":${ordinal}`

/** The row before: `key` where the server tells the replica identity only, `old` where it tells the whole row. */
type OldRow = { readonly _tag: "Key" | "Full"; readonly row: Row } | undefined

const oldMember = (old: OldRow): "key" | "old" => (old?._tag === "Key" ? "key" : "old")

/** The row now, if it is one, the columns that were left out of it, and the row before. */
const rowsOf = ({
  old,
  row,
  unchanged = []
}: {
  readonly row?: Row
  readonly unchanged?: ReadonlyArray<string>
  readonly old?: OldRow
}): string => {
  const now = row === undefined ? "" : `,"row":${encodeObject(row)}`
  const left = unchanged.length === 0 ? "" : `,"unchanged":${encodeValue(unchanged)}`
  const before = old === undefined ? "" : `,"${oldMember(old)}":${encodeObject(old.row)}`
  return `${now}${left}${before}${jsonNulls({ row, [oldMember(old)]: old?.row })}`
}

/** What a snapshot has is as of its seam: what follows it has no smaller `lsn`. */
const seam = ({ consistentPoint }: Snapshot.Row["snapshot"]): string => `,"lsn":"${Lsn.format(consistentPoint)}"`

const lowerFirst = (tag: string): string => `${tag.charAt(0).toLowerCase()}${tag.slice(1)}`

const volume = ({ bytes, rows }: { readonly bytes: number; readonly rows: number }): string =>
  `,"rows":${rows},"bytes":${bytes}`

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Messages are bytes that mostly are text. */
const content = (bytes: Uint8Array): string => {
  try {
    return `"content":${quote(strictUtf8.decode(bytes))}`
  } catch {
    return `"bytes":"\\\\x${hex(bytes)}"`
  }
}

/** An element of a snapshot, or of a table read anew, as one line without its line break. */
const encodeSnapshot = (change: Snapshot.Change | Snapshot.OneTableChange): string => {
  switch (change._tag) {
    case "SnapshotRow":
      return `${place("snapshotRow", change.relation)}${seam(change.snapshot)}${rowsOf({ row: change.row })}}`
    case "SnapshotStarted":
    case "SnapshotResumed": {
      const tables = change.tables.map((table) => {
        const { name, schema } = table.relation
        const state = "state" in table ? `,"state":"${table.state}"` : ""
        return `{"schema":${quote(schema)},"table":${quote(name)},"estimatedRows":${table.estimatedRows ?? null}${state}}`
      })
      const beginning = `${seam(change)},"attempt":${change.attempt},"tables":[${tables.join(",")}]`
      if (change._tag === "SnapshotStarted") return `{"kind":"snapshotStarted"${beginning}}`
      return `{"kind":"snapshotResumed"${beginning},"unpublished":[${change.unpublished.map(tableName).join(",")}]}`
    }
    case "SnapshotTableRestarted":
      return `${place("snapshotTableRestarted", change.relation)}${seam(change.snapshot)}}`
    case "SnapshotRowDeleted":
      return `${place("snapshotRowDeleted", change.relation)}${seam(change.snapshot)}${rowsOf({ old: change.old })}}`
    case "SnapshotRangeCompleted":
      return `${place("snapshotRangeCompleted", change.relation)}${seam(change.snapshot)}}`
    case "TableSnapshotStarted":
    case "TableSnapshotResumed":
      return `${place(lowerFirst(change._tag), change.relation)}${seam(change)},"id":${quote(change.id)}}`
    case "TableSnapshotCompleted":
      return `${place("tableSnapshotCompleted", change.relation)}${seam(change.snapshot)}${volume(change)}}`
    case "SnapshotTableCompleted":
      return `${place("snapshotTableCompleted", change.relation)}${seam(change.snapshot)}${volume(change)}}`
    case "SnapshotCompleted":
      return `{"kind":"snapshotCompleted"${seam(change.snapshot)}${volume(change)}}`
  }
}

/**
 * A change as one line, without its line break.
 *
 * @example
 * encodeChange(change) // => {"kind":"insert","schema":"public","table":"orders","lsn":"0/1A2B3C8","xid":742,...}
 */
export const encodeChange = (change: Snapshot.ChangeAfterSnapshot): string => {
  switch (change._tag) {
    case "SnapshotRow":
    case "SnapshotStarted":
    case "SnapshotResumed":
    case "SnapshotTableRestarted":
    case "SnapshotRowDeleted":
    case "SnapshotRangeCompleted":
    case "SnapshotTableCompleted":
    case "SnapshotCompleted":
    case "TableSnapshotStarted":
    case "TableSnapshotResumed":
    case "TableSnapshotCompleted":
      return encodeSnapshot(change)
    case "Begin":
      return `{"kind":"begin"${transaction(change)}}`
    case "Commit":
      return `{"kind":"commit"${transaction(change.begin)},"endLsn":"${Lsn.format(change.endLsn)}"}`
    case "Prepare":
      return `{"kind":"prepare"${transaction(change.begin)},"gid":${quote(change.gid)},"endLsn":"${Lsn.format(change.endLsn)}"}`
    case "CommitPrepared":
    case "RollbackPrepared": {
      const kind = change._tag === "CommitPrepared" ? "commitPrepared" : "rollbackPrepared"
      return `{"kind":"${kind}","xid":${change.xid},"gid":${quote(change.gid)},"endLsn":"${Lsn.format(change.endLsn)}"}`
    }
    case "Gap": {
      const lastLsn = change.lastLsn === undefined ? "null" : `"${Lsn.format(change.lastLsn)}"`
      return `{"kind":"gap","slot":${quote(change.slot)},"reason":${quote(change.reason)},"lastLsn":${lastLsn},"consistentPoint":"${Lsn.format(change.consistentPoint)}"}`
    }
    case "Insert":
    case "Update":
    case "Delete":
      return `${place(lowerFirst(change._tag), change.relation)}${position(change)}${rowsOf(change)}}`
    case "Truncate": {
      const tables = change.relations.map(tableName)
      const flags = `"cascade":${change.cascade},"restartIdentity":${change.restartIdentity}`
      return `{"kind":"truncate","tables":[${tables.join(",")}]${position(change)},${flags}}`
    }
    case "Message": {
      const at =
        change.begin === undefined
          ? `,"lsn":"${Lsn.format(change.lsn)}","ordinal":${change.ordinal}`
          : `${transaction(change.begin)},"ordinal":${change.ordinal}`
      const text = `"prefix":${quote(change.prefix)},${content(change.content)}`
      return `{"kind":"message"${at},"transactional":${change.transactional},${text}}`
    }
    case "Origin": {
      const origin = `"name":${quote(change.name)},"originLsn":"${Lsn.format(change.originLsn)}"`
      return `{"kind":"origin"${position(change)},${origin}}`
    }
    case "RelationChanged": {
      const { relation } = change
      const columns = relation.columns.map(
        (column) => `{"name":${quote(column.name)},"type":${encodeValue(column.typeName)},"key":${column.isKey}}`
      )
      return `${place("relation", relation)}${position(change)},"columns":[${columns.join(",")}]}`
    }
  }
}
