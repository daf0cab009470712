/**
 * The WAL of the test's server: where each record of a script lies, and the OIDs of what it names.
 *
 * What is written together is written as by sessions that commit at the same time: their changes first, then their commit
 * records without a gap. So one begins where another ends, which is where a client that is off by one loses something.
 */
import * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { TestChange, TestEntry, TestMessage, TestTransaction } from "./TestTransaction.ts"

/** Bytes of a record, all of them multiples of PostgreSQL's alignment. */
const changeLength = 64n
const commitLength = 48n

/** Where the first record lies. */
export const walStart = 0x0100_0000n as Lsn.Lsn

/** The first transaction of a script. */
export const firstXid = 740
/** The first OID that PostgreSQL gives to what users make. */
const firstOid = 16_384

/** A transaction as it lies in the WAL. */
export interface WrittenTransaction {
  readonly _tag: "Transaction"
  readonly entry: TestTransaction
  readonly xid: number
  /** Its commit record: the transaction is skipped iff this lies before the position streamed from. */
  readonly commitLsn: Lsn.Lsn
  /** The byte after the commit record: what confirms it. */
  readonly endLsn: Lsn.Lsn
  readonly commitTime: PgTimestamp
  readonly changes: ReadonlyArray<WrittenChange>
}

/** A change and its record, `[lsn, endLsn)`. */
export interface WrittenChange {
  readonly change: TestChange
  readonly lsn: Lsn.Lsn
  readonly endLsn: Lsn.Lsn
}

/** A message outside any transaction. */
export interface WrittenMessage {
  readonly _tag: "Message"
  readonly entry: TestMessage
  /** Where its record starts. */
  readonly lsn: Lsn.Lsn
  /** The byte after it: the LSN that it bears, and what confirms it. */
  readonly endLsn: Lsn.Lsn
}

/** WAL that no subscriber hears of. */
export interface WrittenUnpublished {
  readonly _tag: "Unpublished"
  readonly endLsn: Lsn.Lsn
}

/** What a script came to. */
export type Written = WrittenTransaction | WrittenMessage | WrittenUnpublished

/** What one entry came to. */
export type WrittenOf<E extends TestEntry> = Extract<Written, { readonly _tag: E["_tag"] }>

/** Where the record lies that decides whether a unit is sent from a position on. */
export const decidingLsn = (written: Exclude<Written, WrittenUnpublished>): Lsn.Lsn =>
  written._tag === "Transaction" ? written.commitLsn : written.lsn

export class TestWal {
  readonly entries: Array<Written> = []
  /** Where the next record begins. */
  end: Lsn.Lsn = walStart
  private xid = firstXid
  private readonly oids = new Map<string, number>()

  append(entries: ReadonlyArray<TestEntry>, now: PgTimestamp): ReadonlyArray<Written> {
    const changes = entries.map((entry) =>
      entry._tag === "Transaction" ? entry.changes.map((change) => ({ change, ...this.record(changeLength) })) : []
    )
    const written = entries.map((entry, index) => this.write(entry, changes[index]!, now))
    this.entries.push(...written)
    return written
  }

  /** The transaction that is next. */
  get nextXid(): number {
    return this.xid
  }

  takeXid(): number {
    return this.xid++
  }

  /** The OID of a relation or type: the same as long as the server is. */
  oidOf(kind: "relation" | "type", schema: string, name: string): number {
    const key = JSON.stringify([kind, schema, name])
    const oid = this.oids.get(key) ?? firstOid + this.oids.size
    this.oids.set(key, oid)
    return oid
  }

  private write(entry: TestEntry, changes: ReadonlyArray<WrittenChange>, now: PgTimestamp): Written {
    switch (entry._tag) {
      case "Unpublished":
        this.record(BigInt(entry.bytes))
        return { _tag: "Unpublished", endLsn: this.end }
      case "Message": {
        const { endLsn, lsn } = this.record(changeLength)
        return { _tag: "Message", entry, lsn, endLsn }
      }
      case "Transaction": {
        const { endLsn, lsn: commitLsn } = this.record(commitLength)
        return { _tag: "Transaction", entry, xid: this.takeXid(), commitLsn, endLsn, commitTime: now, changes }
      }
    }
  }

  private record(length: bigint): { readonly lsn: Lsn.Lsn; readonly endLsn: Lsn.Lsn } {
    const lsn = this.end
    const endLsn = Lsn.add(lsn, length)
    if (endLsn === undefined || length < 0n) throw new TypeError("a record that no WAL holds")
    this.end = endLsn
    return { lsn, endLsn }
  }
}
