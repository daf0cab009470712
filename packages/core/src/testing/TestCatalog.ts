/**
 * What the test's server answers of slots, publications and settings, and what it refuses. It knows the texts that Replicant
 * sends and no SQL; another query is refused by name, so that a test sees what was asked. Of tables it tells in
 * `TableFacts.ts`, of transactions and snapshots in `TestBackend.ts`.
 */
import * as Lsn from "../Lsn.ts"
import type { ServerMessage } from "../ReplicationError.ts"
import type { QueryRow } from "../server/WalSender.ts"
import { answerFacts } from "./TableFacts.ts"
import type { TestServer, TestSlot } from "./TestServer.ts"

/** Rows, or an error as the server words it. */
export type Answer = ReadonlyArray<QueryRow> | ServerMessage

export const refusal = (sqlState: string, message: string): ServerMessage => ({ severity: "ERROR", sqlState, message })

export const slotMissing = (slot: string): ServerMessage =>
  refusal("42704", `replication slot "${slot}" does not exist`)

export const slotActive = ({ activePid, name }: TestSlot): ServerMessage =>
  refusal("55006", `replication slot "${name}" is active for PID ${activePid}`)

const flag = (value: boolean): string => (value ? "t" : "f")

const slotRow = (server: TestServer, slot: TestSlot): QueryRow => ({
  slot_name: slot.name,
  slot_type: "logical",
  plugin: slot.plugin,
  database: server.database,
  temporary: flag(slot.isTemporary),
  active_pid: slot.activePid === undefined ? null : String(slot.activePid),
  restart_lsn: Lsn.format(slot.confirmedFlushLsn),
  confirmed_flush_lsn: Lsn.format(slot.confirmedFlushLsn),
  wal_status: slot.invalidationReason === undefined ? "reserved" : "lost",
  invalidation_reason: server.serverVersion >= 170_000 ? (slot.invalidationReason ?? null) : null,
  retained: String(Lsn.sub(server.wal.end, slot.confirmedFlushLsn)),
  // What is asked by whoever watches slots. There is no limit here, and nothing is spilled.
  safe_wal_size: null,
  failover: flag(slot.isFailover),
  synced: "f",
  inactive_since: null,
  ...walSenderRow(slot),
  ...decodingRow
})

const walSenderRow = ({ activePid, confirmedFlushLsn }: TestSlot): QueryRow => {
  const lsn = activePid === undefined ? null : Lsn.format(confirmedFlushLsn)
  return {
    user_name: activePid === undefined ? null : "replicant",
    application_name: activePid === undefined ? null : "replicant",
    client_addr: null,
    backend_start: null,
    wait_event: null,
    state: activePid === undefined ? null : "streaming",
    sent_lsn: lsn,
    write_lsn: lsn,
    flush_lsn: lsn,
    replay_lsn: lsn,
    write_lag: null,
    flush_lag: null,
    replay_lag: null,
    sync_state: activePid === undefined ? null : "async",
    reply_time: null
  }
}

const decodingRow: QueryRow = Object.fromEntries(
  [
    "spill_txns",
    "spill_count",
    "spill_bytes",
    "stream_txns",
    "stream_count",
    "stream_bytes",
    "total_txns",
    "total_bytes"
  ].map((column) => [column, "0"])
)

/** The server itself, as whoever watches slots asks for it. */
const overviewRow = (server: TestServer): QueryRow => ({
  server_start: serverStart,
  now: serverStart,
  in_recovery: "f",
  wal_end: Lsn.format(server.wal.end),
  keep_size: "-1",
  idle_timeout: null,
  idle_unit: null,
  most_slots: "10",
  reads_stats: "t",
  lists_wal: "f"
})

/** The end of the WAL and what a slot has confirmed, as a stream asks for them that cannot tell by itself. */
const endRow = (server: TestServer, text: string): QueryRow => {
  const slot = server.slots.get(literal(text, /slot_name = /) ?? "")
  return {
    system_id: server.systemId,
    wal_end: Lsn.format(server.wal.end),
    slot_name: slot?.name ?? null,
    confirmed_flush_lsn: slot === undefined ? null : Lsn.format(slot.confirmedFlushLsn)
  }
}

