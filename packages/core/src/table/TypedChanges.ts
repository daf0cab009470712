/**
 * From changes to the typed changes of a set of tables, in one plain loop per array. Changes of tables outside the set are
 * dropped; everything that is no row's change passes, so `nextLsn` loses nothing.
 *
 * A decoder remembers what it made of each relation, by the relation's identity, and nothing else: one serves any number of
 * streams and connections. It performs no effects; `stream/Table.ts` puts it on streams.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Change, Delete, Insert, Truncate, OldRow as UntypedOldRow, Update } from "../change/Change.ts"
import { keyColumns, type Relation } from "../change/Relation.ts"
import { describeIssue } from "./describeIssue.ts"
import { type DecodeRow, Misfit, RowDecoder } from "./RowDecoder.ts"
import type { Any } from "./Table.ts"
import { RowMismatch, type TableError, TableMismatch } from "./TableError.ts"
import type { OnMismatch, TypedChange } from "./TypedChange.ts"

/** What becomes of a row that does not fit its Schema. */
export interface TypedOptions<Policy extends OnMismatch> {
  /** `fail` when left out. A relation that lacks declared columns fails under both. */
  readonly onMismatch?: Policy | undefined
}

type RowChange = Insert | Update | Delete

/** What is known of a relation of the set. */
interface Plan {
  readonly table: Any
  readonly rows: RowDecoder
  readonly decodeKey: DecodeRow
  /** Declared columns that the relation may have all the same, and that its updates may leave out, name and all. */
  readonly untold: ReadonlyArray<string>
}

const none: ReadonlyArray<string> = Object.freeze([])

/** Whether a row may lack the column: it is declared with `Schema.optionalKey`. */
export const isOptional = (field: Schema.Constraint): boolean =>
  Schema.toEncoded(field).ast.context?.isOptional === true

/** wal2json describes no tables: a relation of its names the columns that were seen so far, and not its identity. */
const isLearned = (relation: Relation): boolean => relation.replicaIdentity === undefined

const untold = (table: Any, relation: Relation): ReadonlyArray<string> => {
  const seen = new Set(relation.columns.map((column) => column.name))
  return isLearned(relation) ? Array.from(table.columns.values()).filter((column) => !seen.has(column)) : none
}

/** What the relation lacks of what was declared. */
const lacking = (table: Any, relation: Relation): Pick<TableMismatch, "problem" | "columns"> | undefined => {
  if (isLearned(relation)) return undefined
  const columns = new Map(relation.columns.map((column) => [column.name, column]))
  const missing = Array.from(table.columns)
    .filter(([property, column]) => !columns.has(column) && !isOptional(table.rowSchema.fields[property]!))
    .map(([, column]) => column)
  if (isReadonlyArrayNonEmpty(missing)) return { problem: "missing", columns: missing }
  // A table without a key sends inserts alone.
  const { replicaIdentity } = relation
  const hasKey = relation.columns.some((column) => column.isKey)
  if (!hasKey || (replicaIdentity !== "default" && replicaIdentity !== "index")) return undefined
  const notKey = table.key
    .map((property) => table.columns.get(property) ?? property)
    .filter((column) => columns.get(column)?.isKey !== true)
  return isReadonlyArrayNonEmpty(notKey) ? { problem: "notKey", columns: notKey } : undefined
}

/** The declared properties that the relation has as key. */
const keyOf = (table: Any, relation: Relation): ReadonlyArray<string> => {
  const keys = new Set(keyColumns(relation))
  return Array.from(table.columns)
    .filter(([, column]) => keys.has(column))
    .map(([property]) => property)
}

/** What an update left out, where the relation does not say all. */
const absentOf = (plan: Plan, { row, unchanged }: Update): ReadonlyArray<string> => [
  ...unchanged,
  ...plan.untold.filter((column) => !Object.hasOwn(row, column))
]

