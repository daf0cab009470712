/**
 * One copy stream's pgoutput messages to changes: a switch on the message's byte, the relations seen so far, and the
 * transaction that is open.
 *
 * The hot path: per row it makes the row, the change, and nothing else. It holds none of the bytes it is lent.
 *
 * Strict, since a change misread or skipped is lost for good: unknown bytes, bytes too many, messages out of place and
 * relations never described are all `DecodeError`s.
 *
 * It knows transactions that come whole, and two-phase commit where that was asked for. Blocks of transactions in progress
 * are taken apart by `StreamingDecoder.ts`, which has one of these for each of them. docs/messages.md lists which message
 * may come in which state, and from where in PostgreSQL's source that is known.
 */
import type { Begin, OldRow, Row } from "../change/Change.ts"
import type { Batch, CopiedRows, CopiedTable, Decoder } from "../change/OutputPlugin.ts"
import * as Relation from "../change/Relation.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { ByteReader } from "../protocol/ByteReader.ts"
import { CopyScratch } from "./CopyRow.ts"
import * as LogicalMessage from "./LogicalMessage.ts"
import type { KnownRelation, RelationCache } from "./RelationCache.ts"
import * as StreamMessage from "./StreamMessage.ts"
import { TupleScratch } from "./Tuple.ts"

const { tags, tuples } = LogicalMessage
const { streamTags, twoPhaseTags } = StreamMessage
const twoPhaseKinds: ReadonlySet<number> = new Set(Object.values(twoPhaseTags))

/** Whether PREPARE TRANSACTION is told when it happens: protocol version 3. */
export type Phases = "one" | "two"

export class PgoutputDecoder implements Decoder {
  lastCommitTime: PgTimestamp | undefined = undefined

  private begin: Begin | undefined = undefined
  private ordinal = 0
  private readonly relations: RelationCache
  /** The relation last used, as most rows follow one of their own: spares the look-up. */
  private latest: KnownRelation | undefined = undefined
  private readonly scratch = new TupleScratch()
  private readonly copyScratch = new CopyScratch()
  private readonly phases: Phases

  constructor(relations: RelationCache, phases: Phases = "one") {
    this.relations = relations
    this.phases = phases
  }

  get isOpen(): boolean {
    return this.begin !== undefined
  }

  /** Begins a transaction that no Begin message opens. */
  open(begin: Begin): void {
    this.begin = begin
    this.ordinal = 0
  }

  /** The relations may have changed under it. */
  forgetLatest(): void {
    this.latest = undefined
  }

  decode(reader: ByteReader, batch: Batch): void {
    this.decodeMessage(reader.uint8(), reader, batch)
  }

  copiedRows(table: CopiedTable): CopiedRows {
    const known = this.relations.describeTable(table)
    return { relation: known.relation, readRow: known.copyReader(this.copyScratch) }
  }

  /** Decodes what follows the byte that is the message's kind, and its xid where it stands in a block. */
  decodeMessage(tag: number, reader: ByteReader, batch: Batch): void {
    switch (tag) {
      case tags.insert:
        this.decodeInsert(reader, batch)
        break
      case tags.update:
        this.decodeUpdate(reader, batch)
        break
      case tags.delete:
        this.decodeDelete(reader, batch)
        break
      case tags.begin:
        this.decodeBegin(reader, batch)
        break
      case tags.commit:
        this.decodeCommit(reader, batch)
        break
      case tags.relation:
        this.decodeRelation(reader, batch)
        break
      case tags.type: {
        const type = LogicalMessage.decodeType(reader)
        reader.expectEnd()
        this.relations.describeType(type)
        break
      }
      case tags.truncate:
        this.decodeTruncate(reader, batch)
        break
      case tags.message:
        this.decodeLogicalMessage(reader, batch)
        break
      case tags.origin:
        this.decodeOrigin(reader, batch)
        break
      case streamTags.abort:
        this.decodeAbort(reader)
        break
      default:
        if (!twoPhaseKinds.has(tag)) reader.fail(`a pgoutput message of unknown kind 0x${tag.toString(16)}`)
        // A slot that was ever used for it tells of it for good, whatever is asked for: who did not ask would take for
        // committed what is not.
        if (this.phases === "one") StreamMessage.failOnTwoPhase(reader, tag)
        this.decodeTwoPhase(tag, reader, batch)
    }
  }

