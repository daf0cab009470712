/**
 * A scripted walsender: real bytes through the real decoders, and a record of everything it was told.
 *
 * It answers the queries that come before a copy stream, then says what a test lets it say, also what no server would. Where a
 * server is wanted that keeps and decides as PostgreSQL does, there is `TestWalSender` of `src/testing`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { Frames } from "../../src/protocol/Frames.ts"
import * as ReplicationMessage from "../../src/protocol/ReplicationMessage.ts"
import { ConnectionError, type ReplicationError } from "../../src/ReplicationError.ts"
import { serverError } from "../../src/refineServerError.ts"
import { type CopyBoth, type QueryRow, type ReplicantConnection, WalSender } from "../../src/server/WalSender.ts"

export interface FakeOptions {
  readonly systemId?: string | undefined
  readonly timeline?: number | undefined
  readonly xLogPos?: string | undefined
  readonly walSenderTimeout?: number | undefined
  readonly publications?: ReadonlyArray<string> | undefined
  /** Answers no ping. */
  readonly isDeaf?: boolean | undefined
  /** Takes queries, and answers none. */
  readonly isMute?: boolean | undefined
  /** When it was started: the same server, unless told otherwise. */
  readonly serverStart?: string | undefined
  /** Whether it is a standby. */
  readonly isInRecovery?: boolean | undefined
  readonly serverVersion?: number | undefined
  /** What another connection is told of the one that streams: that it waits for its client, unless told otherwise. */
  readonly standing?: Partial<QueryRow> | undefined
  /** What another connection is told of the wait for standbys: that there is none, unless told otherwise. */
  readonly hold?: Partial<QueryRow> | undefined
  /** The slots of those standbys that are there. */
  readonly standbys?: ReadonlyArray<QueryRow> | undefined
  /** The slot's row; `undefined` for a slot that is there and free. */
  readonly slot?: Partial<QueryRow> | "missing" | undefined
  /** The history file of its timeline. */
  readonly history?: string | undefined
}

/** One connection of the fake, as the test sees it. */
export interface FakeConnection {
  /** Every status update it was sent, in order. */
  readonly statuses: Array<ReplicationMessage.StandbyStatusUpdate>
  readonly commands: Array<string>
  /** CopyDone came: the client has said goodbye. */
  isDone: boolean
  isClosed: boolean
  readonly say: (...messages: ReadonlyArray<Uint8Array>) => Effect.Effect<void>
  readonly drop: Effect.Effect<void>
}

export const lsn = (text: string): Lsn.Lsn => Lsn.fromString(text)!

export const concat = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => Bytes.concat(parts)

/** An XLogData frame around a plugin's message. */
export const xLogData = (at: string, walData: Uint8Array): Uint8Array =>
  BackendMessage.copyData(
    ReplicationMessage.encodeXLogData({
      walStart: lsn(at),
      walEnd: lsn(at),
      sendTime: PgTimestamp.make(0),
      walData
    })
  )

export const keepAlive = (walEnd: string, replyRequested = false): Uint8Array =>
  BackendMessage.copyData(
    ReplicationMessage.encodePrimaryKeepAlive({ walEnd: lsn(walEnd), sendTime: PgTimestamp.make(0), replyRequested })
  )

/** pgoutput's Begin, Relation, Insert and Commit, as the server writes them. */
export const begin = (commitLsn: string, xid = 7): Uint8Array =>
  xLogData("0/0", Bytes.begin({ commitLsn: lsn(commitLsn), commitTime: 0, xid }))

export const relation = (oid = 16_385, name = "orders"): Uint8Array => {
  const columns = [{ name: "id", typeOid: 23, isKey: true }]
  return xLogData("0/0", Bytes.relation({ oid, schema: "public", name, replicaIdentity: "d", columns }))
}

export const insert = (at: string, id: number, oid = 16_385): Uint8Array =>
  xLogData(at, Bytes.insert(oid, [String(id)]))

export const commit = (commitLsn: string, endLsn: string): Uint8Array =>
  xLogData(endLsn, Bytes.commit({ commitLsn: lsn(commitLsn), endLsn: lsn(endLsn), commitTime: 0 }))

/** A whole transaction of one row. */
export const transaction = (commitLsn: string, endLsn: string, id: number): Uint8Array =>
  concat(begin(commitLsn), insert(commitLsn, id), commit(commitLsn, endLsn))

const freeSlot: QueryRow = {
  slot_name: "orders",
  slot_type: "logical",
  plugin: "pgoutput",
  database: "shop",
  temporary: "f",
  active_pid: null,
  restart_lsn: "0/1",
  confirmed_flush_lsn: "0/1",
  wal_status: "reserved",
  invalidation_reason: null,
  retained: "0"
}

