/**
 * Reads every piece of every table over all of a snapshot's connections, and hands over what comes. The pieces are one
 * list, from which each connection takes the next when it is done with one: so a large table keeps all of them busy.
 *
 * Handing over is awaited before more is read, so what is in memory is a read of each connection, and not a table.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { Relation } from "../change/Relation.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { DecodeError, type ReplicationError } from "../ReplicationError.ts"
import { logNotice } from "../replication/OpenStream.ts"
import type { CopyBoth, ReplicantConnection } from "../replication/WalSender.ts"
import type { CopyPiece } from "./CopyCommand.ts"
import { CopyOut, type CopyOutRead } from "./CopyOut.ts"
import type { PublishedTable } from "./PublishedTables.ts"
import type { SnapshotBeginning, SnapshotChange, SnapshotRow, SnapshotTable } from "./SnapshotChange.ts"
import type { SnapshotDecoder } from "./SnapshotDecoder.ts"
import * as SnapshotProgress from "./SnapshotProgress.ts"

/** Takes what one read brought. */
export type HandOver = (changes: NonEmptyReadonlyArray<SnapshotChange>) => Effect.Effect<unknown>

/** A table under way. */
export interface TableCopy {
  readonly relation: Relation
  readonly estimatedRows: number | undefined
  readonly pieces: ReadonlyArray<CopyPiece>
  piecesLeft: number
  rows: number
  bytes: number
}

/** The tables that will be copied. Throws nothing, but fails for one that the stream could not decode either. */
export const describeTables = (
  tables: ReadonlyArray<PublishedTable>,
  decoder: SnapshotDecoder,
  piecesOf: (table: PublishedTable) => ReadonlyArray<CopyPiece>
): Effect.Effect<ReadonlyArray<TableCopy>, DecodeError> =>
  Effect.try({
    try: () =>
      tables.map((table) => {
        const pieces = piecesOf(table)
        const estimates = table.parts.map((part) => part.estimatedRows)
        return {
          relation: decoder.describe(table),
          estimatedRows: estimates.reduce<number | undefined>(
            (sum, rows) => (sum === undefined || rows === null ? undefined : sum + rows),
            0
          ),
          pieces,
          piecesLeft: pieces.length,
          rows: 0,
          bytes: 0
        }
      }),
    catch: (error) => {
      if (!(error instanceof DecodeError)) throw error
      return error
    }
  })

/** What is told of a table before it is copied. */
export const snapshotTable = ({ estimatedRows, relation }: TableCopy): SnapshotTable => ({ relation, estimatedRows })

/** What the connections of one snapshot share. */
export interface CopyJob {
  readonly snapshot: SnapshotBeginning
  readonly tables: ReadonlyArray<TableCopy>
  readonly decoder: SnapshotDecoder
  readonly handOver: HandOver
  /** Run after every row of a piece has been handed over, and before the table's end is. */
  readonly onPiece?: ((piece: CopyPiece, table: TableCopy) => Effect.Effect<unknown, ReplicationError>) | undefined
  readonly progress: SnapshotProgress.ProgressRef | undefined
}

const tableProgress = ({ bytes, estimatedRows, piecesLeft, relation, rows }: TableCopy) => ({
  relation,
  rows,
  bytes,
  estimatedRows,
  isDone: piecesLeft === 0
})

/** How far all tables are now. */
export const copyProgress = (tables: ReadonlyArray<TableCopy>): ReadonlyArray<SnapshotProgress.TableProgress> =>
  tables.map(tableProgress)

const toRows = (
  rows: ReadonlyArray<SnapshotRow["row"]>,
  snapshot: SnapshotBeginning,
  relation: Relation
): ReadonlyArray<SnapshotRow> => rows.map((row) => ({ _tag: "SnapshotRow", snapshot, relation, row }))

const tellProgress = ({ progress, tables }: CopyJob) =>
  SnapshotProgress.updateProgress(progress, (current) => ({ ...current, tables: copyProgress(tables) }))