  private decodeTwoPhase(tag: number, reader: ByteReader, batch: Batch): void {
    switch (tag) {
      case twoPhaseTags.beginPrepare:
        this.decodeBeginPrepare(reader, batch)
        break
      case twoPhaseTags.prepare:
        this.decodePrepare(reader, batch)
        break
      case twoPhaseTags.commitPrepared: {
        if (this.begin !== undefined) reader.fail("a commit of what was prepared inside a transaction")
        const message = StreamMessage.decodeCommitPrepared(reader)
        batch.changes.push({
          _tag: "CommitPrepared",
          ...message,
          nextLsn: batch.deliver(message.endLsn, message.commitTime)
        })
        break
      }
      case twoPhaseTags.rollbackPrepared: {
        if (this.begin !== undefined) reader.fail("a rollback of what was prepared inside a transaction")
        const message = StreamMessage.decodeRollbackPrepared(reader)
        batch.changes.push({
          _tag: "RollbackPrepared",
          ...message,
          nextLsn: batch.deliver(message.endLsn, message.rollbackTime)
        })
        break
      }
    }
  }

  /**
   * PostgreSQL 18 drops the changes of a transaction that it finds aborted, and tells of each of its subtransactions that
   * it is undone, whatever was asked for: nothing of it ever came, and there is nothing to undo.
   */
  private decodeAbort(reader: ByteReader): void {
    if (this.begin !== undefined) reader.fail("an abort inside a transaction")
    const { subxid, xid } = StreamMessage.decodeStreamAbort(reader)
    if (subxid === xid) reader.fail("the abort of a transaction in progress that never began")
  }

  private decodeInsert(reader: ByteReader, batch: Batch): void {
    const begin = this.openTransaction(reader)
    const { readRow, relation } = this.relationOf(reader)
    const tuple = reader.uint8()
    if (tuple !== tuples.new) failOnTuple(reader, tuple)
    // A value may be unchanged even here: an update that enters a row filter is sent as an insert.
    const row = readRow(reader, this.scratch, undefined)
    if (reader.offset !== reader.end) reader.expectEnd()
    const { unchanged } = this.scratch
    batch.changes.push({ _tag: "Insert", begin, ordinal: this.ordinal++, relation, row, unchanged })
  }

  private decodeUpdate(reader: ByteReader, batch: Batch): void {
    const begin = this.openTransaction(reader)
    const { scratch } = this
    const known = this.relationOf(reader)
    let tuple = reader.uint8()
    let old: OldRow | undefined
    let before: Row | undefined
    if (tuple !== tuples.new) {
      old = this.readOld(reader, known, tuple)
      before = old.row
      tuple = reader.uint8()
      if (tuple !== tuples.new) failOnTuple(reader, tuple)
    }
    const row = known.readRow(reader, scratch, before)
    if (reader.offset !== reader.end) reader.expectEnd()
    const { relation } = known
    const { unchanged } = scratch
    batch.changes.push({ _tag: "Update", begin, ordinal: this.ordinal++, relation, row, unchanged, old })
  }

  private decodeDelete(reader: ByteReader, batch: Batch): void {
    const begin = this.openTransaction(reader)
    const known = this.relationOf(reader)
    const old = this.readOld(reader, known, reader.uint8())
    if (reader.offset !== reader.end) reader.expectEnd()
    batch.changes.push({ _tag: "Delete", begin, ordinal: this.ordinal++, relation: known.relation, old })
  }

  private readOld(reader: ByteReader, known: KnownRelation, tuple: number): OldRow {
    if (tuple === tuples.key) return { _tag: "Key", row: known.readKey(reader, this.scratch, undefined) }
    if (tuple === tuples.old) return { _tag: "Full", row: known.readRow(reader, this.scratch, undefined) }
    return failOnTuple(reader, tuple)
  }

  private decodeBegin(reader: ByteReader, batch: Batch): void {
    if (this.begin !== undefined) reader.fail("a transaction begins inside another")
    const { commitLsn, commitTime, xid } = LogicalMessage.decodeBegin(reader)
    reader.expectEnd()
    const begin: Begin = { _tag: "Begin", xid, commitLsn, commitTime }
    this.open(begin)
    this.lastCommitTime = commitTime
    batch.changes.push(begin)
  }

  private decodeBeginPrepare(reader: ByteReader, batch: Batch): void {
    if (this.begin !== undefined) reader.fail("a transaction begins inside another")
    this.beginPrepared(StreamMessage.decodeBeginPrepare(reader), batch)
  }

  private beginPrepared(message: StreamMessage.PrepareMessage, batch: Batch): Begin {
    const { gid, prepareLsn, prepareTime, xid } = message
    const begin: Begin = { _tag: "Begin", xid, commitLsn: prepareLsn, commitTime: prepareTime, gid }
    this.open(begin)
    this.lastCommitTime = prepareTime
    batch.changes.push(begin)
    return begin
  }

