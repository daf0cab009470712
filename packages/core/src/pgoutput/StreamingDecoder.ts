/**
 * Protocol versions 2 to 4: blocks of transactions in progress, among transactions that come whole.
 *
 * It tells the blocks apart, and either gathers each transaction's messages until it ends, or delivers them as they come.
 * What a message means is left to a `PgoutputDecoder`: one for what comes whole, one for each transaction in progress.
 *
 * Relations described in a block hold for that transaction alone until it commits; from then on for all, unless the same
 * relation was described outside since. The walsender keeps book in the same way (`streamed_txns` and
 * `cleanup_rel_sync_cache` in src/backend/replication/pgoutput/pgoutput.c).
 */
import type { Begin, Change, CommitPrepared, RollbackPrepared } from "../change/Change.ts"
import type { ChangeInProgress, UncommittedChange } from "../change/InProgress.ts"
import type {
  Batch,
  CopiedRows,
  CopiedTable,
  Decoder,
  GatheredBytes,
  Gathering,
  InProgressMode
} from "../change/OutputPlugin.ts"
import * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type { ByteReader, TextSlices } from "../protocol/ByteReader.ts"
import { tags } from "./LogicalMessage.ts"
import { PgoutputDecoder, type Phases } from "./PgoutputDecoder.ts"
import { type Formats, RelationCache } from "./RelationCache.ts"
import { StreamedTransaction } from "./StreamedTransaction.ts"
import * as StreamMessage from "./StreamMessage.ts"

const { streamTags, twoPhaseTags } = StreamMessage

/** What may stand in a block. */
const blockTags: ReadonlySet<number> = new Set([
  tags.insert,
  tags.update,
  tags.delete,
  tags.truncate,
  tags.message,
  tags.relation,
  tags.type,
  tags.origin
])

/** Stands for the Begin that a change in progress does not have; `UncommittedChange` hides it. */
const noBegin: Begin = {
  _tag: "Begin",
  xid: 0,
  commitLsn: Lsn.zero,
  commitTime: PgTimestamp.make(0)
}

export interface StreamingOptions {
  readonly slices: TextSlices
  readonly mode: InProgressMode
  readonly phases: Phases
}

export class StreamingDecoder implements Decoder, Gathering {
  private readonly options: StreamingOptions
  private readonly relations: RelationCache
  private readonly whole: PgoutputDecoder
  private readonly transactions = new Map<number, StreamedTransaction>()
  /** Transactions in progress that ended prepared, and of which nothing more was told. */
  private readonly prepared = new Set<number>()
  private aborted: Array<GatheredBytes> = []
  /** The transaction whose block is open. */
  private block: StreamedTransaction | undefined = undefined
  /** When each relation was last described for all, counted in descriptions. */
  private readonly described = new Map<number, number>()
  private descriptions = 0
  private streamCommitTime: PgTimestamp.PgTimestamp | undefined = undefined

  constructor(formats: Formats, options: StreamingOptions) {
    this.options = options
    this.relations = new RelationCache(formats)
    this.whole = new PgoutputDecoder(this.relations, options.phases)
  }

  get isOpen(): boolean {
    return this.block !== undefined || this.whole.isOpen
  }

  get lastCommitTime(): PgTimestamp.PgTimestamp | undefined {
    const { streamCommitTime, whole } = this
    if (streamCommitTime === undefined || whole.lastCommitTime === undefined) {
      return streamCommitTime ?? whole.lastCommitTime
    }
    return streamCommitTime > whole.lastCommitTime ? streamCommitTime : whole.lastCommitTime
  }

  get gathering(): Gathering | undefined {
    return this.options.mode === "gather" ? this : undefined
  }

  get bytesInMemory(): number {
    let bytes = 0
    for (const transaction of this.transactions.values()) bytes += transaction.bytesInMemory
    return bytes
  }

  largest(): GatheredBytes | undefined {
    let largest: GatheredBytes | undefined
    for (const transaction of this.transactions.values()) {
      if (largest === undefined || transaction.bytesInMemory > largest.bytesInMemory) largest = transaction
    }
    return largest
  }

  takeAborted(): ReadonlyArray<GatheredBytes> {
    const { aborted } = this
    if (aborted.length > 0) this.aborted = []
    return aborted
  }

  copiedRows(table: CopiedTable): CopiedRows {
    return this.whole.copiedRows(table)
  }