/** What the catalog answers. A command it does not know is a mistake of the test. */
const answer = (options: FakeOptions, command: string): ReadonlyArray<QueryRow> => {
  if (command.startsWith("SET ")) return []
  if (command === "IDENTIFY_SYSTEM") {
    const { systemId = "7000", timeline = 1, xLogPos = "0/1000" } = options
    return [{ systemid: systemId, timeline: String(timeline), xlogpos: xLogPos, dbname: "shop" }]
  }
  if (command.startsWith("TIMELINE_HISTORY ")) {
    return [{ filename: "00000002.history", content: options.history ?? "" }]
  }
  if (command.includes("pg_settings")) {
    const settings = { wal_sender_timeout: String(options.walSenderTimeout ?? 60_000), wal_level: "logical" }
    const in_recovery = options.isInRecovery === true ? "t" : "f"
    return [{ ...settings, pid: "100", server_start: options.serverStart ?? "1", in_recovery }]
  }
  if (command.includes("wait_event_type")) {
    const waiting = { server_start: "1", active_pid: "100", backend_type: "walsender", wait_event_type: "Client" }
    return [{ ...waiting, ...options.standing } as QueryRow]
  }
  if (command.includes("pg_control_system")) {
    const { systemId = "7000", xLogPos = "0/1000" } = options
    return [{ system_id: systemId, wal_end: xLogPos, slot_name: "orders", confirmed_flush_lsn: "0/1" }]
  }
  if (command.includes("synchronized_standby_slots")) {
    return [{ failover: "f", wait_event: null, standbys: "", ...options.hold } as QueryRow]
  }
  if (command.includes("slot_name IN")) return options.standbys ?? []
  if (command.includes("AS in_recovery")) return [{ in_recovery: options.isInRecovery === true ? "t" : "f" }]
  if (command.includes("pg_publication")) {
    return (options.publications ?? ["orders"]).map((pubname) => ({
      pubname,
      puballtables: "f",
      pubinsert: "t",
      pubupdate: "t",
      pubdelete: "t",
      pubtruncate: "t"
    }))
  }
  if (command.includes("pg_replication_slots")) {
    return options.slot === "missing" ? [] : [{ ...freeSlot, ...options.slot } as QueryRow]
  }
  if (command.startsWith("CREATE_REPLICATION_SLOT")) {
    return [{ slot_name: "orders", consistent_point: "0/1", snapshot_name: null }]
  }
  throw new Error(`the fake walsender has no answer to ${command}`)
}

export interface FakeWalSender {
  readonly layer: Layer.Layer<WalSender>
  /** The next connection that reaches its copy stream. */
  readonly accept: Effect.Effect<FakeConnection>
  /** But for those that only ask what another does. */
  readonly connections: Array<FakeConnection>
  /** How many did that. */
  readonly inquiries: () => number
}

/** A walsender whose n-th connection behaves by `script(n)`: options, or an error to refuse it with. */
export const make = (
  script: (attempt: number) => FakeOptions | ReplicationError = () => ({})
): Effect.Effect<FakeWalSender> =>
  Effect.gen(function* () {
    const accepted = yield* Queue.unbounded<FakeConnection>()
    const connections: Array<FakeConnection> = []
    const inquirers = new Set<FakeConnection>()
    let attempts = 0
    const connect = Effect.suspend(() => {
      const options = script(attempts++)
      if ("_tag" in options) return Effect.fail(options)
      return open(options, connections, accepted, inquirers)
    })
    return {
      layer: Layer.succeed(WalSender, WalSender.of({ connect, openSession: connect })),
      accept: Queue.take(accepted),
      connections,
      inquiries: () => inquirers.size
    }
  })

/** Asked over a connection that streams nothing. */
const isInquiry = (command: string): boolean =>
  /wait_event_type|synchronized_standby_slots|pg_control_system/.test(command)

const open = Effect.fnUntraced(function* (
  options: FakeOptions,
  connections: Array<FakeConnection>,
  accepted: Queue.Queue<FakeConnection>,
  inquirers: Set<FakeConnection>
) {
  const wire = yield* Queue.unbounded<Uint8Array, ReplicationError>()
  const closed = new ConnectionError({ reason: "Closed", detail: "the server closed the connection" })
  const fake: FakeConnection = {
    statuses: [],
    commands: [],
    isDone: false,
    isClosed: false,
    say: (...messages) => Effect.asVoid(Queue.offer(wire, concat(...messages))),
    drop: Effect.asVoid(Queue.fail(wire, closed))
  }
  connections.push(fake)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      fake.isClosed = true
    })
  )
  const frames = new Frames()
  const copy: CopyBoth = {
    pull: Queue.take(wire),
    send: (bytes) =>
      Effect.gen(function* () {
        frames.push(bytes)
        while (frames.next()) {
          if (frames.tag === BackendMessage.copyDoneTag) {
            fake.isDone = true
            yield* Queue.offer(wire, concat(BackendMessage.copyDone, BackendMessage.commandComplete("COPY 0")))
          } else {
            const reader = new ByteReader(portableText).reset(frames.bytes, frames.start, frames.end)
            const message = ReplicationMessage.decodeStandbyMessage(reader)
            if (message._tag !== "StandbyStatusUpdate") continue
            fake.statuses.push(message)
            if (message.replyRequested && options.isDeaf !== true) yield* Queue.offer(wire, keepAlive("0/0"))
          }
        }
      })
  }
  const connection: ReplicantConnection = {
    serverVersion: options.serverVersion ?? 180_004,
    slices: portableText,
    query: (command) =>
      options.isMute === true
        ? Effect.never
        : Effect.sync(() => {
            fake.commands.push(command)
            if (isInquiry(command) && !inquirers.has(fake)) {
              inquirers.add(fake)
              connections.splice(connections.indexOf(fake), 1)
            }
            return answer(options, command)
          }),
    copyBoth: (command) =>
      Effect.gen(function* () {
        fake.commands.push(command)
        yield* Queue.offer(wire, BackendMessage.copyBothResponse)
        yield* Queue.offer(accepted, fake)
        return copy
      })
  }
  return connection
})

/** An ErrorResponse the connection attempt itself meets. */
export const refusal = (sqlState: string): ReplicationError =>
  serverError({ severity: "FATAL", sqlState, message: "refused" }, "Connect")
