/**
 * Reads one table by chunks of its key, on a connection of its own: each chunk in a transaction that holds the table's lock
 * from before its snapshot is taken until its mark is committed. So no ALTER and no TRUNCATE lies between the rows and
 * their place in the stream.
 *
 * The mark is a logical message. Its commit comes after those of all transactions that the snapshot sees: where the stream
 * brings it, they have been delivered. It needs no right to write to any table, and is written only where the server is
 * no standby.
 *
 * Source: https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Row } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import { qualifiedName, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { DecodeError, PublicationMismatch, type ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { baseTypes, identifiesRows, jsonArray } from "../server/CatalogSql.ts"
import type { WalSender } from "../server/WalSender.ts"
import { type ListedName, listPublishedTables, type PublishedTable, unreadable } from "../snapshot/PublishedTables.ts"
import type { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import { connect, isLockTimeout, lockedBy } from "../snapshot/SnapshotSession.ts"
import * as TransactionSnapshot from "../snapshot/TransactionSnapshot.ts"
import { type ChunkTable, chunkCommand, chunkEndQuery, type KeyPosition, rereadCommand } from "./Chunk.ts"
import type { ChunkPace } from "./ChunkPace.ts"
import { keyText, keyValues } from "./Key.ts"
import { ReadingSession } from "./ReadingSession.ts"
import { SnapshotRefused, type SnapshotRequestError } from "./RequestError.ts"

/** Under this prefix our marks stand in the WAL. */
export const markPrefix = "replicant.snapshot"

/** The session that reads. Its commits do not wait for standbys: a mark is nobody's data. */
export const openReader = Effect.fnUntraced(function* (
  lockTimeout: number
): Effect.fn.Return<ReadingSession, ReplicationError, WalSender | Scope.Scope> {
  const connection = yield* connect(lockTimeout)
  yield* Catalog.queryAt(connection, "SET synchronous_commit = local", { stage: "Query" })
  return new ReadingSession(connection)
})

const query = (session: ReadingSession, text: string) => Catalog.queryAt(session, text, { stage: "Query" })

const markQuery = (content: string): string =>
  `SELECT pg_catalog.pg_logical_emit_message(true, ${quoteLiteral(markPrefix)}, ${quoteLiteral(content)})`

/** Writes a mark, in a transaction of its own. */
export const writeMark = (session: ReadingSession, content: string): Effect.Effect<void, ReplicationError> =>
  Effect.asVoid(query(session, markQuery(content)))

/** Writes a mark as the last word of the transaction that a chunk was read in, and lets the table go. */
export const commitWithMark = (session: ReadingSession, content: string): Effect.Effect<void, ReplicationError> =>
  Effect.asVoid(query(session, `${markQuery(content)}; COMMIT`))

const KeyRow = Schema.Struct({
  key: Schema.fromJsonString(
    Schema.Array(Schema.Struct({ name: Schema.String, operators: Schema.String, base: Schema.NullOr(Schema.String) }))
  ),
  standby: Catalog.BooleanFromText
})

/** The schema of the operators by which the type of `a` is ordered; types without an order of their own have PostgreSQL's. */
const operators = `coalesce((SELECT opn.nspname FROM pg_catalog.pg_opclass o
    JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod AND am.amname = 'btree'
    JOIN pg_catalog.pg_amop op ON op.amopfamily = o.opcfamily AND op.amopstrategy = 5
      AND op.amoplefttype = o.opcintype AND op.amoprighttype = o.opcintype
    JOIN pg_catalog.pg_operator p ON p.oid = op.amopopr
    JOIN pg_catalog.pg_namespace opn ON opn.oid = p.oprnamespace
    WHERE o.opcdefault AND o.opcintype = (SELECT b.base FROM base b WHERE b.oid = a.atttypid)), 'pg_catalog')`

/** Of a domain, the type below. Without a modifier: `character` would be of one character. */
const base = `(SELECT pg_catalog.format_type(b.base, -1) FROM base b WHERE b.oid = a.atttypid AND b.base <> a.atttypid)`

