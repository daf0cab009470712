/** Two declared tables, and changes of them made by hand. */
import * as Schema from "effect/Schema"
import type { Begin, Change, Commit, Delete, Insert, OldRow, Row, Truncate, Update } from "../../src/change/Change.ts"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import type { Relation, ReplicaIdentity } from "../../src/change/Relation.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as Table from "../../src/table/Table.ts"

export const Orders = Table.make(
  "public.orders",
  Schema.Struct({
    id: Schema.Number,
    total: Schema.String,
    note: Schema.NullOr(Schema.String),
    placedAt: Schema.optionalKey(Schema.DateFromString)
  }),
  { key: ["id"], columns: { placedAt: "placed_at" } }
)

export class Customer extends Schema.Class<Customer>("Customer")({
  email: Schema.String,
  tags: Schema.Array(Schema.String)
}) {
  get domain(): string {
    return this.email.slice(this.email.indexOf("@") + 1)
  }
}

/** A table whose names hold dots, and whose key is not declared. */
export const Customers = Table.make({ schema: "crm.eu", name: "customers" }, Customer)

export const relation = (
  schema: string,
  name: string,
  columns: ReadonlyArray<string>,
  keys: ReadonlyArray<string> = columns.slice(0, 1),
  replicaIdentity: ReplicaIdentity | undefined = "default"
): Relation => ({
  oid: 16_385,
  schema,
  name,
  replicaIdentity,
  columns: columns.map((column) => ({
    name: column,
    isKey: keys.includes(column),
    typeOid: 25,
    typeName: "text",
    typeModifier: -1
  }))
})

export const orders = relation("public", "orders", ["id", "total", "note", "placed_at", "undeclared"])
export const customers = relation("crm.eu", "customers", ["email", "tags"])
export const others = relation("public", "others", ["id"])

const run = new Run()
export const begin: Begin = {
  _tag: "Begin",
  xid: 7,
  commitLsn: Lsn.fromString("0/100")!,
  commitTime: PgTimestamp.make(0)
}
export const commit: Commit = {
  _tag: "Commit",
  begin,
  commitLsn: begin.commitLsn,
  endLsn: Lsn.fromString("0/130")!,
  nextLsn: NextLsn.deliver(Lsn.fromString("0/130")!, run)
}

export const order = { id: 1, total: "12.50", note: null, placed_at: "2024-02-29", undeclared: "x" }

export const insert = (of: Relation, row: Row, unchanged: ReadonlyArray<string> = []): Insert => ({
  _tag: "Insert",
  begin,
  ordinal: 0,
  relation: of,
  row,
  unchanged
})

export const update = (of: Relation, row: Row, unchanged: ReadonlyArray<string> = [], old?: OldRow): Update => ({
  _tag: "Update",
  begin,
  ordinal: 1,
  relation: of,
  row,
  unchanged,
  old
})

export const deleted = (of: Relation, old: OldRow): Delete => ({ _tag: "Delete", begin, ordinal: 2, relation: of, old })

export const truncate = (...relations: ReadonlyArray<Relation>): Truncate => ({
  _tag: "Truncate",
  begin,
  ordinal: 3,
  relations,
  cascade: true,
  restartIdentity: false
})

export const message: Change = {
  _tag: "Message",
  transactional: false,
  begin: undefined,
  ordinal: 0,
  lsn: Lsn.fromString("0/140")!,
  prefix: "p",
  content: new Uint8Array(),
  nextLsn: NextLsn.deliver(Lsn.fromString("0/140")!, run)
}
