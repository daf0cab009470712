/**
 * What must hold before the first row: who the two servers are, what is published, whether the target's tables fit, and where
 * an earlier run stood. Whatever is to be made is made here, and only where that was asked for.
 */
import { Lsn, Publication, ReplicationSlot } from "@replicant/core"
import { identifySystem, quoteLiteral, type ReplicantConnection } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import {
  type CopyError,
  CopyMismatch,
  CopyNotSetUp,
  CopyPositionLost,
  TargetDenied,
  TargetIsSource,
  TargetNotEmpty
} from "./CopyError.ts"
import * as CopyPosition from "./CopyPosition.ts"
import * as ReplicationOrigin from "./ReplicationOrigin.ts"
import { coverTables, type TableCoverage } from "./TableCoverage.ts"
import {
  filledTables,
  mismatches,
  missingGrants,
  type SourceTable,
  sourceTables,
  type TargetTables,
  type Types,
  tableKey,
  targetTables
} from "./TargetCatalog.ts"
import type { TargetSession } from "./TargetSession.ts"

/** What a setup may make, and what it needs. */
export interface SetupOptions {
  readonly slot: string
  readonly publications: ReadonlyArray<string>
  readonly whenMissing: "create" | "fail"
  readonly whenFilled: "truncate" | "fail"
  readonly rows: "copy" | "leave"
  readonly origin: "marked" | "unmarked"
  readonly types: Types
}

/** All that the copy goes on with. */
export interface Setup extends TableCoverage {
  readonly position: CopyPosition.CopyPosition
  readonly tables: TargetTables["tables"]
  /** Of the source, as it is now: what is copied from here on is of this one. */
  readonly timeline: number
  /** `server_version_num` of the source. */
  readonly sourceVersion: number
}

const session = "SELECT current_database() AS database, pg_catalog.pg_postmaster_start_time() AS started"

/** A copy of the data directory has the same system identifier; one server has one start. */
const isSame = (source: Readonly<Record<string, string | null>> | undefined, target: typeof source): boolean =>
  source?.database === target?.database && source?.started === target?.started

/** Where a key is known at the source, the target's index over it is how its rows are found. */
export const missingKeys = (published: ReadonlyArray<SourceTable>, { tables }: TargetTables): ReadonlyArray<string> =>
  published.flatMap((source) => {
    const target = tables.get(tableKey(source))
    const key = source.identity.length > 0 ? source.identity : source.primaryKey
    const isSent = key.every((name) => source.columns.some((column) => column.name === name))
    if (target === undefined || key.length === 0 || !isSent) return []
    const isThere = target.uniqueKeys.some(
      ({ columns }) => columns.length === key.length && columns.every(({ name }) => key.includes(name))
    )
    return isThere
      ? []
      : [`${tableKey(source)} has no unique index over (${key.join(", ")}), by which its rows are found`]
  })

/** Compares both sides. Nothing is written. */
const checkTables = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  target: TargetSession,
  { publications, types }: Pick<SetupOptions, "publications" | "types">
): Effect.fn.Return<TargetTables, CopyError> {
  const all = yield* sourceTables(source, publications)
  const published = all.filter((table) => !CopyPosition.isPositionTable(table))
  if (published.length === 0) {
    return yield* new CopyMismatch({ problems: [`nothing is published by ${publications.join(", ")}`] })
  }
  const found = yield* targetTables(target, published)
  const problems = [...mismatches(published, found, types), ...missingKeys(published, found)]
  if (problems.length > 0) return yield* new CopyMismatch({ problems })
  const grants = missingGrants(found)
  if (grants.length > 0) {
    return yield* new TargetDenied({
      detail: `the target's role "${found.role}" may not write what is published`,
      remedy: grants.join("; ")
    })
  }
  const hidden = Array.from(found.tables).find(([, table]) => table.hasRowSecurity)
  if (hidden !== undefined) {
    return yield* new TargetDenied({
      detail: `row-level security of ${hidden[0]} stands between the target's role "${found.role}" and its rows`,
      remedy: `ALTER ROLE "${found.role}" BYPASSRLS, or write as the table's owner`
    })
  }
  return found
})

