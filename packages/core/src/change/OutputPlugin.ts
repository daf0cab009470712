/**
 * The seam between a stream and the plugin that speaks on it. A plugin is a name, options and a decoder; it performs no
 * effects and knows no connection.
 */
import type * as Result from "effect/Result"
import type * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { ByteReader, TextSlices } from "../protocol/ByteReader.ts"
import type { CommandOptions } from "../protocol/ReplicationCommand.ts"
import type { InvalidOption, UnsupportedByServer } from "../ReplicationError.ts"
import type { Change, Row } from "./Change.ts"
import { NextLsn, type Run } from "./NextLsn.ts"
import type { Relation } from "./Relation.ts"

/** A transaction gathered while it was in progress and committed in this read: its changes stand at `index`. */
export interface GatheredCommit {
  /** How many of the batch's changes come before it. */
  readonly index: number
  readonly replay: Replay
}

/** What one read decoded to. The decoder fills it, the stream hands it on; its arrays are not used again. */
export class Batch {
  /** With transactions in progress as they come, these hold `StreamedChange`s too: see `InProgress.ts`. */
  readonly changes: Array<Change> = []
  /** The units that ended in this read, in order of delivery. */
  readonly delivered: Array<NextLsn> = []
  /** Mostly empty. */
  readonly gathered: Array<GatheredCommit> = []
  private readonly run: Run

  constructor(run: Run) {
    this.run = run
  }

  /** Marks the end of a unit, and makes what acknowledges it; with the time of its commit, which a message has not. */
  deliver(lsn: Lsn.Lsn, committedAt?: PgTimestamp | undefined): NextLsn {
    const nextLsn = NextLsn.deliver(lsn, this.run, committedAt)
    this.delivered.push(nextLsn)
    return nextLsn
  }
}

/**
 * The bytes of one transaction in progress, gathered until it commits. Its messages stay as they came, whole in one chunk
 * each: they take a fifth of what their changes would, and a store can put them aside.
 */
export interface GatheredBytes {
  readonly xid: number
  /** Bytes that are held in memory now. */
  readonly bytesInMemory: number
  /** Gives away the chunks that are in memory, in order; they come before whatever is gathered next. */
  readonly takeChunks: () => ReadonlyArray<Uint8Array>
}

/** A gathered transaction that has committed: its chunks, in order, become changes from `Begin` to `Commit`. */
export interface Replay {
  readonly bytes: GatheredBytes
  readonly commitLsn: Lsn.Lsn
  readonly begin: (batch: Batch) => void
  /** Throws `DecodeError` and nothing else. */
  readonly decode: (chunk: Uint8Array, batch: Batch) => void
  readonly end: (batch: Batch) => void
}

/** The transactions in progress that a decoder gathers. */
export interface Gathering {
  /** Bytes held in memory, of all of them. */
  readonly bytesInMemory: number
  /** The one that holds most. */
  readonly largest: () => GatheredBytes | undefined
  /** Those that were aborted since this was last asked: what was stored of them can go. */
  readonly takeAborted: () => ReadonlyArray<GatheredBytes>
}

/** A table whose rows are to be copied, as the catalog has it: all that is known of it before the stream tells of it. */
export interface CopiedTable {
  readonly oid: number
  readonly schema: string
  readonly name: string
  /** `pg_class.relreplident`: `d`, `n`, `f` or `i`. */
  readonly replicaIdentity: string
  /** The columns that are published. */
  readonly columns: ReadonlyArray<{
    readonly name: string
    readonly isKey: boolean
    readonly typeOid: number
    readonly typeModifier: number
    /** Of a type of the user's, with domains seen through; `null` for a built-in one, which its OID tells. */
    readonly type: { readonly schema: string; readonly name: string } | null
  }>
}

/** A relation's rows as COPY sends them, in text format: how a snapshot reads what the stream will change. */
export interface CopiedRows {
  /** As the rows of the stream have it. */
  readonly relation: Relation
  /**
   * Reads one row, `reader.bytes[reader.offset, reader.end)` with its newline, to the row that an insert of it would have.
   * Throws `DecodeError` and nothing else. Copies whatever outlives the call; bytes of one array must not change between
   * two calls.
   */
  readonly readRow: (reader: ByteReader) => Row
}

/** Lives as long as one copy stream: so do the relations it remembers. */
export interface Decoder {
  /**
   * Decodes the payload of one XLogData, `reader.bytes[reader.offset, reader.end)`, and appends what it says to `batch`.
   * Throws `DecodeError` and nothing else. Copies whatever outlives the call.
   */
  readonly decode: (reader: ByteReader, batch: Batch) => void
  /** Whether a transaction has begun and not ended: while it has, no idle position may be acknowledged. */
  readonly isOpen: boolean
  /** When the last transaction begun was committed, by the server's clock: tells a backlog from live traffic. */
  readonly lastCommitTime: PgTimestamp | undefined
  /** Only where transactions in progress are sent, and gathered. */
  readonly gathering?: Gathering | undefined
  /**
   * How rows of a table become what the stream would make of them; there exactly when the plugin tells `copiedRows`.
   * Throws `DecodeError` for a table that the stream would refuse.
   */
  readonly copiedRows?: ((table: CopiedTable) => CopiedRows) | undefined
}

/** What START_REPLICATION is told in parentheses: names as they are, values yet to be quoted. */
export type PluginOptions = CommandOptions

/** What becomes of transactions in progress: gathered until they commit, or delivered as they come. */
export type InProgressMode = "gather" | "deliver"

/** What a plugin tells, asked for what it is asked for: so nobody has to know which plugin it is, or read its options. */
export interface Tells {
  /** Changes of what these publish: they must exist before streaming. Empty for a plugin that knows none. */
  readonly publications: ReadonlyArray<string>
  /** Every logical message, transactional or not. */
  readonly messages: boolean
  /** Transactions while they are in progress, if they are large. */
  readonly inProgress: boolean
  /** PREPARE TRANSACTION when it happens, and later what became of it. */
  readonly prepared: boolean
  /** Rows of a table as COPY sends them, by `Decoder.copiedRows`: without it there are no snapshots. */
  readonly copiedRows: boolean
  /**
   * Ends of units that lie beyond the message that tells of them: so where a transaction is one message, which stands at
   * the start of its commit record. Otherwise such an end is taken for damage.
   */
  readonly endAhead: boolean
}

/** What a stream needs to know of an output plugin. `Pgoutput.make` and `Wal2Json.make` make one. */
export interface OutputPlugin {
  /** As in CREATE_REPLICATION_SLOT: `pgoutput`, `wal2json`. */
  readonly name: string
  readonly tells: Tells
  /** The options for a server of this `server_version_num` (180004), or what it cannot do. */
  readonly options: (serverVersion: number) => Result.Result<PluginOptions, InvalidOption | UnsupportedByServer>
  /**
   * The same, asked for committed transactions alone: none in progress, none prepared. It still understands what a slot
   * sends that was once asked for more. A plugin that tells of no others is its own.
   */
  readonly plain: OutputPlugin
  /** The mode matters to a plugin that tells of transactions in progress; by default it gathers. */
  readonly makeDecoder: (slices: TextSlices, mode?: InProgressMode) => Decoder
}
