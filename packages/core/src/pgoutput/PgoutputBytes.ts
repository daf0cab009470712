/**
 * pgoutput's messages as bytes, protocol version 1 in text format: what a server says, for those who play one, and for rows
 * that are to be decoded as if it had said them. Each function gives bytes of its own. They write what they are told, also
 * what no server would say.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
import type { ReplicaIdentity } from "../change/Relation.ts"

/** A letter or text as it is, text with its zero, a big-endian number of 1, 2, 4 or 8 bytes, or bytes. */
export type Part =
  | string
  | { readonly cstring: string }
  | readonly [width: 1 | 2 | 4 | 8, value: bigint | number]
  | Uint8Array

const encoder = new TextEncoder()

const number = (width: number, value: bigint | number): Uint8Array => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)))
  return bytes.subarray(8 - width)
}

const bytesOf = (part: Part): Uint8Array => {
  if (typeof part === "string") return encoder.encode(part)
  if (part instanceof Uint8Array) return part
  return "cstring" in part ? encoder.encode(`${part.cstring}\0`) : number(part[0], part[1])
}

/** One piece of bytes out of many. */
export const concat = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => {
  const whole = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}

/** The parts one after the other. */
export const message = (...parts: ReadonlyArray<Part>): Uint8Array => concat(parts.map(bytesOf))

/** A transaction as Begin and Commit tell of it. Times are microseconds since 2000. */
export interface TransactionFields {
  readonly commitLsn: bigint
  readonly endLsn: bigint
  readonly commitTime: number
  readonly xid: number
}

export const begin = (transaction: Omit<TransactionFields, "endLsn">): Uint8Array =>
  message("B", [8, transaction.commitLsn], [8, Math.trunc(transaction.commitTime)], [4, transaction.xid])

export const commit = ({ commitLsn, commitTime, endLsn }: Omit<TransactionFields, "xid">): Uint8Array =>
  message("C", [1, 0], [8, commitLsn], [8, endLsn], [8, Math.trunc(commitTime)])

export const type = (oid: number, schema: string, name: string): Uint8Array =>
  message("Y", [4, oid], { cstring: schema }, { cstring: name })

/** A relation to be described. `pg_catalog` is sent as an empty schema. */
export interface RelationFields {
  readonly oid: number
  readonly schema: string
  readonly name: string
  /** pgoutput's letter: `d`, `n`, `f` or `i`, see {@link identityLetter}. */
  readonly replicaIdentity: string
  readonly columns: ReadonlyArray<{
    readonly name: string
    readonly typeOid: number
    readonly isKey?: boolean | undefined
    /** -1 unless told otherwise. */
    readonly typeModifier?: number | undefined
  }>
}

/** The letter of a replica identity, which is its first. */
export const identityLetter = (identity: ReplicaIdentity): string => identity.charAt(0)

export const relation = ({ columns, name, oid, replicaIdentity, schema }: RelationFields): Uint8Array =>
  message(
    "R",
    [4, oid],
    { cstring: schema },
    { cstring: name },
    replicaIdentity,
    [2, columns.length],
    ...columns.flatMap(
      (column): ReadonlyArray<Part> => [
        [1, column.isKey === true ? 1 : 0],
        { cstring: column.name },
        [4, column.typeOid],
        [4, column.typeModifier ?? -1]
      ]
    )
  )

/** Stands for a value that the server leaves out because it did not change (TOAST). */
export const unchanged = Symbol("unchanged")

/** A value as its text, the bytes of its text, NULL, or unchanged. */
export type Cell = string | null | typeof unchanged | Uint8Array

/** `kind` is N for a new row, O for a whole old one, K for its key. */
export const tuple = (kind: string, cells: ReadonlyArray<Cell>): Uint8Array =>
  message(
    kind,
    [2, cells.length],
    ...cells.flatMap((cell): ReadonlyArray<Part> => {
      if (cell === null) return ["n"]
      if (typeof cell === "symbol") return ["u"]
      const bytes = bytesOf(cell)
      return ["t", [4, bytes.length], bytes]
    })
  )

export const insert = (oid: number, row: ReadonlyArray<Cell>): Uint8Array => message("I", [4, oid], tuple("N", row))

/** `old` is a tuple of the row before, if the server tells it. */
export const update = (oid: number, row: ReadonlyArray<Cell>, old?: Uint8Array | undefined): Uint8Array =>
  message("U", [4, oid], old ?? "", tuple("N", row))

export const remove = (oid: number, old: Uint8Array): Uint8Array => message("D", [4, oid], old)

export interface TruncateFields {
  readonly oids: ReadonlyArray<number>
  readonly cascade: boolean
  readonly restartIdentity: boolean
}

export const truncate = ({ cascade, oids, restartIdentity }: TruncateFields): Uint8Array =>
  message(
    "T",
    [4, oids.length],
    [1, (cascade ? 1 : 0) | (restartIdentity ? 2 : 0)],
    ...oids.map((oid): Part => [4, oid])
  )

export interface LogicalMessageFields {
  readonly isTransactional: boolean
  /** The end of its record. */
  readonly lsn: bigint
  readonly prefix: string
  readonly content: Uint8Array
}

export const logicalMessage = ({ content, isTransactional, lsn, prefix }: LogicalMessageFields): Uint8Array =>
  message("M", [1, isTransactional ? 1 : 0], [8, lsn], { cstring: prefix }, [4, content.length], content)