/** What is there of what the copy keeps for itself. */
const whatIsThere = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  target: TargetSession,
  { origin, slot }: SetupOptions
) {
  const hasTable = yield* CopyPosition.tableExists(target)
  const [row] = yield* target.query("SELECT current_database() AS database")
  const originName = ReplicationOrigin.originName(row?.database ?? "", slot)
  if (origin === "marked") yield* ReplicationOrigin.checkRights(target)
  return {
    slot: yield* ReplicationSlot.getReplicationSlot(source, slot),
    hasTable,
    originName,
    hasOrigin: origin === "unmarked" || (yield* ReplicationOrigin.originExists(target, originName)),
    position: hasTable ? yield* CopyPosition.load(target, slot) : undefined
  }
})

/** Slot and position must be of one copy: how they are not, if so. */
export const disagreement = (
  { name: slot, database }: { readonly name: string; readonly database: string | undefined },
  found: Pick<ReplicationSlot.ReplicationSlot, "database"> | undefined,
  position: CopyPosition.CopyPosition | undefined
): CopyPositionLost | undefined => {
  const isSlotThere = found !== undefined
  // Names are of the whole cluster: it is not ours to advise anything on.
  if (found !== undefined && found.database !== database) {
    return new CopyPositionLost({
      slot,
      problem: `it is another database's at the source: of "${found.database ?? ""}"`,
      remedy: "choose another slot"
    })
  }
  if (isSlotThere && position === undefined) {
    return new CopyPositionLost({
      slot,
      problem:
        "it exists at the source, and the target knows no position of it: it is somebody else's, or the row is lost",
      remedy: `choose another slot; or copy anew: replicant slot drop ${slot}, and empty the tables`
    })
  }
  // With a checkpoint of rows that are all there, the slot may be still to be made; at 0/0 it never was.
  const isBehind = position !== undefined && position.endLsn > Lsn.zero && position.snapshot === undefined
  if (!isSlotThere && isBehind) {
    return new CopyPositionLost({
      slot,
      problem: "it is gone from the source, with the changes that it kept",
      remedy: `copy anew: DELETE FROM replicant.copy_position WHERE slot = '${slot}' at the target, and empty the tables`
    })
  }
  return undefined
}

/** Of a copy without rows: stopped before its slot stood. Once it stands, the row has its position, and it is never made again. */
const isUnmade = (position: CopyPosition.CopyPosition | undefined): boolean =>
  position?.state === "copied" && position.endLsn === Lsn.zero

const makeSlot = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  target: TargetSession,
  { slot, timeline }: { readonly slot: string; readonly timeline: number }
): Effect.fn.Return<void, CopyError> {
  const made = yield* ReplicationSlot.createReplicationSlot(source, { slot, plugin: "pgoutput", snapshot: "nothing" })
  yield* target.batch([CopyPosition.copied(slot, { lsn: made.consistentPoint, timeline }, undefined)])
})

/** Stopped between the two. Nothing was applied, so the slot stands where it was made. */
const adoptSlot = (target: TargetSession, slot: ReplicationSlot.ReplicationSlot | undefined, timeline: number) =>
  slot?.confirmedFlushLsn === undefined
    ? Effect.void
    : target.batch([CopyPosition.copied(slot.name, { lsn: slot.confirmedFlushLsn, timeline }, undefined)])

/** What was deleted since is in the slot, and a publication may leave it out: rows that are copied already stay. */
const warnOfKeptRows = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  publications: ReadonlyArray<string>
): Effect.fn.Return<void, CopyError> {
  const rows = yield* source.query(
    `SELECT pubname FROM pg_catalog.pg_publication WHERE pubname IN (${publications.map(quoteLiteral).join(", ")}) AND NOT pubdelete`
  )
  const names = rows.map(({ pubname }) => pubname).join(", ")
  if (names === "") return
  yield* Effect.logWarning(
    `publication ${names} publishes no deletes: rows that an earlier run copied stay at the target where they were deleted since`
  )
})

