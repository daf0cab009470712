/**
 * Changes as JSON lines: one object a change, of a shape that stays (docs/cli.md). Values and rows are what core's `ValueJson`
 * makes of them, in messages of sinks as here.
 */
import { type Begin, Lsn, PgTimestamp, type Relation, type Row, type Snapshot } from "@replicant/core"
import { ValueJson } from "@replicant/core/sink"

const { encodeContent, encodeRow, encodeValue, jsonNulls, quote } = ValueJson

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
  const now = row === undefined ? "" : `,"row":${encodeRow(row)}`
  const left = unchanged.length === 0 ? "" : `,"unchanged":${encodeValue(unchanged)}`
  const before = old === undefined ? "" : `,"${oldMember(old)}":${encodeRow(old.row)}`
  return `${now}${left}${before}${jsonNulls({ row, [oldMember(old)]: old?.row })}`
}

/** What a snapshot has is as of its seam: what follows it has no smaller `lsn`. */
const seam = ({ consistentPoint }: Snapshot.Row["snapshot"]): string => `,"lsn":"${Lsn.format(consistentPoint)}"`

const lowerFirst = (tag: string): string => `${tag.charAt(0).toLowerCase()}${tag.slice(1)}`

const volume = ({ bytes, rows }: { readonly bytes: number; readonly rows: number }): string =>
  `,"rows":${rows},"bytes":${bytes}`

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
      const text = `"prefix":${quote(change.prefix)},${encodeContent(change.content)}`
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
