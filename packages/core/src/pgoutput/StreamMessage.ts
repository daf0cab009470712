/**
 * The messages that pgoutput adds with protocol versions 2 to 4: blocks of transactions in progress, and two-phase commit.
 *
 * | byte | message | payload after it | since |
 * |---|---|---|---|
 * | `S` | Stream Start | Int32 xid, Int8 1 for its first block | 2 |
 * | `E` | Stream Stop | | 2 |
 * | `c` | Stream Commit | Int32 xid, Int8 flags (0), Int64 commit LSN, Int64 end LSN, Int64 commit time | 2 |
 * | `A` | Stream Abort | Int32 xid, Int32 xid of the subtransaction; with `parallel` Int64 abort LSN, Int64 abort time | 2, 4; from PostgreSQL 18 also 1, 3 |
 * | `b` | Begin Prepare | Int64 prepare LSN, Int64 end LSN, Int64 prepare time, Int32 xid, String gid | 3 |
 * | `P` | Prepare | Int8 flags (0), then as Begin Prepare | 3 |
 * | `K` | Commit Prepared | Int8 flags (0), Int64 commit LSN, Int64 end LSN, Int64 commit time, Int32 xid, String gid | 3 |
 * | `r` | Rollback Prepared | Int8 flags (0), Int64 end LSN of the prepare, Int64 end LSN of the rollback, Int64 prepare time, Int64 rollback time, Int32 xid, String gid | 3 |
 * | `p` | Stream Prepare | as Prepare | 3 |
 *
 * Within a block every message but Origin has the xid of its subtransaction after its byte, as an Int32.
 *
 * Each decoder starts behind the byte of its message and checks the end of it.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
import type * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type { ByteReader } from "../protocol/ByteReader.ts"

/** The bytes that tell these messages apart. */
export const streamTags = {
  start: 0x53, // S
  stop: 0x45, // E
  commit: 0x63, // c
  abort: 0x41, // A
  prepare: 0x70 // p
} as const

export const twoPhaseTags = {
  beginPrepare: 0x62, // b
  prepare: 0x50, // P
  commitPrepared: 0x4b, // K
  rollbackPrepared: 0x72 // r
} as const

/** Refuses what a slot says of PREPARE TRANSACTION to who did not ask: why it does, and the ways out. */
export const failOnTwoPhase = (reader: ByteReader, tag: number): never =>
  reader.fail(
    `a prepared transaction (a message of kind 0x${tag.toString(16)}), which was not asked for: ` +
      "the slot was made or once read with two_phase, and keeps it; ask for twoPhase, or use a slot of your own"
  )

const expectNoFlags = (reader: ByteReader, what: string): void => {
  const flags = reader.uint8()
  if (flags !== 0) reader.fail(`${what} with flags 0x${flags.toString(16)}; none are known`)
}

export interface StreamStartMessage {
  readonly xid: number
  readonly isFirst: boolean
}

export const decodeStreamStart = (reader: ByteReader): StreamStartMessage => {
  const xid = reader.uint32()
  const segment = reader.uint8()
  if (segment > 1) reader.fail(`a stream start of segment ${segment}; 0 and 1 are known`)
  reader.expectEnd()
  return { xid, isFirst: segment === 1 }
}

export interface StreamCommitMessage {
  readonly xid: number
  readonly commitLsn: Lsn.Lsn
  readonly endLsn: Lsn.Lsn
  readonly commitTime: PgTimestamp.PgTimestamp
}

export const decodeStreamCommit = (reader: ByteReader): StreamCommitMessage => {
  const xid = reader.uint32()
  expectNoFlags(reader, "a stream commit")
  const message = {
    xid,
    commitLsn: reader.lsn(),
    endLsn: reader.lsn(),
    commitTime: PgTimestamp.make(reader.int64AsNumber())
  }
  reader.expectEnd()
  if (message.endLsn <= message.commitLsn) reader.fail("a stream commit that ends before it begins")
  return message
}

export interface StreamAbortMessage {
  readonly xid: number
  readonly subxid: number
  readonly abortLsn: Lsn.Lsn | undefined
  readonly abortTime: PgTimestamp.PgTimestamp | undefined
}

/**
 * Version 4 adds where and when, but only for those who stream in parallel: told by what is left. What was asked for on
 * this connection does not tell it: rows that were deleted meanwhile are looked for with the same plugin and no streaming.
 */
export const decodeStreamAbort = (reader: ByteReader): StreamAbortMessage => {
  const xid = reader.uint32()
  const subxid = reader.uint32()
  const isShort = reader.remaining === 0
  const message = {
    xid,
    subxid,
    abortLsn: isShort ? undefined : reader.lsn(),
    abortTime: isShort ? undefined : PgTimestamp.make(reader.int64AsNumber())
  }
  reader.expectEnd()
  return message
}

export interface PrepareMessage {
  readonly prepareLsn: Lsn.Lsn
  readonly endLsn: Lsn.Lsn
  readonly prepareTime: PgTimestamp.PgTimestamp
  readonly xid: number
  readonly gid: string
}

export const decodeBeginPrepare = (reader: ByteReader): PrepareMessage => {
  const message = {
    prepareLsn: reader.lsn(),
    endLsn: reader.lsn(),
    prepareTime: PgTimestamp.make(reader.int64AsNumber()),
    xid: reader.uint32(),
    gid: reader.cstring()
  }
  reader.expectEnd()
  if (message.endLsn <= message.prepareLsn) reader.fail("a prepare that ends before it begins")
  return message
}

/** Of `P` and of `p`. */
export const decodePrepare = (reader: ByteReader): PrepareMessage => {
  expectNoFlags(reader, "a prepare")
  return decodeBeginPrepare(reader)
}

export interface CommitPreparedMessage {
  readonly commitLsn: Lsn.Lsn
  readonly endLsn: Lsn.Lsn
  readonly commitTime: PgTimestamp.PgTimestamp
  readonly xid: number
  readonly gid: string
}

export const decodeCommitPrepared = (reader: ByteReader): CommitPreparedMessage => {
  expectNoFlags(reader, "a commit of what was prepared")
  const message = {
    commitLsn: reader.lsn(),
    endLsn: reader.lsn(),
    commitTime: PgTimestamp.make(reader.int64AsNumber()),
    xid: reader.uint32(),
    gid: reader.cstring()
  }
  reader.expectEnd()
  if (message.endLsn <= message.commitLsn) reader.fail("a commit of what was prepared that ends before it begins")
  return message
}

export interface RollbackPreparedMessage {
  readonly prepareEndLsn: Lsn.Lsn
  readonly endLsn: Lsn.Lsn
  readonly prepareTime: PgTimestamp.PgTimestamp
  readonly rollbackTime: PgTimestamp.PgTimestamp
  readonly xid: number
  readonly gid: string
}

export const decodeRollbackPrepared = (reader: ByteReader): RollbackPreparedMessage => {
  expectNoFlags(reader, "a rollback of what was prepared")
  const message = {
    prepareEndLsn: reader.lsn(),
    endLsn: reader.lsn(),
    prepareTime: PgTimestamp.make(reader.int64AsNumber()),
    rollbackTime: PgTimestamp.make(reader.int64AsNumber()),
    xid: reader.uint32(),
    gid: reader.cstring()
  }
  reader.expectEnd()
  return message
}
