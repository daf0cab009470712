/**
 * The relations and types a stream has described, by OID, each with the readers of its rows. It lives and dies with the
 * stream, as the walsender describes everything anew on each, and holds one entry an OID however often that is resent.
 */
import type { CopiedRows, CopiedTable } from "../change/OutputPlugin.ts"
import * as Relation from "../change/Relation.ts"
import { DecodeError } from "../ReplicationError.ts"
import { binaryTypeForOid } from "../values/BinaryType.ts"
import { builtinByName, builtinByOid, builtinTypeName } from "../values/BuiltinCatalog.ts"
import {
  decoderForOid,
  onUndecodable,
  type QualifiedName,
  type Types,
  type ValueDecoder,
  type ValuePlace
} from "../values/TypeDecoder.ts"
import { type BinaryColumn, makeBinaryColumn } from "./BinaryColumn.ts"
import { makeCopyReader } from "./CompiledCopyReader.ts"
import type { CopyScratch } from "./CopyRow.ts"
import { identityOfLetter, type RelationMessage, type TypeMessage } from "./LogicalMessage.ts"
import { makeRowReader } from "./RowReader.ts"
import type { ColumnReader, RowReader } from "./Tuple.ts"

/** A relation and how its tuples are read. */
export class KnownRelation {
  readonly relation: Relation.Relation
  /** Whole tuples: new rows, and old ones under `REPLICA IDENTITY FULL`. */
  readonly readRow: RowReader
  /** Key tuples: of these, only the columns of the replica identity. */
  readonly readKey: RowReader
  private readonly columns: ReadonlyArray<ColumnReader>
  private readCopied: CopiedRows["readRow"] | undefined

  constructor(relation: Relation.Relation, columns: ReadonlyArray<ColumnReader>) {
    this.relation = relation
    this.columns = columns
    this.readRow = makeRowReader(columns)
    this.readKey = makeRowReader(
      columns.map((column, index) => ({ ...column, isRead: relation.columns[index]!.isKey }))
    )
  }

