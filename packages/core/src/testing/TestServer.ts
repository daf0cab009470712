/**
 * What the test's server remembers, whoever is connected: WAL, tables, slots, publications, settings. Mutable and
 * synchronous; `TestWalSender` is its face, `TestSession` one walsender of it, `TestBackend` one session.
 */

import type * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { Operation } from "../server/Publication.ts"
import { type TableName, tableName } from "../table/TableName.ts"
import { relationOf, type Source } from "./TestRelation.ts"
import { TestTables } from "./TestTables.ts"
import type { TestEntry, TestInsert } from "./TestTransaction.ts"
import { firstXid, TestWal, type Written, walStart } from "./TestWal.ts"

/** A publication: of all tables and all operations unless told otherwise. */
export interface TestPublication {
  readonly name: string
  readonly tables?: ReadonlyArray<TableName> | undefined
  readonly operations?: ReadonlyArray<Operation> | undefined
}

/** The server that a test wants. */
export interface TestServerOptions {
  /** The slot that the controls are about. There from the start, free and at the beginning of the WAL. */
  readonly slot: string
  /** Whether that slot is there from the start, `yes`, or has to be made. */
  readonly slotExists?: "yes" | "no" | undefined
  /** By name, or with the tables it holds. None when left out. */
  readonly publications?: ReadonlyArray<string | TestPublication> | undefined
  /** Rows that are there before the slot is, so that a snapshot finds them: `[insert(Articles, { id: 1, … })]`. */
  readonly rows?: ReadonlyArray<TestInsert> | undefined
  /** Tables that are there though no row is. Those of `rows`, and of what is written, need not be named. */
  readonly tables?: ReadonlyArray<Source> | undefined
  /** `server_version_num`: 180004. */
  readonly serverVersion?: number | undefined
  readonly database?: string | undefined
  readonly systemId?: string | undefined
  readonly timeline?: number | undefined
  /** Milliseconds after which a silent client is given up, half of which asks it for a reply: 60000. 0 for never. */
  readonly walSenderTimeout?: number | undefined
  /** The most bytes that one read of the client gives: 65536. Small ones cut messages. */
  readonly maxReadBytes?: number | undefined
}

/** A replication slot. */
export interface TestSlot {
  readonly name: string
  readonly plugin: string
  readonly isTemporary: boolean
  /** Whether standbys would keep it, too. */
  isFailover: boolean
  /** What its consumer has confirmed: streaming goes on from here. */
  confirmedFlushLsn: Lsn.Lsn
  /** What of that survives a crash: as of the last checkpoint. */
  persistedLsn: Lsn.Lsn
  /** Who streams from it. */
  activePid: number | undefined
  /** Why it was given up, if it was. */
  invalidationReason: string | undefined
}

/** The pid of a consumer that only a test knows. */
export const strangerPid = 4711

const firstPid = 5000

/** A snapshot that others may take over, until its session's next command or its transaction's end. */
interface ExportedSnapshot {
  readonly pid: number
  readonly snapshot: number
  readonly lasts: "command" | "transaction"
}

export class TestServer {
  readonly options: TestServerOptions
  readonly wal = new TestWal()
  readonly tables = new TestTables(({ name, schema }) => this.wal.oidOf("relation", schema, name))
  /** By name. */
  readonly exports = new Map<string, ExportedSnapshot>()
  /** Who holds which advisory lock. */
  private readonly locks = new Map<string, number>()
  readonly slots = new Map<string, TestSlot>()
  readonly publications = new Map<string, TestPublication>()
  state: "running" | "stopping" | "down" = "running"
  readonly serverVersion: number
  readonly database: string
  readonly systemId: string
  readonly timeline: number
  readonly walSenderTimeout: number
  private pid = firstPid