const keyQuery = (oid: number): string => `WITH RECURSIVE ${baseTypes}
  SELECT ${jsonArray(
    `json_build_object('name', a.attname, 'operators', ${operators}, 'base', ${base}) ORDER BY k.place`,
    `FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON CASE WHEN c.relreplident IN ('f', 'n')
        THEN i.indrelid = c.oid AND i.indisprimary AND i.indisvalid ELSE ${identifiesRows("c")} END
      CROSS JOIN unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k (attnum, place)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
      WHERE c.oid = ${oid}`
  )} AS key, pg_catalog.pg_is_in_recovery() AS standby`

/** What a request reads, and in which publications it must be. */
export interface ReaderTarget {
  readonly name: ListedName
  readonly where: string | undefined
  readonly publications: ReadonlyArray<string>
  /** Milliseconds. */
  readonly lockTimeout: number
}

/** The table as it is published now, with its key. Fails for one that cannot be read by chunks beside the stream. */
export const describeTarget = Effect.fnUntraced(function* (
  session: ReadingSession,
  { name, publications, where }: ReaderTarget
): Effect.fn.Return<ChunkTable, SnapshotRequestError> {
  const listing = yield* listPublishedTables(session, publications, name)
  const problem = unreadable(listing)
  if (problem !== undefined) return yield* problem
  const [table] = listing.tables
  if (table === undefined) {
    return yield* new PublicationMismatch({
      publication: publications.join(", "),
      problem: `does not publish ${qualifiedName(name)}, or publishes it under another name: as its root, or as its partitions`,
      remedy: `ALTER PUBLICATION … ADD TABLE ${qualifiedName(name)}`
    })
  }
  const rows = yield* query(session, keyQuery(table.oid))
  const { key, standby } = yield* Catalog.decodeRow(KeyRow, rows[0], "pg_index")
  if (standby) {
    return yield* new SnapshotRefused({
      table: name,
      reason: "Standby",
      detail: "the server is a standby, and the place of rows in the stream is marked by a message in the WAL",
      remedy: "stream from the primary, or copy the table with snapshot: 'only'"
    })
  }
  if (key.length === 0) {
    return yield* new SnapshotRefused({
      table: name,
      reason: "NoKey",
      detail: "it has no key by which rows and changes could be told to be of one row",
      remedy: `ALTER TABLE ${qualifiedName(name)} ADD PRIMARY KEY (…), or REPLICA IDENTITY USING INDEX …`
    })
  }
  const missing = key.find((column) => !table.columns.some((published) => published.name === column.name))
  if (missing !== undefined) return yield* unusableKey(name, missing.name, "is not published")
  return { table, key, where }
})

const unusableKey = (table: ListedName, column: string, problem: string) =>
  new SnapshotRefused({
    table,
    reason: "KeyColumn",
    detail: `its key's column "${column}" ${problem}`,
    remedy: "publish the column, and leave its type to the built-in decoders"
  })

/** What must stay as it is from one chunk to the next: all but sizes, estimates and partitions. */
export const shapeOf = ({ key, table }: ChunkTable): string => {
  const { columns, columnLists, filters, name, oid, replicaIdentity, schema } = table
  return JSON.stringify([key, { columns, columnLists, filters, name, oid, replicaIdentity, schema }])
}

/** A partitioned table is locked with all that is below it. */
const locked = (table: PublishedTable): string =>
  `${table.ancestors.length === 0 ? "ONLY " : ""}${qualifiedName(table)}`

/** A chunk that was read. */
export interface Chunk {
  readonly snapshot: TransactionSnapshot.TransactionSnapshot
  /** By key, in its order; behind them those that were asked for by their key. */
  readonly rows: ReadonlyMap<string, Row>
  readonly asked: ReadonlyArray<string>
  readonly bytes: number
  /** The last row's key; `undefined` where the table is at its end. */
  readonly end: KeyPosition | undefined
}

/** Why there is no chunk: the table is another than before, or its rows outgrew memory. */
export type NoChunk = "reshaped" | "outgrown"

/** What a chunk is of. */
export interface ChunkRequest {
  readonly target: ReaderTarget
  /** As it was described when the reading began. */
  readonly chunk: ChunkTable
  readonly relation: Relation
  readonly decoder: SnapshotDecoder
  readonly after: KeyPosition | undefined
  readonly pace: ChunkPace
  /** Told the snapshot as soon as it stands. Gives the keys that are to be read besides, which it sees settled. */
  readonly onSnapshot: (snapshot: TransactionSnapshot.TransactionSnapshot) => ReadonlyMap<string, KeyPosition>
}