  /** The reader of whole rows, as COPY sends them: made once, with the scratch of the one decoder that has this. */
  copyReader(scratch: CopyScratch): CopiedRows["readRow"] {
    this.readCopied ??= makeCopyReader(this.columns, scratch)
    return this.readCopied
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

/** Shapes of one relation that are kept, beside those in use: it has as many at a time as transactions have altered it. */
const mostDescribed = 4

/** How values come, and what becomes of them. */
export interface Formats {
  readonly decoders: Types
  /** The enums by name where binary format was asked for; `undefined` for text. */
  readonly binaryEnums?: ReadonlySet<string> | undefined
}

export class RelationCache {
  private readonly relations = new Map<number, KnownRelation>()
  private readonly types = new Map<number, QualifiedName>()
  private readonly formats: Formats
  private readonly parent: RelationCache | undefined
  /** What was described last of each relation, wherever: transactions in progress that see the same get the same object. */
  private readonly described: Map<number, ReadonlyArray<KnownRelation>>

  constructor(
    formats: Formats,
    parent?: RelationCache | undefined,
    described: Map<number, ReadonlyArray<KnownRelation>> = parent?.described ?? new Map()
  ) {
    this.formats = formats
    this.parent = parent
    this.described = described
  }

  /**
   * An empty one that lies over this. A transaction in progress is described all it uses, and sees only that: it may have
   * altered a table, and until it commits nobody else knows.
   */
  within(): RelationCache {
    return new RelationCache(this.formats, this)
  }

  get(oid: number): KnownRelation | undefined {
    return this.relations.get(oid)
  }

  /** What `oid` was before it was described here. */
  before(oid: number): KnownRelation | undefined {
    return this.relations.get(oid) ?? this.parent?.before(oid)
  }

  private typeOf(oid: number): QualifiedName | undefined {
    return this.types.get(oid) ?? this.parent?.typeOf(oid)
  }

  /** One that holds these as they are now, whatever becomes of this. */
  snapshot(oids: Iterable<number>): RelationCache {
    const copy = new RelationCache(this.formats, undefined, this.described)
    for (const oid of oids) {
      const known = this.relations.get(oid)
      if (known !== undefined) copy.relations.set(oid, known)
    }
    return copy
  }

  /** Takes over what one that lay over this has learnt: of relations, those that `isNewer` accepts. */
  adopt(child: RelationCache, isNewer: (oid: number) => boolean): void {
    for (const [oid, type] of child.types) this.types.set(oid, type)
    for (const [oid, known] of child.relations) if (isNewer(oid)) this.relations.set(oid, known)
  }

  /** Remembers a type's name for the relations that follow. */
  describeType(message: TypeMessage): void {
    this.types.set(message.oid, { schema: message.schema, name: message.name })
  }

  /**
   * Remembers a relation; one that was described the same before stays, with its readers. Throws a `DecodeError` for one
   * with a column whose binary format is not understood: here and not at its rows, before anything of it is delivered.
   */
  describeRelation(message: RelationMessage): KnownRelation {
    const relation: Relation.Relation = {
      ...message,
      columns: message.columns.map(({ isKey, name, typeModifier, typeOid }) => ({
        name,
        isKey,
        typeOid,
        typeName: typeName(typeOid, this.typeOf(typeOid)),
        typeModifier
      }))
    }
    const isKnown = (known: KnownRelation | undefined): known is KnownRelation =>
      known !== undefined && Relation.isSame(known.relation, relation) && hasSameTypes(known.relation, relation)
    const before = this.before(message.oid)
    const known = isKnown(before) ? before : this.described.get(message.oid)?.find(isKnown)
    return known === undefined
      ? this.remember(new KnownRelation(relation, this.columnReaders(relation)))
      : this.use(known)
  }

  private remember(known: KnownRelation): KnownRelation {
    const { oid } = known.relation
    this.described.set(oid, [known, ...(this.described.get(oid) ?? [])].slice(0, mostDescribed))
    return this.use(known)
  }

  private use(known: KnownRelation): KnownRelation {
    this.relations.set(known.relation.oid, known)
    return known
  }

  /** Remembers a table of the catalog, as if the walsender had described its types and then itself. */
  describeTable({ columns, name, oid, replicaIdentity, schema }: CopiedTable): KnownRelation {
    for (const { type, typeOid } of columns) if (type !== null) this.types.set(typeOid, type)
    return this.describeRelation({
      oid,
      schema,
      name,
      replicaIdentity: identityOfLetter(replicaIdentity),
      columns: columns.map(({ isKey, name, typeModifier, typeOid }) => ({ name, isKey, typeOid, typeModifier }))
    })
  }

  private columnReaders(relation: Relation.Relation): ReadonlyArray<ColumnReader> {
    const { decoders } = this.formats
    return relation.columns.map((column) => {
      const decoder = decoderForOid(column.typeOid, decoders, this.typeOf(column.typeOid))
      const place: ValuePlace = {
        schema: relation.schema,
        relation: relation.name,
        column: column.name,
        type: column.typeName ?? `type with OID ${column.typeOid}`
      }
      const binary = this.binaryColumn(column.typeOid, decoder, place)
      return { name: column.name, isRead: true, decoder, binary, place, onUndecodable: onUndecodable(decoders) }
    })
  }

  private binaryColumn(typeOid: number, decoder: ValueDecoder, place: ValuePlace): BinaryColumn | undefined {
    const enums = this.formats.binaryEnums
    if (enums === undefined) return undefined
    const type = binaryTypeForOid(typeOid, this.typeOf(typeOid), enums)
    if (type !== undefined) return makeBinaryColumn(type, decoder)
    const where = `column "${place.column}" of "${place.schema}"."${place.relation}"`
    throw new DecodeError({
      problem: `${where} is of a type, ${place.type}, whose binary format is not understood: use format "text", or name it among enums if it is one`,
      offset: 0
    })
  }
}

/** A renamed type may have another decoder, though the relation's shape is the same. */
const hasSameTypes = (self: Relation.Relation, that: Relation.Relation): boolean =>
  self.columns.every((column, index) => column.typeName === that.columns[index]!.typeName)