/** Counts what has come since the last time. */
const countRows = Effect.fnUntraced(function* (job: CopyJob, table: TableCopy, rows: number, bytes: number) {
  if (rows === 0) return
  yield* Metric.update(SnapshotProgress.rows, rows)
  yield* Metric.update(SnapshotProgress.bytes, bytes)
  table.rows += rows
  table.bytes += bytes
  yield* tellProgress(job)
})

/** Reads the answer to one COPY to its end. */
const readCopy = Effect.fnUntraced(function* (
  job: CopyJob,
  table: TableCopy,
  copy: CopyBoth,
  out: CopyOut
): Effect.fn.Return<void, ReplicationError> {
  while (true) {
    out.push(yield* copy.pull)
    let next: CopyOutRead["next"] = "more"
    let count = 0
    let bytes = 0
    while (next === "more") {
      const read = out.decode()
      if (read.notices.length > 0) yield* Effect.forEach(read.notices, logNotice, { discard: true })
      const rows = toRows(read.rows, job.snapshot, table.relation)
      count += rows.length
      bytes += read.bytes
      if (isReadonlyArrayNonEmpty(rows)) yield* job.handOver(rows)
      if (read.failure !== undefined) return yield* Effect.fail(read.failure)
      next = read.next
    }
    yield* countRows(job, table, count, bytes)
    if (next === "done") return
  }
})

/** One connection's share: it can be asked for one copy after another, but for nothing that is no copy. */
class Reader {
  private readonly connection: ReplicantConnection
  private readonly out: CopyOut
  private copy: CopyBoth | undefined

  constructor(connection: ReplicantConnection, decoder: SnapshotDecoder) {
    this.connection = connection
    this.out = new CopyOut(decoder, connection.slices)
  }

  read(job: CopyJob, table: TableCopy, command: string): Effect.Effect<void, ReplicationError> {
    this.out.begin(table.relation)
    const start =
      this.copy === undefined
        ? this.connection.copyBoth(command)
        : Effect.as(this.copy.send(FrontendMessage.query(command)), this.copy)
    return Effect.flatMap(start, (copy) => {
      this.copy = copy
      return readCopy(job, table, copy, this.out)
    })
  }
}

const completeTable = (job: CopyJob, { bytes, relation, rows }: TableCopy) =>
  Effect.andThen(
    tellProgress(job),
    job.handOver([{ _tag: "SnapshotTableCompleted", snapshot: job.snapshot, relation, rows, bytes }])
  )

/**
 * Copies everything, and ends when all of it has been handed over. `readers` are in the snapshot, and the first of them
 * holds the locks.
 */
export const copyTables = Effect.fnUntraced(function* (
  job: CopyJob,
  readers: ReadonlyArray<ReplicantConnection>
): Effect.fn.Return<void, ReplicationError> {
  const pieces = job.tables.flatMap((table) => table.pieces.map((piece) => ({ table, piece })))
  let next = 0
  const shares = readers.map((connection) => new Reader(connection, job.decoder))
  // A partitioned table may have no partition.
  for (const table of job.tables) if (table.pieces.length === 0) yield* completeTable(job, table)
  yield* Effect.forEach(
    shares,
    Effect.fnUntraced(function* (reader) {
      for (let taken = pieces[next++]; taken !== undefined; taken = pieces[next++]) {
        const { piece, table } = taken
        yield* reader.read(job, table, piece.command)
        if (job.onPiece !== undefined) yield* job.onPiece(piece, table)
        table.piecesLeft -= 1
        if (table.piecesLeft === 0) yield* completeTable(job, table)
      }
    }),
    { concurrency: "unbounded", discard: true }
  )
  // The locks were held to the end, if who holds them is there at the end.
  const [table] = job.tables
  if (table !== undefined) yield* shares[0]!.read(job, table, "COPY (SELECT WHERE false) TO STDOUT")
})