  private decodePrepare(reader: ByteReader, batch: Batch): void {
    const message = StreamMessage.decodePrepare(reader)
    // Of a transaction that was rolled back before it was decoded PostgreSQL 18 sends this alone, without its beginning.
    const begin = this.begin ?? this.beginPrepared(message, batch)
    const { endLsn, gid, prepareLsn } = message
    if (begin.gid !== gid || begin.commitLsn !== prepareLsn) {
      reader.fail("a prepare of another transaction than the one that is open")
    }
    this.begin = undefined
    batch.changes.push({
      _tag: "Prepare",
      begin,
      gid,
      prepareLsn,
      endLsn,
      nextLsn: batch.deliver(endLsn, begin.commitTime)
    })
  }

  private decodeCommit(reader: ByteReader, batch: Batch): void {
    const begin = this.openTransaction(reader)
    const { commitLsn, endLsn } = LogicalMessage.decodeCommit(reader)
    reader.expectEnd()
    if (begin.gid !== undefined) reader.fail("a commit of a transaction that is being prepared")
    if (commitLsn !== begin.commitLsn) reader.fail("a commit of another transaction than the one that is open")
    if (endLsn <= commitLsn) reader.fail("a commit that ends before it begins")
    this.begin = undefined
    batch.changes.push({ _tag: "Commit", begin, commitLsn, endLsn, nextLsn: batch.deliver(endLsn, begin.commitTime) })
  }

  private decodeRelation(reader: ByteReader, batch: Batch): void {
    const message = LogicalMessage.decodeRelation(reader)
    reader.expectEnd()
    const before = this.relations.before(message.oid)?.relation
    const known = this.relations.describeRelation(message)
    this.latest = known
    const { relation } = known
    if (this.begin === undefined || before === undefined || Relation.isSame(before, relation)) return
    // It takes no ordinal of its own: whether it is sent depends on where the stream began, and ids must not.
    batch.changes.push({ _tag: "RelationChanged", begin: this.begin, ordinal: this.ordinal, before, relation })
  }

  private decodeTruncate(reader: ByteReader, batch: Batch): void {
    const begin = this.openTransaction(reader)
    const { cascade, relationOids, restartIdentity } = LogicalMessage.decodeTruncate(reader)
    reader.expectEnd()
    const relations = relationOids.map((oid) => this.knownRelation(reader, oid).relation)
    batch.changes.push({ _tag: "Truncate", begin, ordinal: this.ordinal++, relations, cascade, restartIdentity })
  }

  private decodeLogicalMessage(reader: ByteReader, batch: Batch): void {
    const { content, lsn, prefix, transactional } = LogicalMessage.decodeMessage(reader)
    reader.expectEnd()
    if (transactional) {
      const begin = this.openTransaction(reader)
      const ordinal = this.ordinal++
      batch.changes.push({ _tag: "Message", transactional, begin, ordinal, lsn, prefix, content, nextLsn: undefined })
    } else {
      if (this.begin !== undefined) reader.fail("a message that is not transactional inside a transaction")
      const nextLsn = batch.deliver(lsn)
      batch.changes.push({
        _tag: "Message",
        transactional,
        begin: undefined,
        ordinal: 0,
        lsn,
        prefix,
        content,
        nextLsn
      })
    }
  }

  private decodeOrigin(reader: ByteReader, batch: Batch): void {
    const begin = this.openTransaction(reader)
    const { name, originLsn } = LogicalMessage.decodeOrigin(reader)
    reader.expectEnd()
    batch.changes.push({ _tag: "Origin", begin, ordinal: this.ordinal++, name, originLsn })
  }

  private openTransaction(reader: ByteReader): Begin {
    return this.begin === undefined ? reader.fail("a change or commit outside any transaction") : this.begin
  }

  /** The relation whose OID comes next. */
  private relationOf(reader: ByteReader): KnownRelation {
    const oid = reader.uint32()
    this.scratch.text.reset()
    const { latest } = this
    if (latest !== undefined && latest.relation.oid === oid) return latest
    const known = this.knownRelation(reader, oid)
    this.latest = known
    return known
  }

  private knownRelation(reader: ByteReader, oid: number): KnownRelation {
    return this.relations.get(oid) ?? reader.fail(`a change of relation ${oid}, which was never described`)
  }
}

const failOnTuple = (reader: ByteReader, tuple: number): never =>
  reader.fail(`a tuple of unknown or misplaced kind 0x${tuple.toString(16)}`)
