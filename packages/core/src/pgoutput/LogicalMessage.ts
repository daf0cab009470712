/**
 * The messages of the pgoutput plugin, protocol version 1; `StreamMessage.ts` has what later versions add. The decoders here are for all messages but row changes, which
 * `PgoutputDecoder.ts` turns into changes on the spot.
 *
 * | byte | message | payload after it | stands |
 * |---|---|---|---|
 * | `B` | Begin | Int64 LSN of the commit record, Int64 commit time, Int32 xid | outside a transaction |
 * | `M` | Message | Int8 flags (1 transactional), Int64 LSN, String prefix, Int32 length, Byte*n* content | inside, or outside when not transactional |
 * | `O` | Origin | Int64 LSN at the origin, String name | inside |
 * | `R` | Relation | Int32 OID, String schema, String name, Int8 replica identity, Int16 count; each column: Int8 flags (1 key), String name, Int32 type OID, Int32 type modifier | before the first change of its shape |
 * | `Y` | Type | Int32 OID, String schema, String name | before the relation that uses it |
 * | `I` | Insert | Int32 relation OID, `N` TupleData | inside |
 * | `U` | Update | Int32 relation OID, optionally `K` or `O` TupleData, `N` TupleData | inside |
 * | `D` | Delete | Int32 relation OID, `K` or `O` TupleData | inside |
 * | `T` | Truncate | Int32 count, Int8 options (1 cascade, 2 restart identity), Int32 relation OIDs | inside |
 * | `C` | Commit | Int8 flags (0), Int64 commit LSN, Int64 end LSN, Int64 commit time | closes the transaction |
 *
 * TupleData: Int16 count, then for each column `n`, `u`, or `t` or `b` with Int32 length and that many bytes.
 *
 * Each decoder starts behind the byte of its message, throws `DecodeError` and nothing else, and leaves the end of the
 * message to its caller to check.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */

import type { ReplicaIdentity } from "../change/Relation.ts"
import type * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type { ByteReader } from "../protocol/ByteReader.ts"
import { DecodeError } from "../ReplicationError.ts"

/** The bytes that tell messages apart. */
export const tags = {
  begin: 0x42, // B
  commit: 0x43, // C
  delete: 0x44, // D
  insert: 0x49, // I
  message: 0x4d, // M
  origin: 0x4f, // O
  relation: 0x52, // R
  truncate: 0x54, // T
  type: 0x59, // Y
  update: 0x55 // U
} as const

/** The bytes that tell tuples apart. */
export const tuples = {
  key: 0x4b, // K: the columns of the replica identity, the others null
  new: 0x4e, // N
  old: 0x4f // O: the whole row before, under REPLICA IDENTITY FULL
} as const

/** Opens a transaction, and names the commit record it will end with. */
export interface BeginMessage {
  readonly commitLsn: Lsn.Lsn
  readonly commitTime: PgTimestamp.PgTimestamp
  readonly xid: number
}

export const decodeBegin = (reader: ByteReader): BeginMessage => ({
  commitLsn: reader.lsn(),
  commitTime: PgTimestamp.make(reader.int64AsNumber()),
  xid: reader.uint32()
})

/** Closes the transaction that is open. */
export interface CommitMessage {
  readonly commitLsn: Lsn.Lsn
  readonly endLsn: Lsn.Lsn
}

export const decodeCommit = (reader: ByteReader): CommitMessage => {
  const flags = reader.uint8()
  if (flags !== 0) reader.fail(`a commit with flags 0x${flags.toString(16)}; none are known`)
  const commitLsn = reader.lsn()
  const endLsn = reader.lsn()
  reader.skip(8) // the commit time once more, as Begin told it
  return { commitLsn, endLsn }
}

/** Tells that the transaction was replayed on the server from elsewhere. */
export interface OriginMessage {
  readonly originLsn: Lsn.Lsn
  readonly name: string
}