/** Checks all, and makes what is missing where that was asked for. The origin is the session's from then on. */
export const setup = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  target: TargetSession,
  options: SetupOptions
): Effect.fn.Return<Setup, CopyError> {
  const { publications, slot } = options
  const sourceVersion = source.serverVersion
  const { database, systemId, timeline } = yield* identifySystem(source)
  const [here] = yield* source.query(session)
  const [there] = yield* target.query(session)
  if (isSame(here, there)) return yield* new TargetIsSource({ database: database ?? "" })
  yield* Publication.checkPublications(source, publications)
  const { tables } = yield* checkTables(source, target, options)

  const found = yield* whatIsThere(source, target, options)
  const lost = disagreement({ name: slot, database }, found.slot, found.position)
  if (lost !== undefined) return yield* lost
  const isFirst = found.position === undefined
  // A first copy makes its slot when all rows are there. Without one it is made here, before anything is applied.
  const lacksSlot = found.slot === undefined && (isFirst ? options.rows === "leave" : isUnmade(found.position))
  if (found.position?.state === "copying" && found.position.snapshot !== undefined) {
    yield* warnOfKeptRows(source, publications)
  }
  const missing = [
    ...(found.hasTable
      ? []
      : [{ what: "table replicant.copy_position at the target", command: CopyPosition.createTable }]),
    ...(found.hasOrigin
      ? []
      : [
          {
            what: `replication origin "${found.originName}" at the target`,
            command: ReplicationOrigin.createOrigin(found.originName)
          }
        ]),
    ...(isFirst || lacksSlot ? [{ what: `slot "${slot}" at the source, which only the copy itself can make` }] : [])
  ]
  if (options.whenMissing === "fail" && missing.length > 0) return yield* new CopyNotSetUp({ missing })
  if (isFirst && options.rows === "copy") {
    const filled = yield* filledTables(target, tables.keys())
    if (filled.length > 0 && options.whenFilled === "fail") return yield* new TargetNotEmpty({ tables: filled })
    if (filled.length > 0) yield* Effect.logInfo(`emptying ${filled.join(", ")} at the target, as asked`)
  }
  if (!found.hasTable) {
    yield* target.query(CopyPosition.createTable).pipe(
      Effect.catchIf(
        (error) => error._tag === "TargetFailed" && error.sqlState === "42501",
        () =>
          new TargetDenied({
            detail: "the target's role may not make the schema replicant",
            remedy: `GRANT CREATE ON DATABASE "${there?.database}" TO the role; or make it as another: ${CopyPosition.createTable}; GRANT USAGE ON SCHEMA replicant TO the role; GRANT SELECT, INSERT, UPDATE ON replicant.copy_position TO the role`
          })
      )
    )
    yield* Effect.logInfo("made table replicant.copy_position at the target")
  }
  if (!found.hasOrigin) {
    yield* target.query(ReplicationOrigin.createOrigin(found.originName))
    yield* Effect.logInfo(`made replication origin "${found.originName}" at the target`)
  }
  if (options.origin === "marked") yield* ReplicationOrigin.setupOrigin(target, found.originName)
  if (isFirst) {
    yield* CopyPosition.insert(target, slot, {
      systemId,
      timeline,
      state: options.rows === "copy" ? "copying" : "copied"
    })
  }
  if (isFirst || lacksSlot) {
    yield* Effect.logInfo(
      `making slot "${slot}" at the source: it keeps WAL until it is read or dropped (replicant slot drop ${slot})`
    )
  }
  if (lacksSlot) yield* makeSlot(source, target, { slot, timeline })
  else if (isUnmade(found.position)) yield* adoptSlot(target, found.slot, timeline)
  const position = (yield* CopyPosition.load(target, slot))!
  // Of one that has no position yet, nothing is of an older timeline.
  const now = position.state === "copying" ? { ...position, timeline } : position
  const covered = yield* coverTables(source, target, now, { ...options, isFirst })
  return { ...covered, position: now, tables, timeline, sourceVersion }
})
