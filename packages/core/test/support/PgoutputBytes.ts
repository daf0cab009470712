/**
 * pgoutput messages written by hand, and a decoder to put them through: for what no server says, or says too seldom.
 */
import type { Change } from "../../src/change/Change.ts"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch, type Decoder } from "../../src/change/OutputPlugin.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import type { TypeDecoders } from "../../src/values/TypeDecoder.ts"

export { type Cell, message, type Part, tuple, type, unchanged } from "../../src/pgoutput/PgoutputBytes.ts"

export interface Column {
  readonly name: string
  readonly typeOid: number
  readonly isKey?: boolean | undefined
}

export const begin = (commitLsn = 0x100n, xid = 7) => Bytes.begin({ commitLsn, commitTime: 1_000_000, xid })
export const commit = (commitLsn = 0x100n, endLsn = 0x130n) =>
  Bytes.commit({ commitLsn, endLsn, commitTime: 1_000_000 })

export const relation = (oid: number, columns: ReadonlyArray<Column>, name = "t", identity = "d") =>
  Bytes.relation({ oid, schema: "public", name, replicaIdentity: identity, columns })

export const insert = (oid: number, ...cells: ReadonlyArray<Bytes.Cell>) => Bytes.insert(oid, cells)

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