/** `.items[0].price` */
const formatPath = (path: ReadonlyArray<string | number>): string =>
  path.map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`)).join("")

const rowMismatch = (plan: Plan, change: RowChange, tuple: "row" | "old", { error }: Misfit): RowMismatch => {
  const { expected, path } = Schema.isSchemaError(error)
    ? describeIssue(error.issue, [], plan.table.rowSchema.ast)
    : { path: [], expected: "a row that decodes without throwing or waiting" }
  const [property, ...within] = path
  const column = plan.table.columns.get(String(property))
  const unsent = tuple === "row" && change._tag !== "Delete" ? change.unchanged : none
  return new RowMismatch({
    schema: change.relation.schema,
    relation: change.relation.name,
    operation: change._tag,
    tuple,
    column,
    path: formatPath(within),
    expected,
    commitLsn: change.begin.commitLsn,
    ordinal: change.ordinal,
    isUnsent: column !== undefined && unsent.includes(column)
  })
}

/** Fills arrays with typed changes. What it pushes is of `TypedChange<T, Policy>`, for the tables and policy it was given. */
export class TypedChanges<T extends Any, Policy extends OnMismatch> {
  private readonly onMismatch: OnMismatch
  /** By schema, then name: names hold dots. */
  private readonly tables = new Map<string, Map<string, { readonly table: Any; readonly rows: RowDecoder }>>()
  private readonly plans = new WeakMap<Relation, Plan | "outside">()
  private lastRelation: Relation | undefined
  private lastPlan: Plan | "outside" = "outside"

  constructor(tables: ReadonlyArray<T>, options: TypedOptions<Policy> = {}) {
    this.onMismatch = options.onMismatch ?? "fail"
    const labels = new Set<string>()
    for (const table of tables) {
      const { name, schema } = table.relation
      const ofSchema = this.tables.get(schema) ?? new Map()
      if (ofSchema.has(name) || labels.has(table.name)) throw new Error(`two tables of a set are named ${table.name}`)
      labels.add(table.name)
      this.tables.set(schema, ofSchema.set(name, { table, rows: new RowDecoder(table) }))
    }
  }

  /** Appends what `changes` say of the set's tables to `typed`, up to a failure, which is returned. */
  append(changes: ReadonlyArray<Change>, typed: Array<TypedChange<T, Policy>>): TableError | undefined {
    // One cast here instead of one per push: the set's tables are known to the type system by their union alone.
    const out = typed as Array<unknown>
    for (const change of changes) {
      switch (change._tag) {
        case "Insert":
        case "Update":
        case "Delete": {
          const plan = change.relation === this.lastRelation ? this.lastPlan : this.planOf(change)
          if (plan === "outside") break
          if (plan instanceof TableMismatch) return plan
          const made = this.decode(plan, change)
          if (!(made instanceof RowMismatch)) out.push(made)
          else if (this.onMismatch === "fail") return made
          else out.push({ _tag: "Untyped", table: plan.table.name, change, mismatch: made })
          break
        }
        case "Truncate": {
          const truncate = this.truncate(change)
          if (truncate !== undefined) out.push(truncate)
          break
        }
        case "RelationChanged":
          if (this.find(change.relation) !== undefined || this.find(change.before) !== undefined) out.push(change)
          break
        default:
          out.push(change)
      }
    }
    return undefined
  }

  private find(relation: Relation) {
    return this.tables.get(relation.schema)?.get(relation.name)
  }

  private planOf({ begin, relation }: RowChange): Plan | "outside" | TableMismatch {
    let plan = this.plans.get(relation)
    if (plan === undefined) {
      const declared = this.find(relation)
      if (declared === undefined) plan = "outside"
      else {
        const { rows, table } = declared
        const lack = lacking(table, relation)
        if (lack !== undefined) {
          const { name, schema } = relation
          return new TableMismatch({ schema, relation: name, ...lack, commitLsn: begin.commitLsn })
        }
        const key = table.key.length > 0 ? table.key : keyOf(table, relation)
        plan = { table, rows, decodeKey: rows.only(key), untold: untold(table, relation) }
      }
      this.plans.set(relation, plan)
    }
    this.lastRelation = relation
    this.lastPlan = plan
    return plan
  }

  private decode(plan: Plan, change: RowChange): unknown {
    const { begin, ordinal, relation } = change
    const table = plan.table.name
    if (change._tag === "Delete") {
      const old = this.decodeOld(plan, change.old)
      if (old instanceof Misfit) return rowMismatch(plan, change, "old", old)
      return { _tag: "Delete", table, begin, ordinal, relation, old }
    }
    const absent = change._tag === "Insert" || plan.untold.length === 0 ? change.unchanged : absentOf(plan, change)
    const part = absent.length === 0 ? undefined : plan.rows.without(absent)
    const unchanged = part === undefined ? none : part.unchanged
    if (change._tag === "Insert") {
      const row = plan.rows.full(change.row)
      if (row instanceof Misfit) return rowMismatch(plan, change, "row", row)
      return { _tag: "Insert", table, begin, ordinal, relation, row, unchanged }
    }
    const isComplete = unchanged.length === 0
    const row = part === undefined ? plan.rows.full(change.row) : part.decode(change.row)
    if (row instanceof Misfit) return rowMismatch(plan, change, "row", row)
    const old = change.old === undefined ? undefined : this.decodeOld(plan, change.old)
    if (old instanceof Misfit) return rowMismatch(plan, change, "old", old)
    return { _tag: "Update", table, begin, ordinal, relation, isComplete, row, unchanged, old }
  }

  private decodeOld(plan: Plan, old: UntypedOldRow): unknown {
    const row = old._tag === "Full" ? plan.rows.full(old.row) : plan.decodeKey(old.row)
    return row instanceof Misfit ? row : { _tag: old._tag, row }
  }

  private truncate(change: Truncate): unknown {
    const relations = change.relations.filter((relation) => this.find(relation) !== undefined)
    if (relations.length === 0) return undefined
    const { begin, cascade, ordinal, restartIdentity } = change
    const tables = relations.map((relation) => this.find(relation)!.table.name)
    return { _tag: "Truncate", tables, relations, begin, ordinal, cascade, restartIdentity }
  }
}

/**
 * A function from changes to the typed changes of these tables, for arrays from anywhere: a read, a `Transaction`. Compiled
 * once; make it once and keep it. Throws when two tables have one name.
 *
 * @example
 * const decode = Table.decoder([Orders, Customers])
 * Handler.transactions(({ changes }) => Effect.flatMap(Effect.fromResult(decode(changes)), store))
 */
export const decoder = <T extends Any, Policy extends OnMismatch = "fail">(
  tables: ReadonlyArray<T>,
  options?: TypedOptions<Policy>
): ((changes: ReadonlyArray<Change>) => Result.Result<ReadonlyArray<TypedChange<T, Policy>>, TableError>) => {
  const set = new TypedChanges(tables, options)
  return (changes) => {
    const typed: Array<TypedChange<T, Policy>> = []
    const failure = set.append(changes, typed)
    return failure === undefined ? Result.succeed(typed) : Result.fail(failure)
  }
}
