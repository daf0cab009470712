/**
 * Declared tables held against what the catalog says of them and of the publications that are to send them: which
 * declarations cannot come true, and which statements of an application its own server would refuse. Pure: the catalog is
 * asked by `server/TableCatalog.ts`.
 *
 * Sources: `CheckCmdReplicaIdentity` in src/backend/executor/execReplication.c; `pub_rf_contains_invalid_column` and
 * `pub_collist_contains_invalid_column` in src/backend/commands/publicationcmds.c; `get_rel_sync_entry` in
 * src/backend/replication/pgoutput/pgoutput.c.
 */
import { qualifiedName, quoteIdentifier } from "../protocol/ReplicationCommand.ts"
import { decoderForOid, type QualifiedName, type Types } from "../values/TypeDecoder.ts"
import type { DeclarationProblem } from "./DeclarationMismatch.ts"
import { takesValues } from "./EncodedForm.ts"
import type { Any } from "./Table.ts"
import { isOptional } from "./TypedChanges.ts"

/** A column as `pg_attribute` has it. */
export interface ColumnFacts {
  readonly name: string
  readonly typeOid: number
  /** The type, or a domain's base type. */
  readonly base: QualifiedName
  /** As `format_type` prints it. */
  readonly type: string
  /** `attgenerated`: `s` stored, `v` virtual, empty for an ordinary column. */
  readonly generated: string
}

/** How one publication sends the table. */
export interface PublishedFacts {
  readonly publication: string
  readonly columns: ReadonlyArray<string>
  readonly hasColumnList: boolean
  /** The row filter as SQL. */
  readonly filter: string | null
  readonly filterColumns: ReadonlyArray<string>
}

type Name = { readonly schema: string; readonly name: string }

/** What the catalog says of a declared table. */
export interface TableFacts extends Name {
  /** `relkind`; null where there is no such relation. */
  readonly kind: string | null
  /** `relpersistence`: `p` is what is written to WAL. */
  readonly persistence: string | null
  /** `relreplident`: `d` default, `n` nothing, `f` full, `i` index. */
  readonly replicaIdentity: string | null
  /** The key columns of the identity's index; empty under `n`, `f`, and where there is no such index. */
  readonly identity: ReadonlyArray<string>
  readonly columns: ReadonlyArray<ColumnFacts>
  /** The publications that send changes under this table's name. */
  readonly published: ReadonlyArray<PublishedFacts>
  /** The publications that it belongs to, under whatever name it is sent. */
  readonly namedBy: ReadonlyArray<string>
  /** Ancestors under whose name the publications send it. */
  readonly sentAs: ReadonlyArray<Name>
  /** Its partitions that have no replica identity. */
  readonly bare: ReadonlyArray<Name>
}

/** A publication as `pg_publication` has it. */
export interface PublicationFacts {
  readonly name: string
  readonly operations: ReadonlyArray<string>
}

export interface CheckContext {
  /** In the order they were named in; there is one at least. */
  readonly publications: ReadonlyArray<PublicationFacts>
  /** What must be published. */
  readonly operations: ReadonlyArray<string>
  /** What the stream's plugin has. */
  readonly types: Types
  readonly serverVersion: number
}

type Problem = DeclarationProblem

const list = (names: ReadonlyArray<string>): string => names.map(quoteIdentifier).join(", ")

const problem = (
  kind: Problem["problem"],
  table: Name,
  { names = [], detail, remedy }: Partial<Pick<Problem, "names">> & Pick<Problem, "detail" | "remedy">
): Problem => ({
  problem: kind,
  table: { schema: table.schema, name: table.name },
  names,
  detail: `${qualifiedName(table)} ${detail}`,
  remedy
})

/** Why nothing of the table comes under its name. */
const unsent = (facts: TableFacts, { publications }: CheckContext): Problem => {
  const publication = quoteIdentifier(facts.namedBy[0] ?? publications[0]!.name)
  if (facts.kind !== "r" && facts.kind !== "p") {
    const detail = "is a view or a foreign table, of which nothing is published"
    return problem("notPublishable", facts, { detail, remedy: "declare the tables that it reads" })
  }
  if (facts.persistence !== "p") {
    const detail = "is unlogged or temporary: nothing of it is in the WAL"
    return problem("notPublishable", facts, { detail, remedy: `ALTER TABLE ${qualifiedName(facts)} SET LOGGED` })
  }
  const [root] = facts.sentAs
  if (root !== undefined) {
    const detail = `is a partition whose changes come as ${qualifiedName(root)}`
    const remedy = `declare ${qualifiedName(root)}, or publish it without publish_via_partition_root`
    return problem("sentAsRoot", facts, { names: [`${root.schema}.${root.name}`], detail, remedy })
  }
  if (facts.kind === "p" && facts.namedBy.length > 0) {
    const detail = "is partitioned, and its changes come under the names of its partitions"
    const remedy = `ALTER PUBLICATION ${publication} SET (publish_via_partition_root = true), or make it with publishViaPartitionRoot`
    return problem("sentAsPartitions", facts, { detail, remedy })
  }
  const remedy = `ALTER PUBLICATION ${publication} ADD TABLE ${qualifiedName(facts)}`
  return problem("notPublished", facts, { detail: "is not published", remedy })
}

