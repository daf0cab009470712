/**
 * One connection's session at the test's server: its transaction, the snapshot that it reads by, the snapshots that it has
 * exported, and what it answers to SQL texts of several statements.
 *
 * Transactions here only read, but for the logical messages that they write; so they never wait, and LOCK TABLE has nothing
 * to do.
 */
import * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { ServerMessage } from "../ReplicationError.ts"
import type { QueryRow } from "../server/WalSender.ts"
import { answerChunkEnd, copyRows } from "./ReadRows.ts"
import { type Answer, answer, endSession, refusal } from "./TestCatalog.ts"
import type { TestServer } from "./TestServer.ts"
import { message, type TestMessage, tx } from "./TestTransaction.ts"

const literal = "'((?:[^']|'')*)'"
const unquoted = (text: string): string => text.replaceAll("''", "'")

/** Statements of one text: what quotes hold is part of one. */
const statementsOf = (text: string): ReadonlyArray<string> =>
  (text.match(/(?:'(?:[^']|'')*'|"(?:[^"]|"")*"|[^;'"])+/g) ?? [text])
    .map((statement) => statement.trim())
    .filter((statement, index) => statement !== "" || index === 0)

export class TestBackend {
  readonly pid: number
  /** A walsender, or an ordinary session. */
  readonly kind: "replication" | "sql"
  /** How many questions it was asked, and whether the last is answered. */
  asked = 0
  isIdle = true
  /** After how many milliseconds of being idle it is ended; 0 for never. */
  idleTimeout = 0
  /** How long a statement of it waits for a lock, in milliseconds. */
  lockTimeout = 0
  /** The network has lost it, or the server has died: nothing is answered any more. */
  isBroken = false
  isInTransaction = false
  /** Of its transaction: the first transaction that it does not see. */
  private snapshot: number | undefined
  private messages: Array<TestMessage> = []
  private readonly server: TestServer

  constructor(server: TestServer, kind: "replication" | "sql" = "replication") {
    this.server = server
    this.kind = kind
    this.pid = server.nextPid()
  }

  /** Answers a text's last statement, once it has run all of them; or the first error. */
  run(text: string, now: PgTimestamp): Answer {
    this.server.endExports(this.pid, "command")
    let last: Answer = []
    for (const statement of statementsOf(text)) {
      last = this.runStatement(statement, now)
      if ("sqlState" in last) return last
    }
    return last
  }

  /** Reads rows by COPY. */
  copy(text: string): ReadonlyArray<string> | ServerMessage {
    this.server.endExports(this.pid, "command")
    return copyRows(this.server, text, this.reads())
  }

  /** It is no more, which its client is yet to notice. */
  break(): void {
    this.isBroken = true
    this.server.releaseLocks(this.pid)
  }

  /** What it leaves behind goes with it. */
  end(): void {
    this.endTransaction()
    this.server.endExports(this.pid, "command")
    this.server.releaseLocks(this.pid)
    endSession(this.server, this.pid)
  }

  /** What a statement reads by: its transaction's snapshot, which the first that reads takes. */
  private reads(): number {
    const { nextXid } = this.server.wal
    if (!this.isInTransaction) return nextXid
    this.snapshot ??= nextXid
    return this.snapshot
  }

  private endTransaction(): void {
    this.isInTransaction = false
    this.snapshot = undefined
    this.messages = []
    this.server.endExports(this.pid, "transaction")
  }

  private runStatement(text: string, now: PgTimestamp): Answer {
    const { server } = this
    const [, setting, millis] = /^SET (idle_session_timeout|lock_timeout) = (\d+)$/.exec(text) ?? []
    if (setting === "idle_session_timeout") this.idleTimeout = Number(millis)
    if (setting === "lock_timeout") this.lockTimeout = Number(millis)
    if (/^BEGIN\b/.test(text)) {
      this.isInTransaction = true
      return []
    }
    if (text === "COMMIT" || text === "ROLLBACK") {
      if (text === "COMMIT" && this.messages.length > 0) server.write([tx(...this.messages)], now)
      this.endTransaction()
      return []
    }
    if (/^LOCK TABLE /.test(text)) return []
    if (/^SET TRANSACTION SNAPSHOT /.test(text)) return this.importSnapshot(text)
    if (/^SELECT pg_catalog\.pg_logical_emit_message\(/.test(text)) return this.emit(text, now)
    return this.answerRead(text) ?? answer(server, text, this.pid)
  }

  private importSnapshot(text: string): Answer {
    const name = unquoted(new RegExp(literal).exec(text)?.[1] ?? "")
    const exported = this.server.exports.get(name)
    if (exported === undefined) return refusal("42704", `snapshot "${name}" does not exist`)
    this.snapshot = exported.snapshot
    return []
  }

  private emit(text: string, now: PgTimestamp): Answer {
    const match = new RegExp(`\\(true, ?${literal}, ?${literal}\\)`).exec(text)
    if (match === null) return refusal("42601", "syntax error")
    const written = message(unquoted(match[1]!), unquoted(match[2]!))
    if (this.isInTransaction) this.messages.push(written)
    else this.server.write([tx(written)], now)
    return [{ pg_logical_emit_message: Lsn.format(this.server.wal.end) }]
  }

  /** Questions whose answer is a matter of who asks, and when. */
  private answerRead(text: string): ReadonlyArray<QueryRow> | ServerMessage | undefined {
    const { server } = this
    if (text.startsWith("SELECT pg_catalog.pg_export_snapshot()")) {
      return [{ name: server.exportSnapshot(this.pid, this.reads(), "transaction") }]
    }
    if (text.startsWith("SELECT pg_catalog.pg_current_snapshot()")) {
      const snapshot = this.reads()
      return [{ snapshot: `${snapshot}:${snapshot}:`, seam: Lsn.format(server.wal.end) }]
    }
    if (text.startsWith("SELECT pg_catalog.pg_current_xact_id()")) {
      return [{ pg_current_xact_id: String(server.wal.takeXid()) }]
    }
    const lock = new RegExp(`^SELECT pg_try_advisory_lock\\(hashtextextended\\(${literal}, 0\\)\\)`).exec(text)
    if (lock !== null) return [{ locked: server.tryLock(unquoted(lock[1]!), this.pid) ? "t" : "f" }]
    const lease = new RegExp(
      `^SELECT pg_catalog\\.pg_try_advisory_lock\\(pg_catalog\\.hashtextextended\\(${literal}, 0\\)\\)`
    ).exec(text)
    if (lease !== null) {
      return [{ is_ours: server.tryLock(unquoted(lease[1]!), this.pid) ? "t" : "f", pid: String(this.pid) }]
    }
    if (/\bFROM pg_catalog\.pg_locks\b/.test(text)) {
      const holder = server.holderOf(unquoted(new RegExp(`${literal}, 0\\)$`).exec(text)?.[1] ?? ""))
      return holder === undefined ? [] : [{ pid: String(holder), application_name: "replicant" }]
    }
    return answerChunkEnd(server, text, this.reads())
  }
}
