/**
 * A walsender in this process that has everything in memory: what the stream costs on top of decoding, without a socket.
 * It answers what is asked before a copy, says its reads one after the other, and then hangs up.
 */
import { ConnectionError, type ReplicationError } from "@replicant/core"
import { type QueryRow, type ReplicantConnection, WalSender } from "@replicant/core/driver"
import { Effect, Layer } from "effect"
import { nodeText } from "../packages/node/src/pg/NodeText.ts"

const answers: ReadonlyArray<readonly [contains: string, row: QueryRow]> = [
  ["IDENTIFY_SYSTEM", { systemid: "7000", timeline: "1", xlogpos: "1/0", dbname: "bench" }],
  ["pg_settings", { wal_sender_timeout: "0", wal_level: "logical", pid: "1", server_start: "1", in_recovery: "f" }],
  ["pg_is_in_recovery() AS in_recovery", { in_recovery: "f" }],
  [
    "pg_replication_slots",
    {
      slot_name: "bench",
      slot_type: "logical",
      plugin: "pgoutput",
      database: "bench",
      temporary: "f",
      active_pid: null,
      restart_lsn: "0/1",
      confirmed_flush_lsn: "0/1",
      wal_status: "reserved",
      invalidation_reason: null,
      retained: "0"
    }
  ],
  [
    "pg_publication",
    { pubname: "bench", puballtables: "f", pubinsert: "t", pubupdate: "t", pubdelete: "t", pubtruncate: "t" }
  ]
]

/** CopyBothResponse, of no columns. */
const copyBothResponse = Uint8Array.of(0x57, 0, 0, 0, 7, 0, 0, 0)

/** What of a tree's own a connection is made with: another checkout's, where two are compared. */
export interface Parts {
  readonly slices: ReplicantConnection["slices"]
  /** How it ends, behind the last read. */
  readonly hangUp: Effect.Effect<never, ReplicationError>
}

/** Says these reads, and hangs up. */
export const connection = (reads: ReadonlyArray<Uint8Array>, { hangUp, slices }: Parts): ReplicantConnection => ({
  serverVersion: 180_004,
  slices,
  query: (command) =>
    Effect.succeed(
      answers
        .filter(([contains]) => command.includes(contains))
        .map(([, row]) => row)
        .slice(0, 1)
    ),
  copyBoth: () =>
    Effect.sync(() => {
      let at = -1
      const pull = Effect.suspend(() => {
        const read = at < 0 ? copyBothResponse : reads[at]
        at += 1
        return read === undefined ? hangUp : Effect.succeed(read)
      })
      return { pull, send: () => Effect.void }
    })
})

const parts: Parts = {
  slices: nodeText,
  hangUp: Effect.fail(new ConnectionError({ reason: "Closed", detail: "all has been said" }))
}

export const layer = (reads: ReadonlyArray<Uint8Array>): Layer.Layer<WalSender> =>
  Layer.sync(WalSender, () => {
    const connect = Effect.sync(() => connection(reads, parts))
    return { connect, openSession: connect }
  })
