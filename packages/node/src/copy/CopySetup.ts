/**
 * What must hold before the first row: who the two servers are, what is published, whether the target's tables fit, and where
 * an earlier run stood. Whatever is to be made is made here, and only where that was asked for.
 */
import { Lsn, Publication, ReplicationSlot } from "@replicant/core"
import { identifySystem, type ReplicantConnection } from "@replicant/core/driver"
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
import { coverTables, filledTables, type TableCoverage } from "./TableCoverage.ts"
import {
  mismatches,
  missingGrants,
  type SourceTable,
  sourceTables,
  type TargetTables,
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
}

/** All that the copy goes on with. */
export interface Setup extends TableCoverage {
  readonly position: CopyPosition.CopyPosition
  readonly tables: TargetTables["tables"]
  /** `server_version_num` of the source. */
  readonly sourceVersion: number
}

const session = "SELECT current_database() AS database, pg_catalog.pg_postmaster_start_time() AS started"

/** A copy of the data directory has the same system identifier; one server has one start. */
const isSame = (source: Readonly<Record<string, string | null>> | undefined, target: typeof source): boolean =>
  source?.database === target?.database && source?.started === target?.started

/** Where a key is known at the source, the target's index over it is how its rows are found. */
const missingKeys = (published: ReadonlyArray<SourceTable>, { tables }: TargetTables): ReadonlyArray<string> =>
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
  publications: ReadonlyArray<string>
): Effect.fn.Return<TargetTables, CopyError> {
  const all = yield* sourceTables(source, publications)
  const published = all.filter((table) => !CopyPosition.isPositionTable(table))
  if (published.length === 0) {
    return yield* new CopyMismatch({ problems: [`nothing is published by ${publications.join(", ")}`] })
  }
  const found = yield* targetTables(target, published)
  const problems = [...mismatches(published, found), ...missingKeys(published, found)]
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

/** Slot and position must be of one copy. */
const checkTogether = (
  slot: string,
  isSlotThere: boolean,
  position: CopyPosition.CopyPosition | undefined
): Effect.Effect<void, CopyPositionLost> => {
  if (isSlotThere && position === undefined) {
    return new CopyPositionLost({
      slot,
      problem:
        "it exists at the source, and the target knows no position of it: it is somebody else's, or the row is lost",
      remedy: `choose another slot; or copy anew: replicant slot drop ${slot}, and empty the tables`
    })
  }
  const isBehind = position !== undefined && position.endLsn > Lsn.zero && position.snapshot === undefined
  if (!isSlotThere && (position?.state === "streaming" || isBehind)) {
    return new CopyPositionLost({
      slot,
      problem: "it is gone from the source, with the changes that it kept",
      remedy: `copy anew: DELETE FROM replicant.copy_position WHERE slot = '${slot}' at the target, and empty the tables`
    })
  }
  return Effect.void
}

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
  const { tables } = yield* checkTables(source, target, publications)

  const found = yield* whatIsThere(source, target, options)
  yield* checkTogether(slot, found.slot !== undefined, found.position)
  const isFirst = found.position === undefined
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
    ...(isFirst ? [{ what: `slot "${slot}" at the source, which only the copy itself can make` }] : [])
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
  const cover = (position: CopyPosition.CopyPosition) =>
    Effect.map(coverTables(source, target, position, { ...options, isFirst }), (covered) => {
      return { ...covered, position, tables, sourceVersion }
    })
  if (found.position !== undefined) return yield* cover(found.position)

  const state = options.rows === "copy" ? "copying" : "copied"
  yield* CopyPosition.insert(target, slot, { systemId, timeline, state })
  yield* Effect.logInfo(
    `making slot "${slot}" at the source: it keeps WAL until it is read or dropped (replicant slot drop ${slot})`
  )
  const position = yield* CopyPosition.load(target, slot)
  return yield* cover(position!)
})
