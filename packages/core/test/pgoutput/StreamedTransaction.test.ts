/** One transaction in progress by itself: how its messages are kept, and what is left of them. */
import { assert, describe, it } from "@effect/vitest"
import type { Begin, Change } from "../../src/change/Change.ts"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch } from "../../src/change/OutputPlugin.ts"
import type * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import { RelationCache } from "../../src/pgoutput/RelationCache.ts"
import { StreamedTransaction } from "../../src/pgoutput/StreamedTransaction.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { decodeErrorOf, insert, message, relation } from "../support/PgoutputBytes.ts"
import { within } from "../support/StreamingBytes.ts"

const kib = 1024

const begin: Begin = { _tag: "Begin", xid: 9, commitLsn: 0x100n as Lsn.Lsn, commitTime: PgTimestamp.make(0) }
const close = { _tag: "Commit", begin, commitLsn: 0x100n, endLsn: 0x130n } as unknown as Change

const relations = () => new RelationCache({ decoders: "text" })

const make = () => new StreamedTransaction(9, relations())

/** Gathers a message that stands in the middle of a read. */
const gather = (transaction: StreamedTransaction, bytes: Uint8Array) => {
  const read = new Uint8Array(bytes.length + 9).fill(0xee)
  read.set(bytes, 5)
  transaction.gather(new ByteReader(portableText).reset(read, 5, 5 + bytes.length), 5)
}

const replayOf = (transaction: StreamedTransaction) => transaction.replay(portableText, relations(), { begin, close })

const described = within(9, relation(1, [{ name: "a", typeOid: 23, isKey: true }]))
const row = (id: string, subxid = 9) => within(subxid, insert(1, id))
const origin = (lsn: bigint) => message("O", [8, lsn], { cstring: "o" })

/** What comes of these messages. */
const rows = (transaction: StreamedTransaction, chunks = transaction.takeChunks()) => {
  const batch = new Batch(new Run())
  const replay = replayOf(transaction)
  replay.begin(batch)
  for (const chunk of chunks) replay.decode(chunk, batch)
  replay.end(batch)
  assert.deepStrictEqual([batch.changes[0], batch.changes.at(-1)], [begin, close])
  return batch.changes.flatMap((change) => (change._tag === "Insert" ? [change.row.a] : []))
}

const gathered = (...messages: ReadonlyArray<Uint8Array>) => {
  const transaction = make()
  for (const bytes of messages) gather(transaction, bytes)
  return transaction
}

describe("a transaction that is gathered", () => {
  it("keeps its messages as they came, and gives its changes between its beginning and its end", () => {
    const transaction = gathered(described, row("1"), row("2", 10))
    assert.strictEqual(replayOf(transaction).commitLsn, begin.commitLsn)
    assert.strictEqual(replayOf(transaction).bytes, transaction)
    assert.deepStrictEqual(rows(transaction), ["1", "2"])
  })

  it("holds nothing before its first message, and nothing once its chunks are taken", () => {
    const transaction = make()
    assert.strictEqual(transaction.bytesInMemory, 0)
    assert.isEmpty(transaction.takeChunks())
    gather(transaction, described)
    assert.strictEqual(transaction.bytesInMemory, 8 * kib)
    const [chunk, ...more] = transaction.takeChunks()
    assert.isEmpty(more)
    assert.strictEqual(chunk!.length, 4 + described.length, "no more than was used")
    assert.strictEqual(transaction.bytesInMemory, 0)
    assert.isEmpty(transaction.takeChunks())
  })

  it("goes on gathering after its chunks were taken, into others", () => {
    const transaction = gathered(described, row("1"))
    const first = transaction.takeChunks().map((chunk) => chunk.slice())
    gather(transaction, row("2"))
    assert.strictEqual(transaction.bytesInMemory, 8 * kib)
    assert.deepStrictEqual(rows(transaction, [...first, ...transaction.takeChunks()]), ["1", "2"])
  })

  it("fills a chunk to its last byte before it takes another, of twice the size, up to 256 KiB", () => {
    const filler = (length: number) => new Uint8Array(length).fill(0x4d)
    const transaction = gathered(filler(8 * kib - 4 - 5))
    gather(transaction, filler(1))
    assert.strictEqual(transaction.bytesInMemory, 8 * kib)
    const held = [8, 24, 56, 120, 248, 504, 760]
    for (const total of held.slice(1)) {
      gather(transaction, filler(1))
      assert.strictEqual(transaction.bytesInMemory, total * kib)
      const size = total * kib - held[held.indexOf(total) - 1]! * kib
      gather(transaction, filler(size - 5 - 4))
      assert.strictEqual(transaction.bytesInMemory, total * kib)
    }
    assert.deepStrictEqual(
      transaction.takeChunks().map(({ length }) => length / kib),
      [8, 16, 32, 64, 128, 256, 256]
    )
  })

  it("has a chunk of its own for a message that is larger, whose length takes all four bytes", () => {
    const long = within(9, insert(1, "x".repeat(0x0102_0304)))
    const wide = within(9, relation(1, [{ name: "a", typeOid: 25 }]))
    const transaction = gathered(wide, long, row("y"))
    const chunks = transaction.takeChunks()
    assert.strictEqual(chunks[1]!.length, 4 + long.length)
    assert.deepStrictEqual(
      rows(transaction, chunks).map((text) => String(text).length),
      [0x0102_0304, 1]
    )
  })

  it("lacks what was rolled back, and nothing else", () => {
    const transaction = gathered(described, row("1"), row("2", 10), row("3", 11))
    transaction.abort(10, 1)
    gather(transaction, row("4", 10))
    gather(transaction, row("5", 12))
    assert.deepStrictEqual(rows(transaction), ["1", "3", "5"])
    assert.strictEqual(transaction.describedAnewSince, 1)
  })

  it("keeps each Origin in it, which is of no subtransaction, whatever its position begins with", () => {
    const transaction = gathered(origin(0x0a_0000_0005n), described, row("1"), origin(0x09_0000_0006n), row("2", 10))
    transaction.abort(10, 1)
    const batch = new Batch(new Run())
    const replay = replayOf(transaction)
    replay.begin(batch)
    for (const chunk of transaction.takeChunks()) replay.decode(chunk, batch)
    assert.deepStrictEqual(
      batch.changes.map((change) => (change._tag === "Origin" ? change.originLsn : change._tag)),
      ["Begin", 0x0a_0000_0005n, "Insert", 0x09_0000_0006n]
    )
  })

  it("is refused where a store has damaged it, at whatever place", () => {
    const chunk = () => gathered(described, row("1")).takeChunks()[0]!.slice()
    const refused = (bytes: Uint8Array) =>
      decodeErrorOf(() => replayOf(make()).decode(bytes, new Batch(new Run()))).problem
    const damaged = "a gathered transaction that was damaged in its store"
    for (const length of [-1, 1 << 20, -(2 ** 31)]) {
      const bytes = chunk()
      new DataView(bytes.buffer).setInt32(0, length)
      assert.strictEqual(refused(bytes), damaged)
    }
    assert.strictEqual(refused(chunk().subarray(0, -1)), damaged)
    assert.notStrictEqual(refused(new Uint8Array(4)), damaged, "of a message of no byte its reader tells")
  })
})