  decode(reader: ByteReader, batch: Batch): void {
    const start = reader.offset
    const tag = reader.uint8()
    if (this.block !== undefined) {
      if (tag === streamTags.stop) this.stop(this.block, reader, batch)
      else this.decodeInBlock(this.block, { tag, start }, reader, batch)
      return
    }
    switch (tag) {
      case streamTags.start:
        this.start(reader, batch)
        break
      case streamTags.commit:
        this.commit(reader, batch)
        break
      case streamTags.abort:
        this.abort(reader, batch)
        break
      case streamTags.prepare:
        this.prepare(reader, batch)
        break
      case twoPhaseTags.prepare:
        this.expectNotInProgress(reader)
        this.whole.decodeMessage(tag, reader, batch)
        break
      case twoPhaseTags.commitPrepared:
      case twoPhaseTags.rollbackPrepared:
        this.whole.decodeMessage(tag, reader, batch)
        this.finishPrepared((batch.changes.at(-1) as CommitPrepared | RollbackPrepared).xid)
        break
      default:
        if (tag === tags.relation) this.noteDescription(this.described, reader, reader.offset)
        this.whole.decodeMessage(tag, reader, batch)
    }
  }

  private start(reader: ByteReader, batch: Batch): void {
    if (this.whole.isOpen) reader.fail("a block of a transaction in progress inside another transaction")
    const { isFirst, xid } = StreamMessage.decodeStreamStart(reader)
    const known = this.transactions.get(xid)
    if (isFirst !== (known === undefined)) {
      reader.fail(isFirst ? "a transaction in progress that begins twice" : "a block of a transaction that never began")
    }
    this.block = known ?? this.begin(xid)
    if (this.options.mode === "deliver") push(batch, { _tag: "StreamStart", xid, isFirst })
  }

  private begin(xid: number): StreamedTransaction {
    const transaction = new StreamedTransaction(xid, this.relations.within())
    if (this.options.mode === "deliver") transaction.decoder.open(noBegin)
    this.transactions.set(xid, transaction)
    return transaction
  }

  private stop({ xid }: StreamedTransaction, reader: ByteReader, batch: Batch): void {
    reader.expectEnd()
    this.block = undefined
    if (this.options.mode === "deliver") push(batch, { _tag: "StreamStop", xid })
  }

  private decodeInBlock(
    transaction: StreamedTransaction,
    message: { readonly tag: number; readonly start: number },
    reader: ByteReader,
    batch: Batch
  ): void {
    const { start, tag } = message
    if (!blockTags.has(tag)) {
      reader.fail(`a message of kind 0x${tag.toString(16)} in a block of a transaction in progress`)
    }
    const { xid } = transaction
    const subxid = tag === tags.origin ? xid : reader.uint32()
    if (tag === tags.relation) this.noteDescription(transaction.described, reader, reader.offset)
    if (this.options.mode === "gather") {
      transaction.gather(reader, start)
      // Outside any transaction a description is only remembered: for those who come after this one has committed.
      if (tag === tags.relation || tag === tags.type) transaction.decoder.decodeMessage(tag, reader, batch)
      reader.offset = reader.end
      return
    }
    const { changes } = batch
    const from = changes.length
    transaction.decoder.decodeMessage(tag, reader, batch)
    for (let index = from; index < changes.length; index++) {
      const change = changes[index] as UncommittedChange
      changes[index] = { _tag: "Streamed", xid, subxid, change } satisfies ChangeInProgress as unknown as Change
    }
  }

  private commit(reader: ByteReader, batch: Batch): void {
    this.expectOutside(reader)
    const { commitLsn, commitTime, endLsn, xid } = StreamMessage.decodeStreamCommit(reader)
    const transaction = this.ended(reader, xid)
    this.streamCommitTime = commitTime
    const nextLsn = batch.deliver(endLsn, commitTime)
    if (this.options.mode === "deliver") {
      this.adopt(transaction)
      push(batch, { _tag: "StreamCommit", xid, commitLsn, commitTime, endLsn, nextLsn })
    } else {
      const begin: Begin = { _tag: "Begin", xid, commitLsn, commitTime }
      this.replay(transaction, batch, begin, { _tag: "Commit", begin, commitLsn, endLsn, nextLsn })
    }
  }