/** The text between quotes, undoubled, after what `before` matches. */
const literal = (text: string, before: RegExp): string | undefined =>
  new RegExp(`${before.source}'((?:[^']|'')*)'`).exec(text)?.[1]?.replaceAll("''", "'")

const byName = <A extends { readonly name: string }>(values: Iterable<A>): ReadonlyArray<A> =>
  [...values].sort((left, right) => (left.name < right.name ? -1 : 1))

const publicationRows = (server: TestServer): ReadonlyArray<QueryRow> =>
  byName(server.publications.values()).map(({ name, operations, tables }) => ({
    pubname: name,
    puballtables: flag(tables === undefined),
    pubinsert: flag(operations?.includes("insert") ?? true),
    pubupdate: flag(operations?.includes("update") ?? true),
    pubdelete: flag(operations?.includes("delete") ?? true),
    pubtruncate: flag(operations?.includes("truncate") ?? true)
  }))

const slotRows = (server: TestServer, text: string): ReadonlyArray<QueryRow> => {
  const wanted = literal(text, /slot_name = /)
  return byName(server.slots.values())
    .filter(({ name }) => wanted === undefined || name === wanted)
    .map((slot) => slotRow(server, slot))
}

const createSlot = (server: TestServer, text: string, pid: number): Answer => {
  const match = /^CREATE_REPLICATION_SLOT "([a-z0-9_]{1,63})"( TEMPORARY)? LOGICAL "((?:[^"]|"")+)"/.exec(text)
  if (match === null) return refusal("42601", "syntax error")
  const [, name = "", temporary, plugin = ""] = match
  if (server.slots.has(name)) return refusal("42710", `replication slot "${name}" already exists`)
  if (plugin !== "pgoutput") return refusal("58P01", `could not access file "${plugin}": No such file or directory`)
  const slot = server.makeSlot(name, plugin, temporary === undefined ? "permanent" : "temporary")
  slot.isFailover = /\bFAILOVER\b/.test(text)
  // A temporary slot is the session's that made it, and dropped with it.
  if (slot.isTemporary) temporaryOwners.set(slot, pid)
  return [
    {
      slot_name: name,
      consistent_point: Lsn.format(slot.confirmedFlushLsn),
      snapshot_name: isExported.test(text) ? server.exportSnapshot(pid, server.wal.nextXid, "command") : null,
      output_plugin: plugin
    }
  ]
}

/** Before PostgreSQL 15, and from there on. */
const isExported = / EXPORT_SNAPSHOT$|\bSNAPSHOT 'export'/

const temporaryOwners = new WeakMap<TestSlot, number>()

/** Drops what a session leaves behind. */
export const endSession = (server: TestServer, pid: number): void => {
  for (const slot of server.slots.values()) {
    if (slot.activePid === pid) slot.activePid = undefined
    if (temporaryOwners.get(slot) === pid) server.slots.delete(slot.name)
  }
}

const dropSlot = (server: TestServer, text: string): Answer => {
  const name = /^DROP_REPLICATION_SLOT "([^"]+)"/.exec(text)?.[1] ?? ""
  const slot = server.slots.get(name)
  if (slot === undefined) return slotMissing(name)
  if (slot.activePid !== undefined) return slotActive(slot)
  server.slots.delete(name)
  return []
}

const alterSlot = (server: TestServer, text: string): Answer => {
  const [, name = "", failover] = /^ALTER_REPLICATION_SLOT "([^"]+)" \(FAILOVER (true|false)\)/.exec(text) ?? []
  const slot = server.slots.get(name)
  if (slot === undefined) return slotMissing(name)
  if (slot.activePid !== undefined) return slotActive(slot)
  slot.isFailover = failover === "true"
  return []
}

