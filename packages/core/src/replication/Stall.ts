/**
 * What a server's warning beside the changes means: asked of its catalog over another connection, since texts are translated
 * and one SQLSTATE is a dozen conditions. No warning ends a stream by itself.
 *
 * A failover slot (PostgreSQL 17) sends nothing that the standbys of `synchronized_standby_slots` have not confirmed. Where one
 * of them is down, or the setting names a slot that this server does not have, as on a standby that was promoted, the
 * walsender warns and waits, while keep-alives go on. From 18 on a publication that is missing is a warning as well.
 *
 * Source: StandbySlotsHaveCaughtup in src/backend/replication/slot.c, LoadPublications in
 * src/backend/replication/pgoutput/pgoutput.c
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { PublicationNotFound, type ReplicationError, type ServerMessage } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { missingPublications } from "../server/Publication.ts"
import type { ReplicantConnection, WalSender } from "../server/WalSender.ts"
import { askElsewhere } from "./WalSenderStanding.ts"

/** The server holds the stream back. */
export interface Stall {
  /** What it waits for: slots and settings by name. */
  readonly reason: string
  readonly remedy: string
}

/** The stream that was warned. */
export interface Warned {
  readonly slot: string
  readonly publications: ReadonlyArray<string>
}

/** What the catalog says; of either nothing where it could not be asked. */
export interface Findings {
  readonly missing: ReadonlyArray<string>
  readonly stall: Stall | undefined
}

const HoldRow = Schema.Struct({
  failover: Schema.NullOr(Catalog.BooleanFromText),
  wait_event: Schema.NullOr(Schema.String),
  standbys: Schema.NullOr(Schema.String)
})

const StandbyRow = Schema.Struct({
  slot_name: Schema.String,
  slot_type: Schema.String,
  active_pid: Schema.NullOr(Schema.String),
  invalidation_reason: Schema.NullOr(Schema.String)
})

/** A slot that `synchronized_standby_slots` names, as the catalog has it. */
export type StandbyRow = typeof StandbyRow.Type

const holdQuery = (slot: string): string =>
  `SELECT s.failover, a.wait_event, pg_catalog.current_setting('synchronized_standby_slots', true) AS standbys
  FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.slot_name = ${quoteLiteral(slot)}
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid`

/** The setting is a list of slot names, which have no character that needs quotes. */
export const standbyNames = (setting: string): ReadonlyArray<string> =>
  setting
    .split(",")
    .map((name) => name.replace(/[\s"]/g, "").toLowerCase())
    .filter((name) => name !== "")

const problemOf = (row: StandbyRow | undefined): string | undefined => {
  if (row === undefined) return "does not exist on this server"
  if (row.slot_type !== "physical") return "is not a physical slot"
  if (row.invalidation_reason !== null) return "is invalidated"
  return row.active_pid === null ? "has no standby connected" : undefined
}

const quoted = (names: ReadonlyArray<string>): string => names.map((name) => `"${name}"`).join(", ")

/** Which of the slots hold the stream up, and what helps. */
export const stallOf = (names: ReadonlyArray<string>, rows: ReadonlyArray<StandbyRow>): Stall => {
  const states = names.map((name) => ({ name, problem: problemOf(rows.find((row) => row.slot_name === name)) }))
  const broken = states.filter(({ problem }) => problem !== undefined)
  const blocking = broken.length > 0 ? broken : states
  const details = blocking.map(({ name, problem = "has not confirmed what is to be sent" }) => `"${name}" ${problem}`)
  const slots = quoted(blocking.map(({ name }) => name))
  return {
    reason: `the server waits for the slots that its setting synchronized_standby_slots names: ${details.join(", ")}`,
    remedy: `bring the standby of ${slots} back, or take ${slots} out of synchronized_standby_slots and reload the configuration; nothing is lost meanwhile`
  }
}

/** How often to look whether it waits, and how long in between; milliseconds. A warning comes just before the wait. */
const looks = 3
const lookInterval = 100

const lookForStall = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  slot: string
): Effect.fn.Return<Stall | undefined, ReplicationError> {
  if (connection.serverVersion < 170_000) return undefined
  for (let count = 1; ; count++) {
    const rows = yield* Catalog.queryAt(connection, holdQuery(slot), { stage: "Query" })
    const { failover, standbys, wait_event } = yield* Catalog.decodeRow(HoldRow, rows[0], "pg_replication_slots")
    const names = standbyNames(standbys ?? "")
    if (failover !== true || names.length === 0) return undefined
    if (wait_event === "WaitForStandbyConfirmation") {
      const text = `SELECT slot_name, slot_type, active_pid, invalidation_reason FROM pg_catalog.pg_replication_slots
  WHERE slot_name IN (${names.map(quoteLiteral).join(", ")})`
      const found = yield* Catalog.queryAt(connection, text, { stage: "Query" })
      return stallOf(
        names,
        yield* Effect.forEach(found, (row) => Catalog.decodeRow(StandbyRow, row, "pg_replication_slots"))
      )
    }
    if (count === looks) return undefined
    yield* Effect.sleep(lookInterval)
  }
})

/** Asks whether the stream is held back, and which of its publications are not there. */
export const askFindings = (
  { publications, slot }: Warned,
  deadline: Duration.Input
): Effect.Effect<Findings, never, WalSender> => {
  const ask = Effect.fnUntraced(function* (
    connection: ReplicantConnection
  ): Effect.fn.Return<Findings, ReplicationError> {
    yield* Catalog.pinSession(connection)
    const missing = yield* missingPublications(connection, publications)
    return { missing, stall: yield* lookForStall(connection, slot) }
  })
  return askElsewhere(ask, { deadline, fallback: { missing: [], stall: undefined }, what: "what the server warns of" })
}

/** A warning to ask about: of the two codes that both the wait and a missing publication have. */
export const isAskedAbout = ({ severity, sqlState }: ServerMessage): boolean =>
  severity === "WARNING" && (sqlState === "55000" || sqlState === "22023")

/**
 * The publications that what is decoded lacks, by a warning and what the catalog says; none where it is about something else.
 * One that was made meanwhile was missing all the same when the change was written, and stays so for it: the function that
 * warned tells that, which no language changes, and of several the name that it quotes.
 */
export const lackedBy = (
  { message, routine, sqlState }: ServerMessage,
  publications: ReadonlyArray<string>,
  { missing }: Findings
): ReadonlyArray<string> => {
  if (sqlState !== "55000" || publications.length === 0 || routine === "StandbySlotsHaveCaughtup") return []
  if (missing.length > 0 || routine !== "LoadPublications") return missing
  const named = publications.filter((name) => message.includes(name))
  return named.length === 0 ? publications : named
}

/** The same failure, telling of several publications those alone that are missing, where the catalog tells. */
export const nameMissing = (error: PublicationNotFound, { missing }: Findings): PublicationNotFound =>
  missing.length === 0 ? error : new PublicationNotFound({ publications: missing })
