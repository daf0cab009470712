/**
 * One copy stream's XLogData: a unit of WAL as pgoutput sends it to these publications, relations described before their
 * first change and again when they are not what they were. Pure, but for the relations it remembers.
 */
import * as Lsn from "../Lsn.ts"
import type * as PgTimestamp from "../PgTimestamp.ts"
import * as Bytes from "../pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { encodeXLogData } from "../protocol/ReplicationMessage.ts"
import type { TestRelation } from "./TestRelation.ts"
import type { TestServer } from "./TestServer.ts"
import type { TestChange } from "./TestTransaction.ts"
import type { WrittenChange, WrittenMessage, WrittenTransaction } from "./TestWal.ts"

/** What START_REPLICATION asked for. */
export interface Subscription {
  readonly publications: ReadonlyArray<string>
  readonly hasMessages: boolean
}

export class TestEncoder {
  private readonly server: TestServer
  private readonly subscription: Subscription
  /** What was described last, by OID. */
  private readonly described = new Map<number, TestRelation>()

  constructor(server: TestServer, subscription: Subscription) {
    this.server = server
    this.subscription = subscription
  }

  /** The frames of a transaction; `undefined` for one of which nothing is published: it is not sent at all. */
  transaction(written: WrittenTransaction, now: PgTimestamp.PgTimestamp): Uint8Array | undefined {
    const changes = written.changes.flatMap((change) => this.published(change))
    if (changes.length === 0) return undefined
    const frame = (lsn: Lsn.Lsn, walData: Uint8Array) => xLogData(lsn, walData, now)
    return Bytes.concat([
      frame(changes[0]!.lsn, Bytes.begin(written)),
      ...changes.flatMap((change) => [
        ...this.descriptions(change.change).map((walData) => frame(Lsn.zero, walData)),
        frame(change.lsn, this.change(change))
      ]),
      frame(written.endLsn, Bytes.commit(written))
    ])
  }

  /** The frame of a message outside any transaction, if messages were asked for. */
  message({ endLsn, entry }: WrittenMessage, now: PgTimestamp.PgTimestamp): Uint8Array | undefined {
    if (!this.subscription.hasMessages) return undefined
    const { content, prefix } = entry
    return xLogData(endLsn, Bytes.logicalMessage({ isTransactional: false, lsn: endLsn, prefix, content }), now)
  }

  private publishes(operation: "insert" | "update" | "delete" | "truncate", relation: TestRelation): boolean {
    return this.server.publishes(this.subscription.publications, operation, relation)
  }

  /** The change as it is published: whole, without some of its tables, or not. */
  private published(written: WrittenChange): ReadonlyArray<WrittenChange> {
    const { change } = written
    switch (change._tag) {
      case "Message":
        return this.subscription.hasMessages ? [written] : []
      case "Truncate": {
        const relations = change.relations.filter((relation) => this.publishes("truncate", relation))
        return relations.length === 0 ? [] : [{ ...written, change: { ...change, relations } }]
      }
      default:
        return this.publishes(operations[change._tag], change.relation) ? [written] : []
    }
  }

  private oid(relation: TestRelation): number {
    return this.server.wal.oidOf("relation", relation.schema, relation.name)
  }

  /** Relations of a change that are not described yet, or were otherwise; each after the types it needs. */
  private descriptions(change: TestChange): ReadonlyArray<Uint8Array> {
    if (change._tag === "Message") return []
    const relations = change._tag === "Truncate" ? change.relations : [change.relation]
    return relations.flatMap((relation) => {
      const oid = this.oid(relation)
      if (this.described.get(oid) === relation) return []
      this.described.set(oid, relation)
      return this.describe(oid, relation)
    })
  }

  private describe(oid: number, relation: TestRelation): ReadonlyArray<Uint8Array> {
    const types: Array<Uint8Array> = []
    const columns = relation.columns.map(({ isKey, name, type }) => {
      if (typeof type === "number") return { name, isKey, typeOid: type }
      const typeOid = this.server.wal.oidOf("type", type.schema, type.name)
      types.push(Bytes.type(typeOid, type.schema, type.name))
      return { name, isKey, typeOid }
    })
    const { name, schema } = relation
    const replicaIdentity = Bytes.identityLetter(relation.replicaIdentity)
    return [...types, Bytes.relation({ oid, schema, name, replicaIdentity, columns })]
  }

  private change({ change, endLsn }: WrittenChange): Uint8Array {
    switch (change._tag) {
      case "Insert":
        return Bytes.insert(this.oid(change.relation), change.cells)
      case "Update": {
        const { cells, old, relation } = change
        return Bytes.update(this.oid(relation), cells, old && Bytes.tuple(old.kind, old.cells))
      }
      case "Delete":
        return Bytes.remove(this.oid(change.relation), Bytes.tuple(change.old.kind, change.old.cells))
      case "Truncate": {
        const { cascade, relations, restartIdentity } = change
        return Bytes.truncate({ oids: relations.map((relation) => this.oid(relation)), cascade, restartIdentity })
      }
      case "Message": {
        const { content, prefix } = change
        return Bytes.logicalMessage({ isTransactional: true, lsn: endLsn, prefix, content })
      }
    }
  }
}

const operations = { Insert: "insert", Update: "update", Delete: "delete" } as const

const xLogData = (lsn: Lsn.Lsn, walData: Uint8Array, sendTime: PgTimestamp.PgTimestamp): Uint8Array =>
  BackendMessage.copyData(encodeXLogData({ walStart: lsn, walEnd: lsn, sendTime, walData }))