/** A table of a publication with other columns: there is no statement that changes the list of one. */
const withColumns = (facts: TableFacts, sent: PublishedFacts, columns: ReadonlyArray<string>): string => {
  const alter = `ALTER PUBLICATION ${quoteIdentifier(sent.publication)}`
  const inOrder = facts.columns.map(({ name }) => name).filter((name) => columns.includes(name))
  const where = sent.filter === null ? "" : ` WHERE ${sent.filter}`
  const add = `${alter} ADD TABLE ${qualifiedName(facts)} (${list(inOrder)})${where}`
  return `BEGIN; ${alter} DROP TABLE ${qualifiedName(facts)}; ${add}; COMMIT`
}

const generatedRemedy = (sent: PublishedFacts, isVirtual: boolean, serverVersion: number): string =>
  serverVersion < 180_000 || isVirtual
    ? "declare it with Schema.optionalKey, or not at all: stored generated columns are published from PostgreSQL 18 on"
    : `ALTER PUBLICATION ${quoteIdentifier(sent.publication)} SET (publish_generated_columns = stored), or list its columns`

function* columnProblems(table: Any, facts: TableFacts, context: CheckContext): Generator<Problem> {
  const byName = new Map(facts.columns.map((column) => [column.name, column]))
  const needed = Array.from(table.columns)
    .filter(([property]) => !isOptional(table.rowSchema.fields[property]!))
    .map(([, column]) => column)
  const missing = needed.filter((column) => !byName.has(column))
  if (missing.length > 0) {
    const detail = `does not have the declared columns ${list(missing)}`
    const remedy = "add the columns, or declare them with Schema.optionalKey, or not at all"
    yield problem("columnMissing", facts, { names: missing, detail, remedy })
  }
  for (const sent of facts.published) {
    const lacking = needed.filter((column) => byName.has(column) && !sent.columns.includes(column))
    const isVirtual = (column: string) => byName.get(column)!.generated === "v"
    const cannotList = (column: string) => context.serverVersion < 180_000 || isVirtual(column) || !sent.hasColumnList
    const generated = lacking.filter((column) => byName.get(column)!.generated !== "" && cannotList(column))
    const unlisted = lacking.filter((column) => !generated.includes(column))
    if (generated.length > 0) {
      const detail = `has generated columns that "${sent.publication}" does not publish: ${list(generated)}`
      const remedy = generatedRemedy(sent, generated.some(isVirtual), context.serverVersion)
      yield problem("columnNotPublished", facts, { names: generated, detail, remedy })
    }
    if (unlisted.length > 0) {
      const detail = `has declared columns that the column list in "${sent.publication}" leaves out: ${list(unlisted)}`
      const remedy = withColumns(facts, sent, [...sent.columns, ...unlisted])
      yield problem("columnNotPublished", facts, { names: unlisted, detail, remedy })
    }
  }
  for (const [property, column] of table.columns) {
    const known = byName.get(column)
    if (known === undefined) continue
    const decoder = decoderForOid(known.typeOid, context.types, known.base)
    if (takesValues(table.rowSchema.fields[property]!, decoder)) continue
    const detail = `has ${quoteIdentifier(column)} of type ${known.type}, whose values its Schema does not take`
    const remedy = `declare "${property}" by what a ${known.type} is decoded to (docs/values.md), or give the plugin's types here too`
    yield problem("typeMismatch", facts, { names: [column], detail, remedy })
  }
}

function* publishedProblems(facts: TableFacts): Generator<Problem> {
  const [first, ...others] = facts.published
  if (first === undefined) return
  const differ = others.filter(
    ({ columns }) => columns.length !== first.columns.length || columns.some((name) => !first.columns.includes(name))
  )
  if (differ.length > 0) {
    const names = [first, ...differ].map(({ publication }) => publication)
    const detail = `has different column lists in the publications ${list(names)}: the walsender fails on it`
    const remedy = withColumns(facts, differ[0]!, first.columns)
    yield problem("columnListsDiffer", facts, { names, detail, remedy })
  }
}

