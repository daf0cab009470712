/**
 * One transaction in progress, from its first block to its commit, prepare or abort: the relations described in it, the
 * subtransactions that were undone, and, where it is gathered, its messages as they came.
 *
 * Gathered messages are copied once, out of the read into chunks that this owns. A record of a chunk is an Int32 length
 * and a whole message, its byte and xid included; no record spans chunks.
 */
import type { Begin, Change } from "../change/Change.ts"
import type { Batch, GatheredBytes, Replay } from "../change/OutputPlugin.ts"
import { ByteReader, type TextSlices } from "../protocol/ByteReader.ts"
import { tags } from "./LogicalMessage.ts"
import { PgoutputDecoder } from "./PgoutputDecoder.ts"
import type { RelationCache } from "./RelationCache.ts"

/**
 * One read of a file, some thousand changes handed over at a time. A larger message has a chunk of its own; a small
 * transaction begins with less, so that many of them take little.
 */
const chunkLength = 256 * 1024
const firstChunkLength = 8 * 1024
const lengthBytes = 4

/** How a gathered transaction ended: what it begins with and what closes it. */
export interface Ending {
  readonly begin: Begin
  readonly close: Change
}

export class StreamedTransaction implements GatheredBytes {
  readonly xid: number
  readonly relations: RelationCache
  /** Over {@link relations}: of messages as they come. */
  readonly decoder: PgoutputDecoder
  /** When each relation was last described in it, by the stream's count of descriptions. */
  readonly described = new Map<number, number>()
  /**
   * The count at the last abort of a subtransaction: from there on the walsender describes everything anew, also to who
   * comes after this transaction.
   */
  describedAnewSince = 0
  bytesInMemory = 0
  private readonly aborted = new Set<number>()
  private chunks: Array<Uint8Array> = []
  private last: Uint8Array = new Uint8Array(0)
  private used = 0

  constructor(xid: number, relations: RelationCache) {
    this.xid = xid
    this.relations = relations
    this.decoder = new PgoutputDecoder(relations)
  }

  /** Undoes a subtransaction. */
  abort(subxid: number, descriptions: number): void {
    this.aborted.add(subxid)
    this.describedAnewSince = descriptions
  }

  /** Keeps the message `reader.bytes[start, reader.end)`. */
  gather(reader: ByteReader, start: number): void {
    const length = reader.end - start
    const needed = lengthBytes + length
    if (needed > this.last.length - this.used) {
      const grown = Math.min(chunkLength, Math.max(firstChunkLength, 2 * this.last.length))
      this.closeChunk()
      this.last = new Uint8Array(Math.max(grown, needed))
      this.bytesInMemory += this.last.length
    }
    const { last, used } = this
    last[used] = length >>> 24
    last[used + 1] = length >>> 16
    last[used + 2] = length >>> 8
    last[used + 3] = length
    last.set(reader.bytes.subarray(start, reader.end), used + lengthBytes)
    this.used = used + needed
  }

  takeChunks(): ReadonlyArray<Uint8Array> {
    this.closeChunk()
    const { chunks } = this
    this.chunks = []
    this.bytesInMemory = 0
    return chunks
  }

  private closeChunk(): void {
    if (this.used > 0) this.chunks.push(this.last.subarray(0, this.used))
    this.last = new Uint8Array(0)
    this.used = 0
  }

  /** Its changes, once it is known how it ended. They are decoded as `before` had the relations, and as it goes on. */
  replay(slices: TextSlices, before: RelationCache, { begin, close }: Ending): Replay {
    const reader = new ByteReader(slices)
    const decoder = new PgoutputDecoder(before.within())
    return {
      bytes: this,
      commitLsn: begin.commitLsn,
      begin: (batch) => {
        decoder.open(begin)
        batch.changes.push(begin)
      },
      decode: (chunk, batch) => this.decodeChunk(decoder, reader, chunk, batch),
      end: (batch) => {
        batch.changes.push(close)
      }
    }
  }

  private decodeChunk(decoder: PgoutputDecoder, reader: ByteReader, chunk: Uint8Array, batch: Batch): void {
    let start = 0
    while (start < chunk.length) {
      const from = start + lengthBytes
      const end = from + reader.reset(chunk, start, chunk.length).int32()
      if (end < from || end > chunk.length) reader.fail("a gathered transaction that was damaged in its store")
      const tag = reader.reset(chunk, from, end).uint8()
      // Origin is the one message that bears no xid.
      if (tag === tags.origin || !this.aborted.has(reader.uint32())) decoder.decodeMessage(tag, reader, batch)
      start = end
    }
  }
}