export const decodeOrigin = (reader: ByteReader): OriginMessage => ({
  originLsn: reader.lsn(),
  name: reader.cstring()
})

/** Names a type that is not built in. For a domain, the name is its base type's: then `schema` may be empty. */
export interface TypeMessage {
  readonly oid: number
  /** Empty for `pg_catalog`. */
  readonly schema: string
  readonly name: string
}

export const decodeType = (reader: ByteReader): TypeMessage => ({
  oid: reader.uint32(),
  schema: reader.cstring(),
  name: reader.cstring()
})

export interface RelationMessageColumn {
  readonly isKey: boolean
  readonly name: string
  readonly typeOid: number
  readonly typeModifier: number
}

/** Describes a relation, before its first change and again before the first change after it was altered. */
export interface RelationMessage {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly replicaIdentity: ReplicaIdentity
  readonly columns: ReadonlyArray<RelationMessageColumn>
}

/** By the letter that the catalog has for it too, `pg_class.relreplident`. */
const identities: ReadonlyMap<string, ReplicaIdentity> = new Map([
  ["d", "default"],
  ["n", "nothing"],
  ["f", "full"],
  ["i", "index"]
])

/** What a letter stands for. Throws `DecodeError` for one that nobody knows. */
export const identityOfLetter = (letter: string, offset = 0): ReplicaIdentity => {
  const identity = identities.get(letter)
  if (identity !== undefined) return identity
  throw new DecodeError({ problem: `a relation with replica identity 0x${letter.charCodeAt(0).toString(16)}`, offset })
}

export const decodeRelation = (reader: ByteReader): RelationMessage => {
  const oid = reader.uint32()
  const schema = reader.cstring()
  const name = reader.cstring()
  const replicaIdentity = identityOfLetter(String.fromCharCode(reader.uint8()), reader.offset)
  const count = reader.uint16()
  const columns: Array<RelationMessageColumn> = []
  const names = new Set<string>()
  for (let index = 0; index < count; index++) {
    const flags = reader.uint8()
    if (flags > 1) reader.fail(`a column with flags 0x${flags.toString(16)}; only 1 is known`)
    const column = reader.cstring()
    // A row holds one value a name: of two columns one would vanish.
    if (names.has(column)) reader.fail("a relation with two columns of one name")
    names.add(column)
    columns.push({ isKey: flags === 1, name: column, typeOid: reader.uint32(), typeModifier: reader.int32() })
  }
  return { oid, schema: schema === "" ? "pg_catalog" : schema, name, replicaIdentity, columns }
}

/** One TRUNCATE, of one or more relations. */
export interface TruncateMessage {
  readonly cascade: boolean
  readonly restartIdentity: boolean
  readonly relationOids: ReadonlyArray<number>
}

export const decodeTruncate = (reader: ByteReader): TruncateMessage => {
  const count = reader.uint32()
  const options = reader.uint8()
  if (options > 3) reader.fail(`a truncate with options 0x${options.toString(16)}; 1 and 2 are known`)
  if (count * 4 !== reader.remaining) reader.fail(`a truncate of ${count} relations in ${reader.remaining} bytes`)
  const relationOids: Array<number> = []
  for (let index = 0; index < count; index++) relationOids.push(reader.uint32())
  return { cascade: (options & 1) !== 0, restartIdentity: (options & 2) !== 0, relationOids }
}

/** What `pg_logical_emit_message` wrote. */
export interface LogicalDecodingMessage {
  readonly transactional: boolean
  readonly lsn: Lsn.Lsn
  readonly prefix: string
  /** A copy: may be kept. */
  readonly content: Uint8Array
}

export const decodeMessage = (reader: ByteReader): LogicalDecodingMessage => {
  const flags = reader.uint8()
  if (flags > 1) reader.fail(`a message with flags 0x${flags.toString(16)}; only 1 is known`)
  return {
    transactional: flags === 1,
    lsn: reader.lsn(),
    prefix: reader.cstring(),
    content: reader.copy(reader.int32())
  }
}
