/** Changes as a stream would deliver them, made by hand. */
import {
  type Begin,
  type Change,
  type Commit,
  type Insert,
  Lsn,
  type Message,
  PgTimestamp,
  type Relation,
  type Row,
  type Snapshot
} from "@replicant/core"
import { OutputPlugin, WalProgress } from "@replicant/core/driver"

const { run } = WalProgress.initial()

export const lsn = (text: string): Lsn.Lsn => Lsn.fromString(text)!

/** What acknowledges a unit that ends here. */
export const nextLsnAt = (text: string) => new OutputPlugin.Batch(run).deliver(lsn(text))

export const relation = (
  name: string,
  columns: ReadonlyArray<string>,
  keys: ReadonlyArray<string>
): Relation.Relation => ({
  oid: 16_384,
  schema: "public",
  name,
  replicaIdentity: "default",
  columns: columns.map((column) => ({
    name: column,
    isKey: keys.includes(column),
    typeOid: 25,
    typeName: "text",
    typeModifier: -1
  }))
})

export const orders = relation("orders", ["id", "note"], ["id"])

export const begin = (commitLsn: string, xid = 742): Begin => ({
  _tag: "Begin",
  xid,
  commitLsn: lsn(commitLsn),
  commitTime: PgTimestamp.make(1)
})

export const insert = (of: Begin, ordinal: number, row: Row): Insert => ({
  _tag: "Insert",
  begin: of,
  ordinal,
  relation: orders,
  row,
  unchanged: []
})

export const commit = (of: Begin, endLsn: string): Commit => ({
  _tag: "Commit",
  begin: of,
  commitLsn: of.commitLsn,
  endLsn: lsn(endLsn),
  nextLsn: nextLsnAt(endLsn)
})

/** Begin, that many inserts, Commit. */
export const transaction = (commitLsn: string, endLsn: string, inserts: number): ReadonlyArray<Change> => {
  const of = begin(commitLsn)
  const rows = Array.from({ length: inserts }, (_, ordinal) => insert(of, ordinal, { id: ordinal, note: null }))
  return [of, ...rows, commit(of, endLsn)]
}

/** A message outside any transaction. */
export const message = (at: string, content: Uint8Array): Message => ({
  _tag: "Message",
  transactional: false,
  begin: undefined,
  ordinal: 0,
  lsn: lsn(at),
  prefix: "audit",
  content,
  nextLsn: nextLsnAt(at)
})

/** A snapshot of `orders` with these rows, from its start to its end. */
export const snapshot = (
  consistentPoint: string,
  rows: ReadonlyArray<Row>,
  attempt = 1
): ReadonlyArray<Snapshot.Change> => {
  const started: Snapshot.Started = {
    _tag: "SnapshotStarted",
    attempt,
    consistentPoint: lsn(consistentPoint),
    tables: [{ relation: orders, estimatedRows: undefined }]
  }
  const volume = { snapshot: started, rows: rows.length, bytes: 20 }
  return [
    started,
    ...rows.map((row): Snapshot.Row => ({ _tag: "SnapshotRow", snapshot: started, relation: orders, row })),
    { _tag: "SnapshotTableCompleted", relation: orders, ...volume },
    { _tag: "SnapshotCompleted", ...volume }
  ]
}
