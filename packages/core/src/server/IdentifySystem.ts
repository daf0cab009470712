/**
 * Which cluster answers, and how far its WAL reaches: `IDENTIFY_SYSTEM`.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-IDENTIFY-SYSTEM
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import { identifySystemCommand } from "../protocol/ReplicationCommand.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import { decodeRow, queryAt } from "./Catalog.ts"
import type { ReplicantConnection } from "./WalSender.ts"

/** What a cluster says of itself. */
export interface IdentifySystem {
  /** Identifies the cluster, and stays the same across restarts and promotions. */
  readonly systemId: string
  readonly timeline: number
  /** How far WAL is written. */
  readonly xLogPos: Lsn.Lsn
  readonly database: string
}

const Row = Schema.Struct({
  systemid: Schema.String,
  timeline: Schema.NumberFromString,
  xlogpos: Lsn.LsnFromString,
  dbname: Schema.String
})

/** Asks a connected walsender who it is. */
export const identifySystem = Effect.fn("Replicant.identifySystem")(function* (
  connection: ReplicantConnection
): Effect.fn.Return<IdentifySystem, ReplicationError> {
  const rows = yield* queryAt(connection, identifySystemCommand, { stage: "IdentifySystem" })
  const row = yield* decodeRow(Row, rows[0], "IDENTIFY_SYSTEM")
  return { systemId: row.systemid, timeline: row.timeline, xLogPos: row.xlogpos, database: row.dbname }
})