/** What Replicant does to the slot of a gap: drops the lost one, and puts a copy of its stand-in there. */
const replaceSlot = (server: TestServer, text: string): Answer => {
  const source = server.slots.get(literal(text, /pg_copy_logical_replication_slot\(/) ?? "")
  const match = /pg_copy_logical_replication_slot\('[^']*', '([^']*)', (true|false)\)/.exec(text)
  if (source === undefined || match === null) return slotMissing("")
  const [, name = "", temporary] = match
  const lost = server.slots.get(name)
  if (lost?.activePid !== undefined) return slotActive(lost)
  if (lost !== undefined && lost.invalidationReason === undefined) {
    return refusal("42710", `replication slot "${name}" already exists`)
  }
  const copy = server.makeSlot(name, source.plugin, temporary === "true" ? "temporary" : "permanent")
  copy.confirmedFlushLsn = source.confirmedFlushLsn
  copy.persistedLsn = source.confirmedFlushLsn
  return []
}

/** It is the same server after a restart: its sessions are not, and that is told by the slot. */
const serverStart = "1767225600.000000"

/** Whether the stream of a slot is at work: here nobody ever is, everything is sent at once. */
const standingRow = (server: TestServer, text: string): QueryRow => {
  const activePid = server.slots.get(literal(text, /slot_name = /) ?? "")?.activePid
  return activePid === undefined
    ? { server_start: serverStart, active_pid: null, backend_type: null, wait_event_type: null }
    : {
        server_start: serverStart,
        active_pid: String(activePid),
        backend_type: "walsender",
        wait_event_type: "Client"
      }
}

/** Answers `text`, asked by the session of that pid. */
export const answer = (server: TestServer, text: string, pid: number): Answer => {
  // The shortest question that is answered: are you there?
  if (text.startsWith("SET ") || text === "SELECT") return []
  if (text === "IDENTIFY_SYSTEM") {
    const { database, systemId, timeline, wal } = server
    return [{ systemid: systemId, timeline: String(timeline), xlogpos: Lsn.format(wal.end), dbname: database }]
  }
  if (text.startsWith("CREATE_REPLICATION_SLOT")) return createSlot(server, text, pid)
  if (text.startsWith("DROP_REPLICATION_SLOT")) return dropSlot(server, text)
  if (text === "SELECT pg_catalog.pg_backend_pid() AS pid") return [{ pid: String(pid) }]
  if (text.startsWith("ALTER_REPLICATION_SLOT")) return alterSlot(server, text)
  if (text.startsWith("SELECT failover ")) {
    return [{ failover: server.slots.get(literal(text, /slot_name = /) ?? "")?.isFailover === true ? "t" : "f" }]
  }
  if (text.includes("pg_copy_logical_replication_slot")) return replaceSlot(server, text)
  if (text.includes("pg_ls_waldir")) return [overviewRow(server)]
  if (/\bFROM pg_catalog\.pg_stat_progress_copy\b/.test(text)) return []
  if (/\bFROM pg_catalog\.pg_settings\b/.test(text)) {
    const settings = { wal_sender_timeout: String(server.walSenderTimeout), wal_level: "logical" }
    return [{ ...settings, pid: String(pid), server_start: serverStart, in_recovery: "f" }]
  }
  if (text.includes("wait_event_type")) return [standingRow(server, text)]
  if (text.includes("pg_control_system")) return [endRow(server, text)]
  if (text.startsWith("SELECT pg_catalog.pg_is_in_recovery()") && !text.includes("pg_opclass")) {
    return [{ in_recovery: "f", recovery: "f" }]
  }
  if (/^SELECT pubname, [a-z, ]+\s+FROM pg_catalog\.pg_publication ORDER BY/.test(text)) return publicationRows(server)
  if (/\bFROM pg_catalog\.pg_replication_slots\b/.test(text)) return slotRows(server, text)
  const facts = answerFacts(server, text)
  if (facts !== undefined) return facts
  return refusal("0A000", `the test's server does not know this query: ${text}`)
}
