/**
 * The relations and types a stream has described, by OID, each with the readers of its rows. It lives and dies with the
 * stream, as the walsender describes everything anew on each, and holds one entry an OID however often that is resent.
 */
import * as Relation from "../change/Relation.ts"
import { builtinByName, builtinByOid, builtinTypeName } from "../values/BuiltinTypes.ts"
import { decoderForOid, type QualifiedName, type TypeDecoders } from "../values/TypeDecoder.ts"
import type { RelationMessage, TypeMessage } from "./LogicalMessage.ts"
import { makeRowReader } from "./RowReader.ts"
import type { ColumnReader, RowReader } from "./Tuple.ts"

/** A relation and how its tuples are read. */
export class KnownRelation {
  readonly relation: Relation.Relation
  /** Whole tuples: new rows, and old ones under `REPLICA IDENTITY FULL`. */
  readonly readRow: RowReader
  /** Key tuples: of these, only the columns of the replica identity. */
  readonly readKey: RowReader

  constructor(relation: Relation.Relation, columns: ReadonlyArray<ColumnReader>) {
    this.relation = relation
    this.readRow = makeRowReader(columns)
    this.readKey = makeRowReader(
      columns.map((column, index) => ({ ...column, isRead: relation.columns[index]!.isKey }))
    )
  }
}

const typeName = (oid: number, named: QualifiedName | undefined): string | undefined => {
  if (named === undefined) {
    const known = builtinByOid(oid)
    return known === undefined ? undefined : builtinTypeName(known)
  }
  const base = named.schema === "" ? builtinByName(named.name) : undefined
  return base === undefined ? named.name : builtinTypeName(base)
}

export class RelationCache {
  private readonly relations = new Map<number, KnownRelation>()
  private readonly types = new Map<number, QualifiedName>()
  private readonly decoders: TypeDecoders

  constructor(decoders: TypeDecoders) {
    this.decoders = decoders
  }

  get(oid: number): KnownRelation | undefined {
    return this.relations.get(oid)
  }

  /** Remembers a type's name for the relations that follow. */
  describeType(message: TypeMessage): void {
    this.types.set(message.oid, { schema: message.schema, name: message.name })
  }

  /** Remembers a relation; one that was described the same before stays, with its readers. */
  describeRelation(message: RelationMessage): KnownRelation {
    const relation: Relation.Relation = {
      ...message,
      columns: message.columns.map(({ isKey, name, typeModifier, typeOid }) => ({
        name,
        isKey,
        typeOid,
        typeName: typeName(typeOid, this.types.get(typeOid)),
        typeModifier
      }))
    }
    const before = this.relations.get(message.oid)
    if (before !== undefined && Relation.isSame(before.relation, relation) && hasSameTypes(before.relation, relation)) {
      return before
    }
    const known = new KnownRelation(relation, this.columnReaders(relation))
    this.relations.set(message.oid, known)
    return known
  }

  private columnReaders(relation: Relation.Relation): ReadonlyArray<ColumnReader> {
    return relation.columns.map((column) => ({
      name: column.name,
      isRead: true,
      decoder: decoderForOid(column.typeOid, this.decoders, this.types.get(column.typeOid)),
      place: {
        schema: relation.schema,
        relation: relation.name,
        column: column.name,
        type: column.typeName ?? `type with OID ${column.typeOid}`
      },
      onUndecodable: this.decoders.onUndecodable
    }))
  }
}

/** A renamed type may have another decoder, though the relation's shape is the same. */
const hasSameTypes = (self: Relation.Relation, that: Relation.Relation): boolean =>
  self.columns.every((column, index) => column.typeName === that.columns[index]!.typeName)
