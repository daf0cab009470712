/**
 * What the tables of the test's server hold: every version of every row, with the transactions that it is seen by, so that
 * one reader sees them as they were while others write. What a script commits is done to them as well.
 *
 * Each version has a page of its own, the next one of its table. So a piece of `piecePages: 2` is one of two rows, and a
 * test breaks a copy between rows without having to fill pages first.
 */
import type { Cell } from "../pgoutput/PgoutputBytes.ts"
import type { TestRelation } from "./TestRelation.ts"
import type { TestChange } from "./TestTransaction.ts"

/** A value as its text, or NULL. */
export type Value = string | null

/** A row as it was for a while. */
export interface RowVersion {
  readonly page: number
  /** In the table's order. */
  readonly values: ReadonlyArray<Value>
  /** The transaction that wrote it: seen by snapshots above it. */
  readonly writtenBy: number
  /** The transaction that deleted it or wrote another one. */
  readonly goneBy: number | undefined
}

/** A table that is there, written to or not. */
export interface TestTable {
  readonly oid: number
  readonly relation: TestRelation
  /** Another one after TRUNCATE. */
  readonly fileNode: number
  readonly versions: ReadonlyArray<RowVersion>
}

type Mutable<A> = { -readonly [Key in keyof A]: A[Key] }

/** Whether a snapshot sees it: `snapshot` is the first transaction that it does not see. All others have ended. */
export const isSeen = ({ goneBy, writtenBy }: RowVersion, snapshot: number): boolean =>
  writtenBy < snapshot && (goneBy === undefined || goneBy >= snapshot)

/** Of a change, the values that are told; others stay what they were. */
const valueOf = (cell: Cell | undefined, before: Value | undefined): Value =>
  typeof cell === "string" ? cell : cell === null ? null : (before ?? null)

/** ALTER TABLE: what a row has in columns of another order, or of others. */
const withColumns = (version: RowVersion, before: TestRelation, now: TestRelation): RowVersion => ({
  ...version,
  values: now.columns.map(
    ({ name }) => version.values[before.columns.findIndex((column) => column.name === name)] ?? null
  )
})

export class TestTables {
  private readonly oidOf: (relation: TestRelation) => number
  private readonly tables = new Map<number, Mutable<TestTable>>()

  constructor(oidOf: (relation: TestRelation) => number) {
    this.oidOf = oidOf
  }

  /** All of them, by OID. */
  get all(): ReadonlyArray<TestTable> {
    return [...this.tables.values()].sort((self, that) => self.oid - that.oid)
  }

  find(schema: string, name: string): TestTable | undefined {
    return this.all.find(({ relation }) => relation.schema === schema && relation.name === name)
  }

  /** The table is there from now on, and as its relation says. */
  create(relation: TestRelation): void {
    this.table(relation)
  }

  /** Does what a transaction did. An update or delete of a row that nobody inserted does nothing. */
  apply(changes: ReadonlyArray<TestChange>, xid: number): void {
    for (const change of changes) this.applyOne(change, xid)
  }

  private applyOne(change: TestChange, xid: number): void {
    switch (change._tag) {
      case "Insert":
        this.add(this.table(change.relation), change.cells, xid)
        return
      case "Update": {
        const table = this.table(change.relation)
        const before = this.end(table, change.old?.cells ?? change.cells, xid)
        if (before !== undefined) this.add(table, change.cells, xid, before)
        return
      }
      case "Delete":
        this.end(this.table(change.relation), change.old.cells, xid)
        return
      case "Truncate":
        for (const relation of change.relations) this.empty(this.table(relation), xid)
        return
      case "Message":
        return
    }
  }

  private table(relation: TestRelation): Mutable<TestTable> {
    const oid = this.oidOf(relation)
    const known = this.tables.get(oid)
    if (known === undefined) {
      const table: TestTable = { oid, relation, fileNode: oid, versions: [] }
      this.tables.set(oid, table)
      return table
    }
    if (known.relation !== relation) {
      known.versions = known.versions.map((version) => withColumns(version, known.relation, relation))
      known.relation = relation
    }
    return known
  }

  private add(table: TestTable, cells: ReadonlyArray<Cell>, xid: number, before?: RowVersion): void {
    const values = table.relation.columns.map((_, index) => valueOf(cells[index], before?.values[index]))
    const versions = table.versions as Array<RowVersion>
    versions.push({ page: versions.length, values, writtenBy: xid, goneBy: undefined })
  }

  /** Ends the row of that key, and gives it as it was. */
  private end(table: TestTable, cells: ReadonlyArray<Cell>, xid: number): RowVersion | undefined {
    const keys = table.relation.columns.flatMap(({ isKey }, index) => (isKey ? [index] : []))
    if (keys.length === 0) return undefined
    const versions = table.versions as Array<RowVersion>
    const at = versions.findIndex(
      ({ goneBy, values }) =>
        goneBy === undefined && keys.every((index) => values[index] === valueOf(cells[index], null))
    )
    const version = versions[at]
    if (version !== undefined) versions[at] = { ...version, goneBy: xid }
    return version
  }

  /** Pages go on being counted: nobody can tell, but by the file. */
  private empty(table: Mutable<TestTable>, xid: number): void {
    table.versions = table.versions.map((version) => ({ ...version, goneBy: version.goneBy ?? xid }))
    table.fileNode += 1_000_000
  }
}
