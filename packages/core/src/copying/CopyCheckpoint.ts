/**
 * What is kept of a copy under way: for each table which of its pages have been copied, and under which snapshot. Pure; that
 * it is saved, and when, is decided in `ResumableAttempt.ts`.
 *
 * A copy that is taken up again reads under another snapshot than before, as the old one is gone with its transaction. So a
 * checkpoint counts snapshots, the first being that of the slot's consistent point, and each range of pages bears the number
 * of the one under which it was copied last.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { CheckpointError } from "../checkpoint/CheckpointService.ts"
import * as Lsn from "../Lsn.ts"
import { endOfTable } from "../snapshot/CopyCommand.ts"
import type { PublishedTable } from "../snapshot/PublishedTables.ts"
import * as TransactionSnapshot from "../snapshot/TransactionSnapshot.ts"

/** Pages of a table, the last not included, and by number the snapshot that they were copied under. */
export type CopiedRange = readonly [from: number, to: number, snapshot: number]

const Page = Schema.Number.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: endOfTable }))
const Index = Schema.Number.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(0))

const CopiedPart = Schema.Struct({
  oid: Schema.Number,
  /** Another one after TRUNCATE, and whatever else writes the table anew: then no row is where it was. */
  fileNode: Schema.Number,
  /** In order, none empty, none over another. */
  ranges: Schema.Array(Schema.Tuple([Page, Page, Index]))
})

const CopiedTable = Schema.Struct({
  oid: Schema.Number,
  schema: Schema.String,
  name: Schema.String,
  /** See {@link describe}. */
  description: Schema.String,
  parts: Schema.Array(CopiedPart),
  /** Since this snapshot it is not published any more, and nothing of it counts. */
  goneAt: Schema.optional(Index)
})

/** A table of which something has been copied. */
export type CopiedTable = typeof CopiedTable.Type

const isSnapshot = Schema.makeFilter<string>((text) => TransactionSnapshot.fromString(text) !== undefined)

const Checkpoint = Schema.Struct({
  version: Schema.Literal(1),
  /** `completed` when every row has been handled: then only the slot may be missing. */
  phase: Schema.Literals(["copying", "completed"]),
  slot: Schema.String,
  systemId: Schema.String,
  /** Of the server that its last snapshot is of. */
  timeline: Schema.optional(Schema.Number),
  /** Where the stream begins. */
  consistentPoint: Lsn.LsnFromString,
  /** As `pg_current_snapshot()` gave them. The first is that of the consistent point. */
  snapshots: Schema.NonEmptyArray(Schema.String.check(isSnapshot)),
  /** Everything that the last snapshot sees was committed before this position of the WAL. */
  seam: Lsn.LsnFromString,
  tables: Schema.Array(CopiedTable)
})

/** How far a copy is. */
export type SnapshotCheckpoint = typeof Checkpoint.Type

const Json = Schema.fromJsonString(Checkpoint)

/** Of the slot that the copy is for. */
export const checkpointKey = (slot: string): string => `snapshot/${slot}`

/** As text, to be saved. */
export const encode = (checkpoint: SnapshotCheckpoint): string => Schema.encodeSync(Json)(checkpoint)

const areRangesSound = ({ snapshots, tables }: SnapshotCheckpoint): boolean =>
  tables.every(({ goneAt, parts }) =>
    [...parts.flatMap(({ ranges }) => ranges.map(([, , snapshot]) => snapshot)), goneAt ?? 0].every(
      (snapshot) => snapshot < snapshots.length
    )
  )

/** From text. What it says is told to nobody but as a problem of its form. */
export const decode = (slot: string, text: string): Result.Result<SnapshotCheckpoint, CheckpointError> => {
  const decoded = Schema.decodeUnknownResult(Json)(text)
  const isSound = Result.isSuccess(decoded) && decoded.success.slot === slot && areRangesSound(decoded.success)
  return isSound
    ? Result.succeed(decoded.success)
    : Result.fail(
        new CheckpointError({
          during: "read",
          key: checkpointKey(slot),
          problem: "it is not one of this slot's, not of this version, or damaged"
        })
      )
}

/** Nothing has been copied yet. */
export const begin = (
  options: Pick<SnapshotCheckpoint, "slot" | "systemId" | "consistentPoint"> & {
    readonly timeline: number
    readonly snapshot: string
  }
): SnapshotCheckpoint => ({
  version: 1,
  phase: "copying",
  slot: options.slot,
  systemId: options.systemId,
  timeline: options.timeline,
  consistentPoint: options.consistentPoint,
  snapshots: [options.snapshot],
  seam: options.consistentPoint,
  tables: []
})

