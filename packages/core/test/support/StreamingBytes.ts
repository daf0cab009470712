/** The messages that protocol versions 2 to 4 add, written by hand. */
import { message } from "./PgoutputBytes.ts"

const time = 2_000_000

export const streamStart = (xid: number, segment = 0) => message("S", [4, xid], [1, segment])
export const streamStop = message("E")
export const streamCommit = (xid: number, commitLsn = 0x100n, endLsn = 0x130n) =>
  message("c", [4, xid], [1, 0], [8, commitLsn], [8, endLsn], [8, time])
export const streamAbort = (xid: number, subxid = xid) => message("A", [4, xid], [4, subxid])
export const streamAbortInParallel = (xid: number, subxid: number, lsn: bigint) =>
  message("A", [4, xid], [4, subxid], [8, lsn], [8, time])

interface Prepared {
  readonly gid?: string | undefined
  readonly lsn?: bigint | undefined
  readonly endLsn?: bigint | undefined
  readonly xid?: number | undefined
}

const prepared = ({ endLsn = 0x130n, gid = "g", lsn = 0x100n, xid = 7 }: Prepared) =>
  message([8, lsn], [8, endLsn], [8, time], [4, xid], { cstring: gid })

export const beginPrepare = (fields: Prepared = {}) => message("b", prepared(fields))
export const prepare = (fields: Prepared = {}) => message("P", [1, 0], prepared(fields))
export const streamPrepare = (fields: Prepared = {}) => message("p", [1, 0], prepared(fields))
export const commitPrepared = (fields: Prepared = {}) => message("K", [1, 0], prepared(fields))
export const rollbackPrepared = ({ endLsn = 0x230n, gid = "g", lsn = 0x130n, xid = 7 }: Prepared = {}) =>
  message("r", [1, 0], [8, lsn], [8, endLsn], [8, time], [8, time + 1], [4, xid], { cstring: gid })

/** A message as it stands in a block: with the id of its subtransaction after its byte. */
export const within = (xid: number, bytes: Uint8Array) => message(bytes.subarray(0, 1), [4, xid], bytes.subarray(1))

/** A block of one transaction, first or not. */
export const block = (xid: number, segment: number, ...messages: ReadonlyArray<Uint8Array>) => [
  streamStart(xid, segment),
  ...messages,
  streamStop
]
