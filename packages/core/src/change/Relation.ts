/**
 * A relation as the walsender described it: which columns it sends, and which of them identify a row.
 *
 * One object lives as long as its description holds; the server sends a new one before the first change after any
 * change of shape, so two relations of one `oid` may be seen on one stream.
 */

/**
 * What a change says of the row it replaced (`ALTER TABLE … REPLICA IDENTITY`).
 *
 * Source: https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-REPLICA-IDENTITY
 */
export type ReplicaIdentity = "default" | "nothing" | "full" | "index"

/** A column that is published. Dropped, unpublished and generated ones are not listed. */
export interface RelationColumn {
  readonly name: string
  /** Part of the replica identity; under `full` every column is. */
  readonly isKey: boolean
  /** OID in `pg_type`; 0 when the plugin does not say (wal2json without `include-type-oids`). */
  readonly typeOid: number
  /** The type's own name where the walsender or the catalog of built-in types tells it. */
  readonly typeName: string | undefined
  /** `atttypmod`: length or precision, -1 for none. */
  readonly typeModifier: number
}

/** A table, under its raw, unquoted names. Never join `schema` and `name` by a dot to make a key: names hold dots. */
export interface Relation {
  /** OID in `pg_class`; 0 when the plugin does not say (wal2json). */
  readonly oid: number
  readonly schema: string
  readonly name: string
  /** `undefined` when the plugin does not say (wal2json). */
  readonly replicaIdentity: ReplicaIdentity | undefined
  readonly columns: ReadonlyArray<RelationColumn>
}

/** The names of the columns that identify a row, in table order. */
export const keyColumns = (relation: Relation): ReadonlyArray<string> =>
  relation.columns.filter((column) => column.isKey).map((column) => column.name)

/** Whether its key tells one row from all others: under `full` two rows may be alike. */
export const isKeyed = (relation: Relation): boolean => {
  const columns = keyColumns(relation).length
  if (columns === 0) return false
  const identity = relation.replicaIdentity
  return identity === undefined ? columns < relation.columns.length : identity !== "full"
}

/** How one description of a relation differs from the one before. */
export interface RelationDifference {
  readonly renamed: boolean
  readonly replicaIdentity: boolean
  readonly added: ReadonlyArray<string>
  readonly dropped: ReadonlyArray<string>
  /** Columns of one name whose type or modifier differs. */
  readonly retyped: ReadonlyArray<string>
  /** Columns of one name that joined or left the key. */
  readonly rekeyed: ReadonlyArray<string>
}

/**
 * Compares two descriptions of one relation by column name. A renamed column shows as one dropped and one added: the
 * wire does not tell them apart.
 */
export const difference = (before: Relation, after: Relation): RelationDifference => {
  const old = new Map(before.columns.map((column) => [column.name, column]))
  const names = new Set(after.columns.map((column) => column.name))
  const both = after.columns.flatMap((column) => {
    const was = old.get(column.name)
    return was === undefined ? [] : [{ was, is: column }]
  })
  return {
    renamed: before.schema !== after.schema || before.name !== after.name,
    replicaIdentity: before.replicaIdentity !== after.replicaIdentity,
    added: after.columns.filter((column) => !old.has(column.name)).map((column) => column.name),
    dropped: before.columns.filter((column) => !names.has(column.name)).map((column) => column.name),
    retyped: both
      .filter(({ is, was }) => is.typeOid !== was.typeOid || is.typeModifier !== was.typeModifier)
      .map(({ is }) => is.name),
    rekeyed: both.filter(({ is, was }) => is.isKey !== was.isKey).map(({ is }) => is.name)
  }
}

/** Whether two descriptions mean the same shape, so that nobody needs to be told. */
export const isSame = (self: Relation, that: Relation): boolean => {
  if (
    self.oid !== that.oid ||
    self.schema !== that.schema ||
    self.name !== that.name ||
    self.replicaIdentity !== that.replicaIdentity ||
    self.columns.length !== that.columns.length
  ) {
    return false
  }
  return self.columns.every((column, index) => {
    const other = that.columns[index]!
    return (
      column.name === other.name &&
      column.isKey === other.isKey &&
      column.typeOid === other.typeOid &&
      column.typeModifier === other.typeModifier
    )
  })
}
