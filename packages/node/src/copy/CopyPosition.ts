/**
 * How far a copy is, in a table of the target: written in the transactions that it is the position of, so that no crash can
 * come between the two. What a lost connection leaves in doubt, this row decides.
 */
import { Lsn } from "@replicant/core"
import { quoteLiteral } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import type { Statement, Step } from "./PgBatch.ts"
import type { SessionError, TargetQueries, TargetSession } from "./TargetSession.ts"

/** `copying` until every row is there; `copied` until the first change; then `streaming`. */
export type CopyState = "copying" | "copied" | "streaming"

/** A row of the table. */
export interface CopyPosition {
  /** The source's cluster: `IdentifySystem.systemId`. */
  readonly systemId: string
  /** Of the connection that the position was stored over: it moves on with the position, after a failover of the source. */
  readonly timeline: number
  readonly state: CopyState
  /** Everything before it is in the target, and nothing after; `0/0` while rows are copied. */
  readonly endLsn: Lsn.Lsn
  /** What an idle slot was moved on to. */
  readonly idleFlush: Lsn.Lsn | undefined
  /** Core's checkpoint of a copy under way, see `CheckpointStore`. */
  readonly snapshot: string | undefined
}

/** The table, for whoever makes it by hand. */
export const createTable =
  "CREATE SCHEMA IF NOT EXISTS replicant; CREATE TABLE IF NOT EXISTS replicant.copy_position (slot text PRIMARY KEY, system_id text NOT NULL, timeline int NOT NULL, state text NOT NULL, end_lsn pg_lsn NOT NULL, idle_flush pg_lsn, snapshot text, tables text)"

/**
 * Whether it is this table. Where the source is itself the target of another copy, a publication FOR ALL TABLES has it, and
 * its row over there is not ours.
 */
export const isPositionTable = ({ name, schema }: { readonly schema: string; readonly name: string }): boolean =>
  schema === "replicant" && name === "copy_position"

/** Whether the table is there. */
export const tableExists = (session: TargetQueries): Effect.Effect<boolean, SessionError> =>
  Effect.map(
    session.query("SELECT pg_catalog.to_regclass('replicant.copy_position') IS NOT NULL AS is_there"),
    ([row]) => row?.is_there === "t"
  )

/** The row of a slot, if there is one. */
export const load = (session: TargetQueries, slot: string): Effect.Effect<CopyPosition | undefined, SessionError> =>
  Effect.map(
    session.query(`SELECT system_id, timeline, state, end_lsn, idle_flush, snapshot FROM replicant.copy_position
      WHERE slot = ${quoteLiteral(slot)}`),
    ([row]) =>
      row === undefined
        ? undefined
        : {
            systemId: row.system_id!,
            timeline: Number(row.timeline),
            state: row.state as CopyState,
            endLsn: Lsn.fromString(row.end_lsn!)!,
            idleFlush: row.idle_flush === null ? undefined : Lsn.fromString(row.idle_flush!),
            snapshot: row.snapshot ?? undefined
          }
  )

/** A row for a copy that begins. */
export const insert = (
  session: TargetSession,
  slot: string,
  { state, systemId, timeline }: Pick<CopyPosition, "systemId" | "timeline" | "state">
): Effect.Effect<void, SessionError> =>
  Effect.asVoid(
    session.query(`INSERT INTO replicant.copy_position (slot, system_id, timeline, state, end_lsn)
      VALUES (${quoteLiteral(slot)}, ${quoteLiteral(systemId)}, ${timeline}, '${state}', '0/0')`)
  )

const statement = (name: string, set: string): Statement => ({
  name: `replicant_position_${name}`,
  text: `UPDATE replicant.copy_position SET ${set} WHERE slot = $1`
})

const advanceStatement = statement("advance", "state = 'streaming', end_lsn = $2, timeline = $3")
const idleStatement = statement("idle", "idle_flush = $2, timeline = $3")
const copyingStatement = statement("copying", "state = 'copying', end_lsn = '0/0', idle_flush = NULL, snapshot = $2")
const copiedStatement = statement("copied", "state = 'copied', end_lsn = $2, snapshot = $3, timeline = $4")
const forgetStatement = statement("forget", "snapshot = NULL")

/** A position of the stream, and the timeline that it is of. */
interface OnTimeline {
  readonly lsn: Lsn.Lsn
  readonly timeline: number
}

/** Each meets one row, or somebody has removed it. */
export const advance = (slot: string, { lsn, timeline }: OnTimeline): Step => ({
  statement: advanceStatement,
  values: [slot, Lsn.format(lsn), String(timeline)]
})

export const idle = (slot: string, { lsn, timeline }: OnTimeline): Step => ({
  statement: idleStatement,
  values: [slot, Lsn.format(lsn), String(timeline)]
})

export const copying = (slot: string, snapshot: string | undefined): Step => ({
  statement: copyingStatement,
  values: [slot, snapshot ?? null]
})

/** Every row is there. The position is the slot's consistent point. */
export const copied = (slot: string, { lsn, timeline }: OnTimeline, snapshot: string | undefined): Step => ({
  statement: copiedStatement,
  values: [slot, Lsn.format(lsn), snapshot ?? null, String(timeline)]
})

/** The checkpoint is of no more use. */
export const forget = (slot: string): Step => ({ statement: forgetStatement, values: [slot] })