/** A row larger than planned is borne, a chunk many times larger is not: the server only guesses what packed values weigh. */
const outgrownBy = 4

/** What is taken of one chunk's rows, as they come. */
class Taking {
  readonly rows = new Map<string, Row>()
  bytes = 0
  unusable: SnapshotRefused | undefined
  private readonly request: ChunkRequest
  private readonly columns: ReadonlyArray<string>

  constructor(request: ChunkRequest) {
    this.request = request
    this.columns = request.chunk.key.map(({ name }) => name)
  }

  /** Takes rows that came as so many bytes; of a second copy, those that are there `again`. */
  take(rows: ReadonlyArray<Row>, bytes: number, isAgain: boolean): boolean {
    this.bytes += bytes
    for (const row of rows) this.takeRow(row, isAgain)
    return this.rows.size <= 1 || this.bytes <= outgrownBy * this.request.pace.maxBytes
  }

  private takeRow(row: Row, isAgain: boolean): void {
    const { target } = this.request
    const values = keyValues(this.columns, row)
    if ("column" in values) {
      this.unusable ??= unusableKey(target.name, values.column, "is decoded to what cannot be compared")
      return
    }
    const key = keyText(values)
    if (!isAgain && this.rows.has(key)) {
      this.unusable ??= unusableKey(target.name, this.columns[0]!, "is decoded to the same value for different rows")
    }
    this.rows.set(key, row)
  }
}

const SnapshotRowText = Schema.Struct({ snapshot: Schema.String })

/** What a reader sees that takes its snapshot now. */
export const currentSnapshot = Effect.fnUntraced(function* (
  session: ReadingSession
): Effect.fn.Return<TransactionSnapshot.TransactionSnapshot, ReplicationError> {
  const rows = yield* query(session, "SELECT pg_catalog.pg_current_snapshot()::text AS snapshot")
  const row = yield* Catalog.decodeRow(SnapshotRowText, rows[0], "pg_current_snapshot")
  const snapshot = TransactionSnapshot.fromString(row.snapshot)
  if (snapshot === undefined) {
    return yield* new DecodeError({
      problem: "an answer to pg_current_snapshot that PostgreSQL does not give",
      offset: 0
    })
  }
  return snapshot
})

/**
 * Reads one chunk, and leaves its transaction open: `commitWithMark` ends it. The session is of no more use after a failure,
 * or where there is no chunk.
 */
export const readChunk = Effect.fnUntraced(function* (
  session: ReadingSession,
  request: ChunkRequest
): Effect.fn.Return<Chunk | NoChunk, SnapshotRequestError> {
  const { after, chunk, pace, target } = request
  yield* query(
    session,
    `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE ${locked(chunk.table)} IN ACCESS SHARE MODE`
  ).pipe(
    Effect.catchIf(isLockTimeout, () =>
      Effect.andThen(
        query(session, "ROLLBACK"),
        lockedBy(session, target.lockTimeout, { tables: [chunk.table], fingerprint: "", role: "" })
      )
    )
  )
  const snapshot = yield* currentSnapshot(session)
  const again = request.onSnapshot(snapshot)
  const now = yield* describeTarget(session, target)
  if (shapeOf(now) !== shapeOf(chunk)) return "reshaped"
  const [end] = yield* query(session, chunkEndQuery(now, after, { rows: pace.rows, bytes: pace.maxBytes }))
  const taking = new Taking(request)
  const copy = (command: string, isAgain: boolean) =>
    session.copy({
      command,
      relation: request.relation,
      decoder: request.decoder,
      portion: pace.maxBytes,
      take: (rows, bytes) => taking.take(rows, bytes, isAgain)
    })
  if (end !== undefined && !(yield* copy(chunkCommand(now, after, Number(end.chunk_rows)), false))) return "outgrown"
  if (again.size > 0 && !(yield* copy(rereadCommand(now, Array.from(again.values())), true))) return "outgrown"
  if (taking.unusable !== undefined) return yield* taking.unusable
  return {
    snapshot,
    rows: taking.rows,
    asked: Array.from(again.keys()),
    bytes: taking.bytes,
    end: end === undefined ? undefined : now.key.map((_, index) => end[`k${index + 1}`] ?? "")
  }
})
