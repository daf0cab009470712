/**
 * What wal2json has told of each table so far, as `Relation`s. It describes no table as such: every change repeats the
 * names and types of the columns it holds, and leaves out what it has no value for. So a shape is learned, not read.
 *
 * - An insert names all columns. So do the old row and the new one of an update under REPLICA IDENTITY FULL.
 * - Any other update leaves out unchanged TOAST columns, which only types of variable length have. A column of fixed
 *   length that is missing has been dropped; any other missing one is taken for unchanged until an insert tells more.
 * - A delete under any other identity names the identity's columns only.
 *
 * A `Relation` grows in silence while it is being learned. Only what contradicts a thing known is a change of shape.
 */
import { isSame, type Relation } from "../change/Relation.ts"
import { DecodeError } from "../ReplicationError.ts"
import { builtinByOid, builtinTypeName } from "../values/BuiltinCatalog.ts"
import type { TypeDecoder, Types } from "../values/TypeDecoder.ts"
import { decoderForName, decoderForOid, guarded, onUndecodable, withoutModifiers } from "../values/TypeDecoder.ts"
import type { Column, RowMessage } from "./Wal2JsonMessage.ts"

/** How much of a table is known: a part of the columns, all that cannot be TOASTed, or all. */
type Knowledge = "some" | "fixed" | "all"

/** A column, and how its values are decoded. */
export interface ColumnShape {
  readonly name: string
  readonly type: string | undefined
  readonly typeoid: string
  readonly decode: TypeDecoder
}

/** A table as far as it is known. */
export interface TableShape {
  readonly relation: Relation
  readonly columns: ReadonlyArray<ColumnShape>
  readonly knowledge: Knowledge
  /** Names of the replica identity's columns, once an update or delete has told them. */
  readonly identity: ReadonlyArray<string> | undefined
  readonly primaryKey: ReadonlyArray<string> | undefined
}

/** The shape a change has, and the one it contradicts. */
export interface Described {
  readonly shape: TableShape
  readonly before: Relation | undefined
  /** Whether the row before was given whole: REPLICA IDENTITY FULL, as far as can be told. */
  readonly isFull: boolean
}

/** Built-in types whose `typlen` is not -1: they are never TOASTed, and never left out of a new row. */
const fixedLength = new Set([
  16, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 600, 601, 603, 628, 700, 701, 718, 774, 790, 829, 1082, 1083, 1114, 1184,
  1186, 1266, 2202, 2203, 2204, 2205, 2206, 2950, 3220, 3734, 3769, 4089, 4096, 4191, 5069
])

/**
 * A string of its own. One cut from a message would keep all of the message alive for as long as the shape is
 * remembered, and a message may be a gigabyte.
 */
const detached = (text: string): string => JSON.parse(JSON.stringify(text)) as string

const sameNames = (self: ReadonlyArray<string> | undefined, that: ReadonlyArray<string> | undefined): boolean =>
  self === that ||
  (self !== undefined &&
    that !== undefined &&
    self.length === that.length &&
    self.every((name, index) => name === that[index]))

const namesOf = (columns: ReadonlyArray<Pick<Column, "name">>): ReadonlyArray<string> =>
  columns.map((column) => column.name)

const sameColumn = (self: ColumnShape, that: Column): boolean =>
  self.name === that.name && self.type === that.type && self.typeoid === that.typeoid

/** `atttypmod` out of the modifiers that `format_type` prints; -1 for none, and where they do not print in full. */
const typeModifier = (type: string | undefined): number => {
  const match = type === undefined ? null : /^([a-z ]+)\(([0-9]+)(?:,(-?[0-9]+))?\)/.exec(type)
  if (match === null) return -1
  const first = Number(match[2])
  switch (match[1]) {
    case "character varying":
    case "character":
      return first + 4
    case "numeric":
      return ((first << 16) | (Number(match[3] ?? 0) & 0x7ff)) + 4
    case "bit":
    case "bit varying":
    case "time":
    case "timestamp":
      return first
    default:
      return -1
  }
}

/** What a change names in table order, each column once: its old row fills the gaps of the new one. */
const namedColumns = (row: RowMessage): ReadonlyArray<Column> => {
  const { columns, identity } = row
  if (identity === undefined || identity.length === 0) return columns
  if (columns.length === 0) return identity
  const names = new Set(namesOf(columns))
  return identity.every((column) => names.has(column.name)) ? columns : mergeColumns(identity, columns)
}