  private prepare(reader: ByteReader, batch: Batch): void {
    this.expectOutside(reader)
    if (this.options.phases === "one") StreamMessage.failOnTwoPhase(reader, streamTags.prepare)
    const { endLsn, gid, prepareLsn, prepareTime, xid } = StreamMessage.decodePrepare(reader)
    const transaction = this.ended(reader, xid)
    this.prepared.add(xid)
    this.streamCommitTime = prepareTime
    const nextLsn = batch.deliver(endLsn, prepareTime)
    if (this.options.mode === "deliver") {
      this.adopt(transaction)
      push(batch, { _tag: "StreamPrepare", xid, gid, prepareLsn, prepareTime, endLsn, nextLsn })
    } else {
      const begin: Begin = { _tag: "Begin", xid, commitLsn: prepareLsn, commitTime: prepareTime, gid }
      this.replay(transaction, batch, begin, { _tag: "Prepare", begin, gid, prepareLsn, endLsn, nextLsn })
    }
  }

  /** Its changes are decoded later, among the relations of now. Whoever comes next has its relations at once. */
  private replay(transaction: StreamedTransaction, batch: Batch, begin: Begin, close: Change): void {
    const before = this.relations.snapshot(transaction.described.keys())
    const replay = transaction.replay(this.options.slices, before, { begin, close })
    batch.gathered.push({ index: batch.changes.length, replay })
    this.adopt(transaction)
  }

  private abort(reader: ByteReader, batch: Batch): void {
    this.expectOutside(reader)
    const { abortLsn, abortTime, subxid, xid } = StreamMessage.decodeStreamAbort(reader)
    // PostgreSQL 18 also tells of subtransactions of which, and of whose transaction, it has sent nothing. And where
    // `origin: "none"` keeps back the rollback of what was prepared, its blocks are undone all the same.
    if (subxid !== xid ? !this.transactions.has(xid) : this.prepared.delete(xid)) return
    if (subxid === xid) this.drop(this.ended(reader, xid))
    else this.known(reader, xid).abort(subxid, this.descriptions)
    if (this.options.mode === "deliver") push(batch, { _tag: "StreamAbort", xid, subxid, abortLsn, abortTime })
  }

  /**
   * After a reconnect the server may send blocks of what it had sent as prepared before, and what became of it is then the
   * end of them: they have no other.
   */
  private finishPrepared(xid: number): void {
    this.prepared.delete(xid)
    const transaction = this.transactions.get(xid)
    if (transaction === undefined) return
    this.transactions.delete(xid)
    this.drop(transaction)
  }

  private drop(transaction: StreamedTransaction): void {
    if (this.options.mode === "gather") this.aborted.push(transaction)
  }

  /** A prepare without its beginning is of a transaction of which nothing was sent. Here something was: it would be lost. */
  private expectNotInProgress(reader: ByteReader): void {
    const start = reader.offset
    const { xid } = StreamMessage.decodePrepare(reader)
    if (this.transactions.has(xid)) reader.fail("a prepare of a transaction in progress that is not of its blocks")
    reader.offset = start
  }

  private expectOutside(reader: ByteReader): void {
    if (this.whole.isOpen) reader.fail("the end of a transaction in progress inside another transaction")
  }

  private known(reader: ByteReader, xid: number): StreamedTransaction {
    return this.transactions.get(xid) ?? reader.fail("the end of a transaction in progress that never began")
  }

  private ended(reader: ByteReader, xid: number): StreamedTransaction {
    const transaction = this.known(reader, xid)
    this.transactions.delete(xid)
    return transaction
  }

  /** A relation's OID is the first thing its description tells. */
  private noteDescription(described: Map<number, number>, reader: ByteReader, at: number): void {
    described.set(reader.uint32(), ++this.descriptions)
    reader.offset = at
  }

  private adopt({ described, describedAnewSince, relations }: StreamedTransaction): void {
    this.whole.forgetLatest()
    this.relations.adopt(relations, (oid) => {
      const since = described.get(oid) ?? 0
      if (since <= Math.max(describedAnewSince, this.described.get(oid) ?? 0)) return false
      this.described.set(oid, since)
      return true
    })
  }
}

/** The batch of a stream that delivers transactions in progress holds their kind of change too. */
const push = (batch: Batch, change: ChangeInProgress): void => {
  batch.changes.push(change as Change)
}