/** What the source's own UPDATE and DELETE meet. Where they are not published nothing is asked of the identity. */
function* identityProblems(table: Any, facts: TableFacts, context: CheckContext): Generator<Problem> {
  const publishing = (name: string) => context.publications.find((publication) => publication.name === name)!
  const writes = facts.published.filter(({ publication }) =>
    publishing(publication).operations.some((operation) => operation === "update" || operation === "delete")
  )
  const isFull = facts.replicaIdentity === "f"
  const alter = `ALTER TABLE ${qualifiedName(facts)}`
  const keys = table.key.map((property) => table.columns.get(property) ?? property)
  if (writes.length > 0 && facts.kind === "p" && facts.bare.length > 0) {
    const names = facts.bare.map(({ name, schema }) => `${schema}.${name}`)
    const detail = `has partitions without replica identity, on which the source refuses UPDATE and DELETE: ${facts.bare.map(qualifiedName).join(", ")}`
    const remedy = facts.bare.map((bare) => `ALTER TABLE ${qualifiedName(bare)} REPLICA IDENTITY FULL`).join("; ")
    yield problem("noReplicaIdentity", facts, { names, detail, remedy })
  } else if (writes.length > 0 && facts.kind === "r" && !isFull && facts.identity.length === 0) {
    const detail = "has no replica identity: the source refuses its UPDATE and DELETE"
    const remedy =
      facts.replicaIdentity === "d"
        ? `${keys.length > 0 ? `${alter} ADD PRIMARY KEY (${list(keys)})` : "give it a primary key"}, or: ${alter} REPLICA IDENTITY FULL`
        : `${alter} REPLICA IDENTITY DEFAULT, if it has a primary key, or FULL`
    yield problem("noReplicaIdentity", facts, { detail, remedy })
  }
  for (const sent of writes) {
    const identity = isFull ? facts.columns.map(({ name }) => name) : facts.identity
    const unsentKey = identity.filter((column) => !sent.columns.includes(column))
    if (sent.hasColumnList && (isFull || unsentKey.length > 0)) {
      const detail = `has a column list in "${sent.publication}" that does not cover its replica identity: the source refuses its UPDATE and DELETE`
      const remedy = isFull
        ? `publish all its columns, or: ${alter} REPLICA IDENTITY DEFAULT, if it has a primary key`
        : withColumns(facts, sent, [...sent.columns, ...unsentKey])
      yield problem("identityNotPublished", facts, { names: unsentKey, detail, remedy })
    }
    const read = isFull ? [] : sent.filterColumns.filter((column) => !facts.identity.includes(column))
    if (read.length > 0) {
      const detail = `has a row filter in "${sent.publication}" on columns outside its replica identity, ${list(read)}: the source refuses its UPDATE and DELETE`
      yield problem("filterNotInIdentity", facts, { names: read, detail, remedy: `${alter} REPLICA IDENTITY FULL` })
    }
  }
  // As when a relation is first seen, see `TypedChanges.ts`: what is not sent is no key of what is.
  const sentKeys = facts.identity.filter((column) => facts.published.every(({ columns }) => columns.includes(column)))
  const notKey = keys.filter((column) => !sentKeys.includes(column))
  if (sentKeys.length > 0 && notKey.length > 0) {
    const detail = `does not have the declared key columns ${list(notKey)} in its replica identity`
    const remedy = `declare as key the columns ${list(sentKeys)}, or choose: ${alter} REPLICA IDENTITY USING INDEX`
    yield problem("keyNotInIdentity", facts, { names: notKey, detail, remedy })
  }
}

/** Operations are a publication's, and told once for each. */
const operationProblem = (facts: TableFacts, context: CheckContext): Problem | undefined => {
  const senders = context.publications.filter(({ name }) => facts.published.some((sent) => sent.publication === name))
  const sent = new Set(senders.flatMap(({ operations }) => operations))
  const lacking = context.operations.filter((operation) => !sent.has(operation))
  const [sender] = senders
  if (sender === undefined || lacking.length === 0) return undefined
  const publish = [...sender.operations, ...lacking].join(", ")
  return {
    problem: "operationNotPublished",
    names: lacking,
    detail: `publication ${quoteIdentifier(sender.name)} does not publish ${lacking.join(", ")}`,
    remedy: `ALTER PUBLICATION ${quoteIdentifier(sender.name)} SET (publish = '${publish}')`
  }
}

/** Everything that is not as declared, table by table in the order they were given. `facts` has one for each table. */
export const problemsOf = (
  tables: ReadonlyArray<Any>,
  facts: ReadonlyArray<TableFacts>,
  context: CheckContext
): ReadonlyArray<Problem> => {
  const operations = new Map<string, Problem>()
  const ofTables = tables.flatMap((table, index): ReadonlyArray<Problem> => {
    const found = facts[index]!
    if (found.kind === null) {
      const remedy = "create it, or declare it by the schema and name, in the case, that it has"
      return [problem("tableMissing", found, { detail: "does not exist", remedy })]
    }
    if (found.published.length === 0) return [unsent(found, context), ...columnProblems(table, found, context)]
    const lacking = operationProblem(found, context)
    if (lacking !== undefined) operations.set(lacking.detail, lacking)
    return [
      ...columnProblems(table, found, context),
      ...publishedProblems(found),
      ...identityProblems(table, found, context)
    ]
  })
  return [...operations.values(), ...ofTables]
}