/** `that` in its own order, and what only `self` has, each behind the column that it follows there. */
const mergeColumns = <A extends Pick<Column, "name">>(
  self: ReadonlyArray<A>,
  that: ReadonlyArray<A>
): ReadonlyArray<A> => {
  const names = new Set(namesOf(that))
  const first: Array<A> = []
  const behind = new Map<string, Array<A>>()
  let followers = first
  for (const column of self) {
    if (names.has(column.name)) {
      followers = behind.get(column.name) ?? []
      behind.set(column.name, followers)
    } else {
      followers.push(column)
    }
  }
  return [...first, ...that.flatMap((column) => [column, ...(behind.get(column.name) ?? [])])]
}

export interface TableShapesOptions {
  readonly types: Types
  /** Whether an identity is given with its nulls, so that its columns are the same for each row. Format 1 drops them. */
  readonly hasWholeIdentity: boolean
}

export class TableShapes {
  private readonly schemas = new Map<string, Map<string, TableShape>>()
  private readonly options: TableShapesOptions

  constructor(options: TableShapesOptions) {
    this.options = options
  }

  /** A table of which nothing but the name need be known, as in a truncate. */
  named(schema: string, table: string): Relation {
    const known = this.find(schema, table)
    if (known !== undefined) return known.relation
    return this.remember(this.make(schema, table, { columns: [], knowledge: "some" })).relation
  }

  /** The shape of the table that `row` is of, learned further from it. */
  describe(row: RowMessage): Described {
    const known = this.find(row.schema, row.table)
    const isFull = this.isFull(row, known)
    const told = knowledgeOf(row, isFull && this.options.hasWholeIdentity)
    const identity = this.options.hasWholeIdentity && row.identity !== undefined ? namesOf(row.identity) : undefined
    if (known === undefined) {
      const columns = namedColumns(row)
      return {
        shape: this.remember(
          this.make(row.schema, row.table, {
            columns: this.columnShapes(row, columns),
            knowledge: told,
            identity,
            primaryKey: row.primaryKey
          })
        ),
        before: undefined,
        isFull
      }
    }
    const hasIdentity = identity === undefined || sameNames(known.identity, identity)
    const hasPrimaryKey = row.primaryKey === undefined || sameNames(known.primaryKey, row.primaryKey)
    if (hasIdentity && hasPrimaryKey && hasSameColumns(known, row, told)) {
      return { shape: known, before: undefined, isFull }
    }
    return { ...this.relearn(known, row, told, identity), isFull }
  }

  /**
   * Whether the identity is the whole row before. wal2json does not say; an identity that holds the primary key and
   * more is, one that covers all columns known, and one that holds a null, for no index with nullable columns may
   * serve.
   */
  private isFull({ columns, identity, primaryKey }: RowMessage, known: TableShape | undefined): boolean {
    if (identity === undefined || identity.length === 0) return false
    if (primaryKey !== undefined && sameNames(namesOf(identity), primaryKey)) return false
    if (this.options.hasWholeIdentity && identity.some((column) => column.value === null)) return true
    const names = new Set(namesOf(identity))
    const holds = (all: ReadonlyArray<string>): boolean => all.length > 0 && all.every((name) => names.has(name))
    if (primaryKey !== undefined && holds(primaryKey)) return true
    if (columns.length > 0) return holds(namesOf(columns))
    return known !== undefined && known.knowledge !== "some" && holds(namesOf(known.columns))
  }

  /** The table as it was known, set right by what `row` tells. */
  private relearn(
    known: TableShape,
    row: RowMessage,
    told: Knowledge,
    identity: ReadonlyArray<string> | undefined
  ): Pick<Described, "shape" | "before"> {
    const named = namedColumns(row)
    const names = new Set(namesOf(named))
    const kept = known.columns.filter(
      (column) => names.has(column.name) || told === "some" || (told === "fixed" && mayBeLeftOut(column))
    )
    const before = new Map(known.columns.map((column) => [column.name, column]))
    const now = this.columnShapes(row, named, before)
    const columns = mergeColumns(kept, now)
    const isContradicted =
      kept.length < known.columns.length ||
      !sameNames(namesOf(columns.filter((column) => before.has(column.name))), namesOf(kept)) ||
      now.some((column) => {
        const old = before.get(column.name)
        if (old !== undefined) return old !== column
        return known.knowledge === "all" || (known.knowledge === "fixed" && !mayBeLeftOut(column))
      }) ||
      (identity !== undefined && known.identity !== undefined && !sameNames(identity, known.identity)) ||
      (row.primaryKey !== undefined && known.primaryKey !== undefined && !sameNames(row.primaryKey, known.primaryKey))
    const shape = this.make(known.relation.schema, known.relation.name, {
      columns,
      knowledge: told === "all" || known.knowledge === "some" ? told : known.knowledge,
      identity: identity ?? known.identity,
      primaryKey: row.primaryKey ?? known.primaryKey
    })
    if (isSame(known.relation, shape.relation)) {
      return { shape: this.remember({ ...shape, relation: known.relation }), before: undefined }
    }
    return { shape: this.remember(shape), before: isContradicted ? known.relation : undefined }
  }

