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
import { monotonicMillis } from "../MonotonicTime.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { DecodeError, type ReplicationError } from "../ReplicationError.ts"
import * as Metrics from "../replication/Metrics.ts"
import { logNotice } from "../replication/OpenStream.ts"
import type { CopyBoth, ReplicantConnection } from "../server/WalSender.ts"
import type { CopyPiece } from "../snapshot/CopyCommand.ts"
import { CopyOut, type CopyOutRead } from "../snapshot/CopyOut.ts"
import type * as CopyProgress from "../snapshot/CopyProgress.ts"
import { estimatedRows, type PublishedTable } from "../snapshot/PublishedTables.ts"
import type { SnapshotBeginning, SnapshotChange, SnapshotRow, SnapshotTable } from "../snapshot/SnapshotChange.ts"
import type { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import { ProgressMeter } from "./ProgressMeter.ts"
import { type RateLimit, RateLimiter } from "./RateLimit.ts"

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
        return {
          relation: decoder.describe(table),
          estimatedRows: estimatedRows(table),
          pieces,
          piecesLeft: pieces.length,
          rows: 0,
          bytes: 0
        }
      }),
    catch: DecodeError.caught
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
  readonly tellProgress: CopyProgress.TellProgress
  readonly rateLimit?: RateLimit | undefined
}

/** A job under way: what its connections share beside it. */
interface Copying extends CopyJob {
  readonly limiter: RateLimiter | undefined
  readonly meter: ProgressMeter
  /** When progress was told last, in milliseconds. */
  toldAt: number
}

/** Progress is told no more often than this, in milliseconds: with thousands of tables telling it takes a while. */
const tellInterval = 100
/** And no less often, so that a rate falls while nothing comes. */
const longestTellInterval = 1000

const tableProgress = ({ bytes, estimatedRows, piecesLeft, relation, rows }: TableCopy) => ({
  relation,
  rows,
  bytes,
  estimatedRows,
  isDone: piecesLeft === 0
})

/** How far all tables are now. */
export const copyProgress = (tables: ReadonlyArray<TableCopy>): ReadonlyArray<CopyProgress.TableProgress> =>
  tables.map(tableProgress)

const toRows = (
  rows: ReadonlyArray<SnapshotRow["row"]>,
  snapshot: SnapshotBeginning,
  relation: Relation
): ReadonlyArray<SnapshotRow> => rows.map((row) => ({ _tag: "SnapshotRow", snapshot, relation, row }))

const tell = ({ meter, tables, tellProgress }: Copying, now: number) =>
  tellProgress((current) => ({ ...current, ...meter.measure(copyProgress(tables), now) }))

/** Tells how far it is, unless that was just told. */
const tellProgressNow = Effect.fnUntraced(function* (copying: Copying) {
  const now = yield* monotonicMillis
  if (now - copying.toldAt < tellInterval) return
  copying.toldAt = now
  yield* tell(copying, now)
})

const keepTelling = (copying: Copying): Effect.Effect<never> =>
  Effect.forever(Effect.andThen(Effect.sleep(longestTellInterval), tellProgressNow(copying)))

/** Counts what has come since the last time. */
const countRows = Effect.fnUntraced(function* (copying: Copying, rows: number, bytes: number) {
  if (rows === 0) return
  yield* Metric.update(Metrics.snapshotRows, rows)
  yield* Metric.update(Metrics.snapshotBytes, bytes)
  yield* tellProgressNow(copying)
})

/** Reads the answer to one COPY to its end. */
const readCopy = Effect.fnUntraced(function* (
  copying: Copying,
  table: TableCopy,
  copy: CopyBoth,
  out: CopyOut
): Effect.fn.Return<void, ReplicationError> {
  const { limiter } = copying
  while (true) {
    out.push(yield* copy.pull)
    let next: CopyOutRead["next"] = "more"
    let count = 0
    let bytes = 0
    while (next === "more") {
      const read = out.decode(limiter?.portion)
      if (read.notices.length > 0) yield* Effect.forEach(read.notices, logNotice, { discard: true })
      const rows = toRows(read.rows, copying.snapshot, table.relation)
      if (limiter !== undefined && rows.length > 0) yield* limiter.take(rows.length, read.bytes)
      table.rows += rows.length
      table.bytes += read.bytes
      count += rows.length
      bytes += read.bytes
      if (isReadonlyArrayNonEmpty(rows)) yield* copying.handOver(rows)
      if (read.failure !== undefined) return yield* Effect.fail(read.failure)
      next = read.next
      // A read may hold a minute's worth of what the limit allows.
      if (next === "more" && limiter === undefined) continue
      yield* countRows(copying, count, bytes)
      count = 0
      bytes = 0
    }
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

  read(copying: Copying, table: TableCopy, command: string): Effect.Effect<void, ReplicationError> {
    this.out.begin(table.relation)
    const start =
      this.copy === undefined
        ? this.connection.copyBoth(command)
        : Effect.as(this.copy.send(FrontendMessage.query(command)), this.copy)
    return Effect.flatMap(start, (copy) => {
      this.copy = copy
      return readCopy(copying, table, copy, this.out)
    })
  }
}

const completeTable = (copying: Copying, { bytes, relation, rows }: TableCopy) =>
  Effect.andThen(
    tellProgressNow(copying),
    copying.handOver([{ _tag: "SnapshotTableCompleted", snapshot: copying.snapshot, relation, rows, bytes }])
  )

/** Takes piece after piece until there are none. */
const copyEveryPiece = Effect.fnUntraced(function* (
  copying: Copying,
  shares: ReadonlyArray<Reader>
): Effect.fn.Return<void, ReplicationError> {
  const pieces = copying.tables.flatMap((table) => table.pieces.map((piece) => ({ table, piece })))
  let next = 0
  // A partitioned table may have no partition.
  for (const table of copying.tables) if (table.pieces.length === 0) yield* completeTable(copying, table)
  yield* Effect.forEach(
    shares,
    Effect.fnUntraced(function* (reader) {
      for (let taken = pieces[next++]; taken !== undefined; taken = pieces[next++]) {
        const { piece, table } = taken
        yield* reader.read(copying, table, piece.command)
        if (copying.onPiece !== undefined) yield* copying.onPiece(piece, table)
        table.piecesLeft -= 1
        if (table.piecesLeft === 0) yield* completeTable(copying, table)
      }
    }),
    { concurrency: "unbounded", discard: true }
  )
})

/**
 * Copies everything, and ends when all of it has been handed over. `readers` are in the snapshot, and each of them
 * holds the locks: so what one has read was as it is, whatever becomes of the others.
 */
export const copyTables = Effect.fnUntraced(function* (
  job: CopyJob,
  readers: ReadonlyArray<ReplicantConnection>
): Effect.fn.Return<void, ReplicationError> {
  const { rateLimit, tables } = job
  const now = yield* monotonicMillis
  const copying: Copying = {
    ...job,
    limiter: rateLimit === undefined ? undefined : new RateLimiter(rateLimit, now),
    meter: new ProgressMeter(tables, now),
    toldAt: now
  }
  const shares = readers.map((connection) => new Reader(connection, job.decoder))
  yield* Effect.raceFirst(copyEveryPiece(copying, shares), keepTelling(copying))
  yield* tell(copying, yield* monotonicMillis)
})