  constructor(options: TestServerOptions) {
    this.options = options
    this.serverVersion = options.serverVersion ?? 180_004
    this.database = options.database ?? "test"
    this.systemId = options.systemId ?? "7000000000000000001"
    this.timeline = options.timeline ?? 1
    this.walSenderTimeout = options.walSenderTimeout ?? 60_000
    for (const publication of options.publications ?? []) {
      const described = typeof publication === "string" ? { name: publication } : publication
      this.publications.set(described.name, described)
    }
    for (const source of options.tables ?? []) this.tables.create(relationOf(source))
    this.tables.apply(options.rows ?? [], firstXid - 1)
    if (options.slotExists !== "no") this.makeSlot(options.slot, "pgoutput", "permanent")
  }

  /** Writes WAL, and does to the tables what it says. */
  write(entries: ReadonlyArray<TestEntry>, now: PgTimestamp): ReadonlyArray<Written> {
    const written = this.wal.append(entries, now)
    for (const entry of written) {
      if (entry._tag === "Transaction") this.tables.apply(entry.entry.changes, entry.xid)
    }
    return written
  }

  /** Gives others a snapshot, by a name. */
  exportSnapshot(pid: number, snapshot: number, lasts: "command" | "transaction"): string {
    const name = `${pid.toString(16).padStart(8, "0")}-${snapshot.toString(16).padStart(8, "0")}-1`
    this.exports.set(name, { pid, snapshot, lasts })
    return name
  }

  /** What a session has exported that lasts no longer. */
  endExports(pid: number, lasts: "command" | "transaction"): void {
    for (const [name, exported] of this.exports) {
      if (exported.pid === pid && exported.lasts === lasts) this.exports.delete(name)
    }
  }

  /** Takes an advisory lock, unless somebody else has it. */
  tryLock(key: string, pid: number): boolean {
    const holder = this.locks.get(key) ?? pid
    this.locks.set(key, holder)
    return holder === pid
  }

  holderOf(key: string): number | undefined {
    return this.locks.get(key)
  }

  /** Whether that lock can be had by that session. */
  isLockFree(key: string, pid: number): boolean {
    return (this.locks.get(key) ?? pid) === pid
  }

  releaseLocks(pid: number): void {
    for (const [key, holder] of this.locks) if (holder === pid) this.locks.delete(key)
  }

  /** A slot that begins here. */
  makeSlot(name: string, plugin: string, lifetime: "permanent" | "temporary"): TestSlot {
    const confirmedFlushLsn = this.wal.entries.length === 0 ? walStart : this.wal.end
    const slot: TestSlot = {
      name,
      plugin,
      isTemporary: lifetime === "temporary",
      isFailover: false,
      confirmedFlushLsn,
      persistedLsn: confirmedFlushLsn,
      activePid: undefined,
      invalidationReason: undefined
    }
    this.slots.set(name, slot)
    return slot
  }

  nextPid(): number {
    return this.pid++
  }

  /** Writes the slots to disk. */
  checkpoint(): void {
    for (const slot of this.slots.values()) slot.persistedLsn = slot.confirmedFlushLsn
  }

  /** What a crash leaves: slots as of the last checkpoint, and no temporary ones. */
  recover(): void {
    for (const slot of this.slots.values()) {
      slot.confirmedFlushLsn = slot.persistedLsn
      if (slot.isTemporary) this.slots.delete(slot.name)
    }
  }

  /** Whether a change of that kind is in one of these publications. */
  publishes(names: ReadonlyArray<string>, operation: Operation, table: { schema: string; name: string }): boolean {
    return names.some((name) => {
      const operations = this.publications.get(name)?.operations
      return this.holds(name, table) && (operations === undefined || operations.includes(operation))
    })
  }

  /** Whether the table is in that publication. */
  holds(name: string, table: { schema: string; name: string }): boolean {
    const publication = this.publications.get(name)
    if (publication === undefined) return false
    const tables = publication.tables?.map(tableName)
    return tables === undefined || tables.some((other) => other.schema === table.schema && other.name === table.name)
  }
}