  private find(schema: string, table: string): TableShape | undefined {
    return this.schemas.get(schema)?.get(table)
  }

  private remember(shape: TableShape): TableShape {
    const { name, schema } = shape.relation
    const tables = this.schemas.get(schema) ?? new Map<string, TableShape>()
    tables.set(name, shape)
    this.schemas.set(schema, tables)
    return shape
  }

  /** The shapes of `columns`: those in `before` that are as they were, the others made anew. */
  private columnShapes(
    row: RowMessage,
    columns: ReadonlyArray<Column>,
    before?: ReadonlyMap<string, ColumnShape>
  ): ReadonlyArray<ColumnShape> {
    // Once for all columns: they share it.
    const schema = detached(row.schema)
    const relation = detached(row.table)
    return columns.map((column) => {
      const old = before?.get(column.name)
      return old !== undefined && sameColumn(old, column) ? old : this.columnShape(schema, relation, column)
    })
  }

  private columnShape(schema: string, relation: string, column: Column): ColumnShape {
    const { types } = this.options
    const name = detached(column.name)
    // A quoted name has lost its quotes as JSON took them for its own, but not in an array's name.
    const type = column.type === undefined ? undefined : detached(column.type)
    const typeoid = detached(column.typeoid)
    const oid = Number(typeoid) >>> 0
    const decoder =
      type === undefined || (types !== "text" && types.byOid?.has(oid)) || builtinByOid(oid) !== undefined
        ? decoderForOid(oid, types)
        : decoderForName(type.replace(/^"(.+)"\[\]$/, "$1[]"), types)
    const place = { schema, relation, column: name, type: type ?? typeoid }
    return { name, type, typeoid, decode: guarded(decoder.decode, place, onUndecodable(types)) }
  }

  private make(
    schema: string,
    table: string,
    known: {
      readonly columns: ReadonlyArray<ColumnShape>
      readonly knowledge: Knowledge
      readonly identity?: ReadonlyArray<string> | undefined
      readonly primaryKey?: ReadonlyArray<string> | undefined
    }
  ): TableShape {
    const { columns, identity, knowledge, primaryKey } = known
    const key = new Set(identity ?? primaryKey ?? [])
    if (new Set(namesOf(columns)).size < columns.length) {
      throw new DecodeError({ problem: "a row that names a column twice", offset: 0 })
    }
    return {
      relation: {
        oid: 0,
        schema: detached(schema),
        name: detached(table),
        replicaIdentity: undefined,
        columns: columns.map(({ name, type, typeoid }) => {
          const typeOid = Number(typeoid) >>> 0
          const builtin = builtinByOid(typeOid)
          return {
            name,
            isKey: key.has(name),
            typeOid,
            typeName: builtin === undefined ? type && withoutModifiers(type) : builtinTypeName(builtin),
            typeModifier: typeModifier(type)
          }
        })
      },
      columns,
      knowledge,
      identity: identity?.map(detached),
      primaryKey: primaryKey?.map(detached)
    }
  }
}

/** What a change tells of its table's columns. */
const knowledgeOf = (row: RowMessage, isWhole: boolean): Knowledge =>
  row.action === "I" || isWhole ? "all" : row.action === "U" ? "fixed" : "some"

/** Whether an update may leave the column out: it may be TOASTed. Not known of types that are not built in. */
const mayBeLeftOut = (column: ColumnShape): boolean => !fixedLength.has(Number(column.typeoid))

/** Whether `columns` are those of `known`, in its order, without any that may be left out. */
const areKnown = (
  known: TableShape,
  columns: ReadonlyArray<Column>,
  maybeAbsent: (column: ColumnShape) => boolean
): boolean => {
  let next = 0
  for (const column of known.columns) {
    const other = columns[next]
    if (other !== undefined && sameColumn(column, other)) next++
    else if (!maybeAbsent(column)) return false
  }
  return next === columns.length
}

const always = (): boolean => true
const never = (): boolean => false

/** The quick way, for each change: whether all that `row` tells is known already. */
const hasSameColumns = (known: TableShape, row: RowMessage, told: Knowledge): boolean => {
  if (told === "all" && known.knowledge !== "all") return false
  if (told === "fixed" && known.knowledge === "some") return false
  const { action, columns, identity } = row
  return (
    (action === "D" || areKnown(known, columns, action === "I" ? never : mayBeLeftOut)) &&
    (identity === undefined || areKnown(known, identity, told === "all" ? never : always))
  )
}
