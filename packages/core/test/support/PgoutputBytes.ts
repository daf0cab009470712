/**
 * pgoutput messages written by hand, and a decoder to put them through: for what no server says, or says too seldom.
 */
import type { Change } from "../../src/change/Change.ts"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch, type Decoder } from "../../src/change/OutputPlugin.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import type { TypeDecoders } from "../../src/values/TypeDecoder.ts"

/** A letter, text with its zero, or numbers of 1, 2, 4 and 8 bytes. */
export type Part =
  | string
  | { readonly cstring: string }
  | readonly [width: 1 | 2 | 4 | 8, value: bigint | number]
  | Uint8Array

export const message = (...parts: ReadonlyArray<Part>): Uint8Array =>
  Buffer.concat(
    parts.map((part) => {
      if (typeof part === "string") return Buffer.from(part)
      if (part instanceof Uint8Array) return part
      if ("cstring" in part) return Buffer.from(`${part.cstring}\0`)
      const [width, value] = part
      const bytes = Buffer.alloc(8)
      bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)))
      return bytes.subarray(8 - width)
    })
  )

export interface Column {
  readonly name: string
  readonly typeOid: number
  readonly isKey?: boolean | undefined
}

export const begin = (commitLsn = 0x100n, xid = 7) => message("B", [8, commitLsn], [8, 1_000_000], [4, xid])
export const commit = (commitLsn = 0x100n, endLsn = 0x130n) =>
  message("C", [1, 0], [8, commitLsn], [8, endLsn], [8, 1_000_000])
export const type = (oid: number, schema: string, name: string) =>
  message("Y", [4, oid], { cstring: schema }, { cstring: name })

export const relation = (oid: number, columns: ReadonlyArray<Column>, name = "t", identity = "d") =>
  message(
    "R",
    [4, oid],
    { cstring: "public" },
    { cstring: name },
    identity,
    [2, columns.length],
    ...columns.flatMap(
      (column): ReadonlyArray<Part> => [
        [1, column.isKey === true ? 1 : 0],
        { cstring: column.name },
        [4, column.typeOid],
        [4, -1]
      ]
    )
  )

/** A text, null, or what stands for an unchanged value. */
export const unchanged = Symbol("unchanged")
export type Cell = string | null | typeof unchanged | Uint8Array

export const tuple = (kind: string, cells: ReadonlyArray<Cell>): Uint8Array =>
  message(
    kind,
    [2, cells.length],
    ...cells.flatMap((cell): ReadonlyArray<Part> => {
      if (cell === null) return ["n"]
      if (cell === unchanged) return ["u"]
      const bytes = typeof cell === "symbol" ? Buffer.alloc(0) : Buffer.from(cell)
      return ["t", [4, bytes.length], bytes]
    })
  )

export const insert = (oid: number, ...cells: ReadonlyArray<Cell>) => message("I", [4, oid], tuple("N", cells))

/** Decodes the messages one after another, as one stream, each in the middle of a larger read. */
export const decodeAll = (
  messages: ReadonlyArray<Uint8Array>,
  types?: TypeDecoders,
  decoder: Decoder = Pgoutput.make({ publications: ["p"], types }).makeDecoder(portableText)
): ReadonlyArray<Change> => {
  const batch = new Batch(new Run())
  for (const bytes of messages) decodeOne(decoder, bytes, batch)
  return batch.changes
}

export const decodeOne = (decoder: Decoder, bytes: Uint8Array, batch: Batch): void => {
  const read = new Uint8Array(bytes.length + 12).fill(0x6e)
  read.set(bytes, 5)
  decoder.decode(new ByteReader().reset(read, 5, 5 + bytes.length), batch)
  // What a change holds must be its own: the read is overwritten by the next one.
  read.fill(0x2a)
}

/** The DecodeError that `run` throws; fails when it throws another thing, or nothing. */
export const decodeErrorOf = (run: () => unknown): DecodeError => {
  try {
    run()
  } catch (error) {
    if (error instanceof DecodeError) return error
    throw error
  }
  throw new Error("expected a DecodeError")
}