/** The number of its last snapshot, which is the one that is read under. */
export const lastSnapshot = ({ snapshots }: SnapshotCheckpoint): number => snapshots.length - 1

/** One of its snapshots. */
export const snapshotAt = ({ snapshots }: SnapshotCheckpoint, index: number): TransactionSnapshot.TransactionSnapshot =>
  // Each was checked when it came in.
  TransactionSnapshot.fromString(snapshots[index]!)!

/** Two unlike texts of a table have the same one once in 2^64. Each step can be undone, so one unlike letter always shows. */
export const digest = (text: string): string => {
  let [high, low] = [0x811c9dc5, 0x9747b28c]
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    high = Math.imul(high ^ code, 0x01000193)
    low = Math.imul((low << 13) | (low >>> 19), 5) ^ code
  }
  return [high, low].map((half) => (half >>> 0).toString(16).padStart(8, "0")).join("")
}

/** What must be equal for copied rows to stand: names, columns, key, filters, partitions. Short, as each save has it. */
export const describe = ({
  columnLists,
  columns,
  filters,
  name,
  parts,
  replicaIdentity,
  schema
}: PublishedTable): string =>
  digest(
    JSON.stringify([
      schema,
      name,
      replicaIdentity,
      columnLists,
      columns,
      filters,
      parts.map((part) => [part.oid, part.schema, part.name])
    ])
  )

/** Lays a range over those that are there: it was copied last. Neighbours of one snapshot become one. */
export const overlay = (ranges: ReadonlyArray<CopiedRange>, range: CopiedRange): ReadonlyArray<CopiedRange> => {
  const [from, to] = range
  const rest = ranges.flatMap(
    ([start, end, snapshot]): ReadonlyArray<CopiedRange> => [
      ...(start < from ? [[start, Math.min(end, from), snapshot] as const] : []),
      ...(end > to ? [[Math.max(start, to), end, snapshot] as const] : [])
    ]
  )
  const merged: Array<CopiedRange> = []
  for (const next of [...rest, range].sort((self, that) => self[0] - that[0])) {
    const last = merged.at(-1)
    if (last !== undefined && last[1] === next[0] && last[2] === next[2])
      merged[merged.length - 1] = [last[0], next[1], next[2]]
    else merged.push(next)
  }
  return merged
}

/** Pages of one part of a table that have been handed over. */
export interface CopiedPages {
  readonly table: PublishedTable
  /** OID. */
  readonly part: number
  readonly from: number
  readonly to: number
}

/** Enters pages as copied under the last snapshot. */
export const record = (checkpoint: SnapshotCheckpoint, { from, part, table, to }: CopiedPages): SnapshotCheckpoint => {
  const fileNode = table.parts.find(({ oid }) => oid === part)?.fileNode ?? 0
  const known = checkpoint.tables.find(({ oid }) => oid === table.oid)
  const before = known?.parts.find(({ oid }) => oid === part)?.ranges ?? []
  const others = known?.parts.filter(({ oid }) => oid !== part) ?? []
  const { name, oid, schema } = table
  const ranges = overlay(before, [from, to, lastSnapshot(checkpoint)])
  const entered: CopiedTable = {
    oid,
    schema,
    name,
    description: describe(table),
    parts: [...others, { oid: part, fileNode, ranges }]
  }
  return { ...checkpoint, tables: [...checkpoint.tables.filter((copied) => copied.oid !== oid), entered] }
}

/** Whether there is anything to go on from. */
export const hasCopied = ({ tables }: SnapshotCheckpoint): boolean =>
  tables.some(({ goneAt, parts }) => goneAt === undefined && parts.some(({ ranges }) => ranges.length > 0))

/** The snapshot that a whole table is as of; `undefined` where it is not whole, or not of one snapshot. */
export const wholeAsOf = ({ parts }: CopiedTable): number | undefined => {
  const asOf = parts[0]?.ranges[0]?.[2]
  const isWhole = parts.every(
    ({ ranges }) => ranges.length === 1 && ranges[0]![0] === 0 && ranges[0]![1] === endOfTable && ranges[0]![2] === asOf
  )
  return isWhole ? asOf : undefined
}
