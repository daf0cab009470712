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
import type { Change } from "./Change.ts"
import { NextLsn, type Run } from "./NextLsn.ts"

/** What one read decoded to. The decoder fills it, the stream hands it on; its arrays are not used again. */
export class Batch {
  readonly changes: Array<Change> = []
  /** The units that ended in this read, in order of delivery. */
  readonly delivered: Array<NextLsn> = []
  private readonly run: Run

  constructor(run: Run) {
    this.run = run
  }

  /** Marks the end of a unit, and makes what acknowledges it. */
  deliver(lsn: Lsn.Lsn): NextLsn {
    const nextLsn = NextLsn.deliver(lsn, this.run)
    this.delivered.push(nextLsn)
    return nextLsn
  }
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
}

/** What START_REPLICATION is told in parentheses: names as they are, values yet to be quoted. */
export type PluginOptions = CommandOptions

/** What a stream needs to know of an output plugin. `Pgoutput.make` and `Wal2Json.make` make one. */
export interface OutputPlugin {
  /** As in CREATE_REPLICATION_SLOT: `pgoutput`, `wal2json`. */
  readonly name: string
  /** Publications that must exist before streaming; empty for a plugin that knows none. */
  readonly publications: ReadonlyArray<string>
  /** The options for a server of this `server_version_num` (180004), or what it cannot do. */
  readonly options: (serverVersion: number) => Result.Result<PluginOptions, InvalidOption | UnsupportedByServer>
  readonly makeDecoder: (slices: TextSlices) => Decoder
}
