import { assert, describe, it } from "@effect/vitest"
import type { Change } from "../../src/change/Change.ts"
import type { ChangeInProgress } from "../../src/change/InProgress.ts"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch, type Decoder, type InProgressMode } from "../../src/change/OutputPlugin.ts"
import type * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as PgoutputBytes from "../../src/pgoutput/PgoutputBytes.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { begin, commit, decodeErrorOf, decodeOne, insert, message, relation } from "../support/PgoutputBytes.ts"
import {
  beginPrepare,
  block,
  commitPrepared,
  prepare,
  rollbackPrepared,
  streamAbort,
  streamAbortInParallel,
  streamCommit,
  streamPrepare,
  streamStart,
  streamStop,
  within
} from "../support/StreamingBytes.ts"

const lsn = (value: bigint) => value as Lsn.Lsn
const time = PgTimestamp.make

const decoderOf = (mode: InProgressMode, twoPhase = false): Decoder =>
  Pgoutput.make({ publications: ["p"], streaming: "parallel", twoPhase }).makeDecoder(portableText, mode)

const one = relation(1, [{ name: "a", typeOid: 23, isKey: true }])
const two = relation(1, [
  { name: "a", typeOid: 23, isKey: true },
  { name: "b", typeOid: 25 }
])

/** Everything that comes of the messages, with gathered transactions replayed in their places, after all was read. */
const changesOf = (decoder: Decoder, messages: ReadonlyArray<Uint8Array>): ReadonlyArray<Change> => {
  const batch = new Batch(new Run())
  for (const bytes of messages) decodeOne(decoder, bytes, batch)
  const changes = [...batch.changes]
  for (const { index, replay } of batch.gathered.toReversed()) {
    const replayed = new Batch(new Run())
    replay.begin(replayed)
    for (const chunk of replay.bytes.takeChunks()) replay.decode(chunk, replayed)
    replay.end(replayed)
    changes.splice(index, 0, ...replayed.changes)
  }
  return changes
}

const gathered = (...messages: ReadonlyArray<Uint8Array>) => changesOf(decoderOf("gather"), messages)
const delivered = (...messages: ReadonlyArray<Uint8Array>) =>
  changesOf(decoderOf("deliver"), messages) as ReadonlyArray<ChangeInProgress>
const refused = (...messages: ReadonlyArray<Uint8Array>) => decodeErrorOf(() => gathered(...messages)).problem

const brief = (change: ChangeInProgress): string => {
  switch (change._tag) {
    case "Insert":
      return `${change.begin.xid}:${JSON.stringify(change.row)}`
    case "Streamed":
      return `${change.xid}/${change.subxid}${change.change._tag === "Insert" ? JSON.stringify(change.change.row) : change.change._tag}`
    case "RelationChanged":
      return `R${change.relation.columns.length}`
    default:
      return "gid" in change ? `${change._tag} ${change.gid}` : change._tag
  }
}

describe("a transaction in progress that is gathered", () => {
  it("comes at its commit, from Begin to Commit, among what came whole", () => {
    const changes = gathered(
      ...block(9, 1, within(9, one), within(9, insert(1, "1"))),
      ...[one, begin(0x80n, 8), insert(1, "2"), commit(0x80n, 0x90n)],
      ...block(9, 0, within(9, insert(1, "3"))),
      streamCommit(9),
      ...[begin(0x200n, 10), insert(1, "4"), commit(0x200n, 0x230n)]
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["Begin", '8:{"a":2}', "Commit"],
      ...["Begin", '9:{"a":1}', '9:{"a":3}', "Commit"],
      ...["Begin", '10:{"a":4}', "Commit"]
    ])
    assert.deepInclude(changes[3], { _tag: "Begin", xid: 9, commitLsn: lsn(0x100n), commitTime: time(2_000_000) })
    assert.deepStrictEqual(
      changes.flatMap((change) => (change._tag === "Insert" ? [change.ordinal] : [])),
      [0, 0, 1, 0]
    )
  })

  it("has its relation in one object with all others that see it the same, whoever described it first", () => {
    for (const changesIn of [gathered, delivered]) {
      const changes = changesIn(
        ...block(9, 1, within(9, one), within(9, insert(1, "1"))),
        ...block(10, 1, within(10, one), within(10, insert(1, "2"))),
        ...block(11, 1, within(11, two), within(11, insert(1, "3", "x"))),
        streamCommit(10),
        ...[begin(0x200n, 12), one, insert(1, "4"), commit(0x200n, 0x230n)],
        streamCommit(9)
      )
      const relations = changes.flatMap((change) => {
        const inner = change._tag === "Streamed" ? change.change : change
        return inner._tag === "Insert" && inner.relation.columns.length === 1 ? [inner.relation] : []
      })
      assert.lengthOf(relations, 3)
      assert.lengthOf([...new Set(relations)], 1)
    }
  })

  it("is acknowledged by the end of its commit, and is a unit from when that was read", () => {
    const batch = new Batch(new Run())
    const decoder = decoderOf("gather")
    for (const bytes of [...block(9, 1, within(9, one), within(9, insert(1, "1"))), streamCommit(9)]) {
      decodeOne(decoder, bytes, batch)
    }
    assert.deepStrictEqual(
      batch.delivered.map(({ lsn }) => lsn),
      [0x130n]
    )
    const replayed = new Batch(new Run())
    batch.gathered[0]!.replay.end(replayed)
    const [close] = replayed.changes
    assert.strictEqual(close?._tag === "Commit" ? close.nextLsn : undefined, batch.delivered[0])
    assert.strictEqual(decoder.lastCommitTime, 2_000_000)
  })

  it("lacks what a savepoint did that was rolled back, and nothing else", () => {
    const changes = gathered(
      ...block(9, 1, within(9, one), within(9, insert(1, "1")), within(10, insert(1, "2")), within(11, insert(1, "3"))),
      streamAbort(9, 10),
      ...block(9, 0, within(9, one), within(9, insert(1, "4"))),
      streamCommit(9)
    )
    assert.deepStrictEqual(changes.map(brief), ["Begin", '9:{"a":1}', '9:{"a":3}', '9:{"a":4}', "Commit"])
  })

  it("does not show a change of shape that was rolled back", () => {
    const changes = gathered(
      ...block(9, 1, within(9, one), within(9, insert(1, "1")), within(10, two), within(10, insert(1, "2", "x"))),
      streamAbort(9, 10),
      ...block(9, 0, within(9, one), within(9, insert(1, "3"))),
      streamCommit(9)
    )
    assert.deepStrictEqual(changes.map(brief), ["Begin", '9:{"a":1}', '9:{"a":3}', "Commit"])
  })

  it("that is aborted leaves nothing, and is told of so that what was stored of it can go", () => {
    const decoder = decoderOf("gather")
    const changes = changesOf(decoder, [...block(9, 1, within(9, one), within(9, insert(1, "1"))), streamAbort(9)])
    assert.isEmpty(changes)
    assert.strictEqual(decoder.gathering?.bytesInMemory, 0)
    assert.deepStrictEqual(
      decoder.gathering?.takeAborted().map(({ xid }) => xid),
      [9]
    )
    assert.isEmpty(decoder.gathering?.takeAborted())
  })

  it("holds its messages once, and gives them away in whole records", () => {
    const decoder = decoderOf("gather")
    const batch = new Batch(new Run())
    const rows = Array.from({ length: 3 }, (_, index) => within(9, insert(1, "x".repeat(200_000 + index))))
    const wide = relation(1, [{ name: "a", typeOid: 25 }])
    for (const bytes of block(9, 1, within(9, wide), ...rows)) decodeOne(decoder, bytes, batch)
    const held = decoder.gathering!.bytesInMemory
    assert.isBelow(held, 4 * 256 * 1024)
    const [chunks, xid] = [decoder.gathering!.largest()!.takeChunks(), decoder.gathering!.largest()!.xid]
    assert.strictEqual(xid, 9)
    assert.strictEqual(decoder.gathering!.bytesInMemory, 0)
    decodeOne(decoder, streamCommit(9), batch)
    const replayed = new Batch(new Run())
    for (const chunk of chunks) batch.gathered[0]!.replay.decode(chunk, withBegin(batch, replayed))
    assert.deepStrictEqual(
      replayed.changes.flatMap((change) => (change._tag === "Insert" ? [String(change.row.a).length] : [])),
      [200_000, 200_001, 200_002]
    )
  })

  it("is open while its block is, and not between its blocks", () => {
    const decoder = decoderOf("gather")
    const batch = new Batch(new Run())
    const open = [...block(9, 1, within(9, one)), streamCommit(9)].map((bytes) => {
      decodeOne(decoder, bytes, batch)
      return decoder.isOpen
    })
    assert.deepStrictEqual(open, [true, true, false, false])
  })
})

/** Begins a replay once. */
const withBegin = (batch: Batch, replayed: Batch): Batch => {
  if (replayed.changes.length === 0) batch.gathered[0]!.replay.begin(replayed)
  return replayed
}

describe("a relation described in a transaction in progress", () => {
  it("holds for those who come after its commit, and is no change of theirs", () => {
    const changes = gathered(
      ...[one, begin(0x80n, 8), insert(1, "1"), commit(0x80n, 0x90n)],
      ...block(9, 1, within(9, two), within(9, insert(1, "2", "x"))),
      streamCommit(9),
      ...[begin(0x200n, 10), insert(1, "3", "y"), commit(0x200n, 0x230n)]
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["Begin", '8:{"a":1}', "Commit"],
      ...["Begin", "R2", '9:{"a":2,"b":"x"}', "Commit"],
      ...["Begin", '10:{"a":3,"b":"y"}', "Commit"]
    ])
  })

  it("does not hold for those who come before it", () => {
    const changes = gathered(
      one,
      ...block(9, 1, within(9, two), within(9, insert(1, "2", "x"))),
      ...[begin(0x80n, 8), insert(1, "1"), commit(0x80n, 0x90n)],
      streamCommit(9)
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["Begin", '8:{"a":1}', "Commit"],
      ...["Begin", "R2", '9:{"a":2,"b":"x"}', "Commit"]
    ])
  })

  it("yields to one described outside since", () => {
    const changes = gathered(
      ...block(9, 1, within(9, one), within(9, insert(1, "1"))),
      ...[two, begin(0x80n, 8), insert(1, "2", "x"), commit(0x80n, 0x90n)],
      streamCommit(9),
      ...[begin(0x200n, 10), insert(1, "3", "y"), commit(0x200n, 0x230n)]
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["Begin", '8:{"a":2,"b":"x"}', "Commit"],
      ...["Begin", "R1", '9:{"a":1}', "Commit"],
      ...["Begin", '10:{"a":3,"b":"y"}', "Commit"]
    ])
  })

  it("is not there for anybody when the transaction is aborted", () => {
    assert.include(
      refused(...block(9, 1, within(9, one)), streamAbort(9), begin(0x80n, 8), insert(1, "1")),
      "which was never described"
    )
  })

  it("and described again since a rollback holds for those who come after, in the shape that is left", () => {
    const changes = gathered(
      ...block(9, 1, within(9, one), within(9, insert(1, "2")), within(10, two), within(10, insert(1, "3", "x"))),
      streamAbort(9, 10),
      ...block(9, 0, within(9, one), within(9, insert(1, "4"))),
      streamCommit(9),
      ...[begin(0x200n, 12), insert(1, "5"), commit(0x200n, 0x230n)]
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["Begin", '9:{"a":2}', '9:{"a":4}', "Commit"],
      ...["Begin", '12:{"a":5}', "Commit"]
    ])
  })

  it("before a rollback in it holds for nobody else: the walsender describes it anew, and until then the older one holds", () => {
    const changes = gathered(
      ...[one, begin(0x80n, 8), insert(1, "1"), commit(0x80n, 0x90n)],
      ...block(9, 1, within(10, two), within(10, insert(1, "2", "x"))),
      streamAbort(9, 10),
      streamCommit(9),
      ...[begin(0x200n, 12), insert(1, "3"), commit(0x200n, 0x230n)]
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["Begin", '8:{"a":1}', "Commit"],
      ...["Begin", "Commit"],
      ...["Begin", '12:{"a":3}', "Commit"]
    ])
  })

  it("of another transaction that was aborted holds no less", () => {
    const changes = gathered(
      ...block(9, 1, within(9, one), within(9, insert(1, "1"))),
      ...block(10, 1, within(11, two), within(11, insert(1, "2", "x"))),
      streamAbort(10, 11),
      streamAbort(10),
      streamCommit(9),
      ...[begin(0x200n, 12), insert(1, "3"), commit(0x200n, 0x230n)]
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["Begin", '9:{"a":1}', "Commit"],
      ...["Begin", '12:{"a":3}', "Commit"]
    ])
  })

  it("must be described in the transaction itself", () => {
    assert.include(
      refused(one, ...block(9, 1, within(9, insert(1, "1"))), streamCommit(9)),
      "which was never described"
    )
  })
})

describe("a transaction in progress that is delivered as it comes", () => {
  it("shows its blocks, each change with its transaction and its savepoint, its aborts and its commit", () => {
    const changes = delivered(
      ...block(9, 1, within(9, one), within(9, insert(1, "1")), within(10, insert(1, "2"))),
      ...[one, begin(0x80n, 8), insert(1, "3"), commit(0x80n, 0x90n)],
      streamAbortInParallel(9, 10, 0x95n),
      ...block(11, 1, within(11, one), within(11, insert(1, "4"))),
      streamCommit(9),
      streamAbort(11)
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["StreamStart", '9/9{"a":1}', '9/10{"a":2}', "StreamStop"],
      ...["Begin", '8:{"a":3}', "Commit"],
      ...["StreamAbort", "StreamStart", '11/11{"a":4}', "StreamStop", "StreamCommit", "StreamAbort"]
    ])
    const aborts = changes.flatMap((change) => (change._tag === "StreamAbort" ? [change] : []))
    assert.deepStrictEqual(aborts, [
      { _tag: "StreamAbort", xid: 9, subxid: 10, abortLsn: lsn(0x95n), abortTime: time(2_000_000) },
      { _tag: "StreamAbort", xid: 11, subxid: 11, abortLsn: undefined, abortTime: undefined }
    ])
  })

  it("counts its changes across blocks, and shows a change of shape in its place", () => {
    const changes = delivered(
      ...block(9, 1, within(9, one), within(9, insert(1, "1"))),
      ...block(9, 0, within(9, two), within(9, insert(1, "2", "x")))
    )
    assert.deepStrictEqual(changes.map(brief), [
      ...["StreamStart", '9/9{"a":1}', "StreamStop"],
      ...["StreamStart", "9/9RelationChanged", '9/9{"a":2,"b":"x"}', "StreamStop"]
    ])
    const ordinals = changes.flatMap((change) => (change._tag === "Streamed" ? [change.change.ordinal] : []))
    assert.deepStrictEqual(ordinals, [0, 1, 1])
  })
})

describe("a prepared transaction", () => {
  const whole = [beginPrepare({ gid: "x" }), insert(1, "1"), prepare({ gid: "x" })]

  it("comes at its prepare, and what became of it later, each with what acknowledges it", () => {
    const decoder = Pgoutput.make({ publications: ["p"], twoPhase: true }).makeDecoder(portableText)
    const batch = new Batch(new Run())
    for (const bytes of [one, ...whole, commitPrepared({ gid: "x" }), rollbackPrepared({ gid: "y" })]) {
      decodeOne(decoder, bytes, batch)
    }
    assert.deepStrictEqual(batch.changes.map(brief), [
      ...["Begin x", '7:{"a":1}', "Prepare x"],
      ...["CommitPrepared x", "RollbackPrepared y"]
    ])
    assert.deepStrictEqual(
      batch.delivered.map(({ lsn }) => lsn),
      [0x130n, 0x130n, 0x230n]
    )
    const [, , closed, committed, undone] = batch.changes
    assert.deepInclude(closed, { _tag: "Prepare", gid: "x", prepareLsn: lsn(0x100n), endLsn: lsn(0x130n) })
    assert.deepInclude(committed, {
      _tag: "CommitPrepared",
      gid: "x",
      xid: 7,
      commitLsn: lsn(0x100n),
      commitTime: time(2_000_000)
    })
    assert.deepInclude(undone, { _tag: "RollbackPrepared", gid: "y", prepareEndLsn: lsn(0x130n), endLsn: lsn(0x230n) })
  })

  it("that was streamed comes gathered, or ends its blocks", () => {
    const messages = [...block(9, 1, within(9, one), within(9, insert(1, "1"))), streamPrepare({ xid: 9, gid: "z" })]
    assert.deepStrictEqual(changesOf(decoderOf("gather", true), messages).map(brief), [
      "Begin z",
      '9:{"a":1}',
      "Prepare z"
    ])
    assert.deepStrictEqual(changesOf(decoderOf("deliver", true), messages).map(brief), [
      ...["StreamStart", '9/9{"a":1}', "StreamStop"],
      "StreamPrepare z"
    ])
  })

  it("comes empty where it was rolled back before it was decoded: PostgreSQL 18 sends no beginning of it", () => {
    const messages = [prepare({ gid: "x" }), rollbackPrepared({ gid: "x" })]
    assert.deepStrictEqual(changesOf(decoderOf("gather", true), messages).map(brief), [
      "Begin x",
      "Prepare x",
      "RollbackPrepared x"
    ])
  })

  it("was not asked for: the stream ends", () => {
    assert.match(refused(one, ...whole), /kind 0x62\), which was not asked for/)
    assert.include(refused(...block(7, 1, within(7, one)), streamPrepare()), "which was not asked for")
  })

  it("must end as it began, and must not be committed like another", () => {
    const decode = (...messages: ReadonlyArray<Uint8Array>) =>
      decodeErrorOf(() => changesOf(decoderOf("gather", true), messages)).problem
    assert.include(decode(beginPrepare({ gid: "x" }), prepare({ gid: "y" })), "a prepare of another transaction")
    assert.include(decode(beginPrepare(), prepare({ lsn: 0x101n })), "a prepare of another transaction")
    assert.include(decode(beginPrepare(), commit()), "a commit of a transaction that is being prepared")
    assert.include(decode(begin(), prepare()), "a prepare of another transaction")
    assert.include(decode(begin(), commitPrepared()), "inside a transaction")
    assert.include(decode(begin(), rollbackPrepared()), "inside a transaction")
    assert.include(decode(beginPrepare(), beginPrepare()), "begins inside another")
  })
})

/** A decoder that has read these. */
const decoderAfter = (mode: InProgressMode, ...messages: ReadonlyArray<Uint8Array>) => {
  const decoder = decoderOf(mode, true)
  changesOf(decoder, messages)
  return decoder
}

describe("transactions in progress, of which the last, the largest and all are asked", () => {
  const streamed = [...block(9, 1, within(9, one), within(9, insert(1, "1"))), streamCommit(9)]
  const whole = [one, begin(0x200n, 10), insert(1, "4"), commit(0x200n, 0x230n)]

  it("have committed when the latest of them has, streamed or whole", () => {
    const late = PgoutputBytes.begin({ commitLsn: lsn(0x200n), commitTime: 3_000_000, xid: 10 })
    for (const [messages, expected] of [
      [[], undefined],
      [streamed, 2_000_000],
      [whole, 1_000_000],
      [[...whole, ...streamed], 2_000_000],
      [[...streamed, ...whole], 2_000_000],
      [[...streamed, one, late, insert(1, "4"), commit(0x200n, 0x230n)], 3_000_000]
    ] as const) {
      assert.strictEqual<number | undefined>(decoderAfter("gather", ...messages).lastCommitTime, expected)
    }
  })

  it("hold what all of them hold, and the one that holds most is the first to go, the older of two alike", () => {
    const row = (xid: number, length: number) =>
      block(xid, 1, within(xid, relation(1, [{ name: "a", typeOid: 25 }])), within(xid, insert(1, "x".repeat(length))))
    const held = (...messages: ReadonlyArray<Uint8Array>) =>
      decoderAfter("gather", ...messages).gathering!.bytesInMemory
    const [small, large] = [row(9, 1000), row(10, 500_000)]
    assert.strictEqual(held(...small, ...large), held(...small) + held(...large))
    const largest = (...messages: ReadonlyArray<Uint8Array>) =>
      decoderAfter("gather", ...messages).gathering!.largest()?.xid
    assert.isUndefined(largest())
    assert.strictEqual(largest(...small, ...large), 10)
    assert.strictEqual(largest(...large, ...row(11, 1000)), 10)
    assert.strictEqual(largest(...small, ...row(11, 1000)), 9)
  })

  it("keep nobody from reading rows of a table that is copied", () => {
    const columns = [{ name: "a", isKey: true, typeOid: 23, typeModifier: -1, type: null }]
    const table = { oid: 1, schema: "public", name: "t", replicaIdentity: "d", columns }
    assert.deepInclude(decoderOf("deliver").copiedRows?.(table).relation, { schema: "public", name: "t" })
  })

  it("are not gathered where they are delivered as they come", () => {
    assert.isUndefined(decoderAfter("deliver", ...streamed).gathering)
  })
})

describe("a prepared transaction of which something was sent", () => {
  const blocks = block(9, 1, within(9, one), within(9, insert(1, "1")))
  const isDropped = (decoder: Decoder) => [
    decoder.gathering!.bytesInMemory,
    decoder.gathering!.takeAborted().map(({ xid }) => xid)
  ]

  it("is let go of once it is told what became of it: after a reconnect its blocks have no other end", () => {
    for (const end of [commitPrepared({ xid: 9 }), rollbackPrepared({ xid: 9 })]) {
      assert.deepStrictEqual(isDropped(decoderAfter("gather", ...blocks, end)), [0, [9]])
    }
    const other = decoderAfter("gather", ...blocks, commitPrepared({ xid: 10 }))
    assert.isAbove(other.gathering!.bytesInMemory, 0)
    assert.isEmpty(other.gathering!.takeAborted())
  })

  it("may be undone once after its prepare, where its rollback is kept back, and not after its end", () => {
    const prepared = [...blocks, streamPrepare({ xid: 9 })]
    const problem = (...messages: ReadonlyArray<Uint8Array>) =>
      decodeErrorOf(() => decoderAfter("gather", ...prepared, ...messages)).problem
    assert.deepStrictEqual(isDropped(decoderAfter("gather", ...prepared, streamAbort(9))), [0, []])
    assert.include(problem(streamAbort(9), streamAbort(9)), "that never began")
    assert.include(problem(commitPrepared({ xid: 9 }), streamAbort(9)), "that never began")
  })

  it("is not prepared but by the end of its blocks: else what was sent would be lost", () => {
    const problem = decodeErrorOf(() => decoderAfter("gather", ...blocks, prepare({ xid: 9 }))).problem
    assert.include(problem, "a prepare of a transaction in progress that is not of its blocks")
    assert.deepStrictEqual(
      changesOf(decoderOf("gather", true), [...blocks, prepare({ xid: 10 })]).map(({ _tag }) => _tag),
      ["Begin", "Prepare"]
    )
  })
})

describe("what a transaction in progress has described, delivered as it comes,", () => {
  const after = [begin(0x200n, 10), insert(1, "4"), commit(0x200n, 0x230n)]

  it("holds for all once it has committed, or is prepared", () => {
    for (const end of [streamCommit(9), streamPrepare({ xid: 9 })]) {
      const messages = [...block(9, 1, within(9, one), within(9, insert(1, "1"))), end, ...after]
      assert.deepStrictEqual(changesOf(decoderOf("deliver", true), messages).slice(-3).map(brief), [
        "Begin",
        '10:{"a":4}',
        "Commit"
      ])
    }
  })
})

describe("what a transaction in progress has described, and another otherwise,", () => {
  const wide = insert(1, "4", "x")
  const after = [begin(0x200n, 12), wide, commit(0x200n, 0x230n)]
  const last = (...messages: ReadonlyArray<Uint8Array>) => gathered(...messages, ...after).at(-2)

  it("holds as it was described last, and not as was used last", () => {
    const change = last(
      ...block(9, 1, within(9, one), within(9, insert(1, "1"))),
      ...[two, begin(0x80n, 8), insert(1, "2", "x"), commit(0x80n, 0x90n)],
      ...block(9, 0, within(9, insert(1, "3"))),
      streamCommit(9)
    )
    assert.deepInclude(change, { _tag: "Insert", row: { a: 4, b: "x" } })
  })

  it("holds as it was described last, and not as was committed last", () => {
    const change = last(
      ...block(9, 1, within(9, one), within(9, insert(1, "1"))),
      ...block(10, 1, within(10, two), within(10, insert(1, "2", "x"))),
      streamCommit(10, 0x100n, 0x110n),
      streamCommit(9, 0x120n, 0x130n)
    )
    assert.deepInclude(change, { _tag: "Insert", row: { a: 4, b: "x" } })
  })

  it("has types by their names, for those who come after it", () => {
    const mood = relation(1, [{ name: "a", typeOid: 90_000 }])
    const typed = PgoutputBytes.type(90_000, "public", "mood")
    const changes = gathered(
      ...block(9, 1, within(9, typed), within(9, mood), within(9, insert(1, "fine"))),
      streamCommit(9),
      ...[begin(0x200n, 12), insert(1, "glum"), commit(0x200n, 0x230n)]
    )
    const types = changes.flatMap((change) =>
      change._tag === "Insert" ? change.relation.columns.map(({ typeName }) => typeName) : []
    )
    assert.deepStrictEqual(types, ["mood", "mood"])
  })
})

describe("a block of a transaction in progress", () => {
  it("may tell an origin, which belongs to no subtransaction", () => {
    const origin = message("O", [8, 0x100n], { cstring: "x" })
    for (const mode of ["gather", "deliver"] as const) {
      const changes = changesOf(decoderOf(mode), [
        ...block(9, 1, origin, within(9, one), within(9, insert(1, "1"))),
        streamCommit(9)
      ])
      const last = changes.at(-1)?._tag
      assert.strictEqual(last, mode === "gather" ? "Commit" : "StreamCommit")
    }
  })
})

describe("blocks out of place", () => {
  const started = streamStart(9, 1)

  it("are a DecodeError", () => {
    assert.include(refused(begin(), started), "inside another transaction")
    assert.include(refused(streamStart(9, 0)), "that never began")
    assert.include(refused(started, streamStop, started), "begins twice")
    assert.include(refused(started, streamStart(10, 1)), "kind 0x53 in a block")
    assert.include(refused(started, begin()), "kind 0x42 in a block")
    assert.include(refused(started, within(9, commit())), "kind 0x43 in a block")
    assert.include(refused(started, streamCommit(9)), "kind 0x63 in a block")
    assert.include(refused(streamStop), "unknown kind 0x45")
    assert.include(refused(streamCommit(9)), "that never began")
    assert.include(refused(streamAbort(9)), "that never began")
    assert.include(refused(started, streamStop, begin(), streamCommit(9)), "inside another transaction")
    assert.include(refused(started, streamStop, begin(), streamAbort(9)), "inside another transaction")
    assert.include(refused(started, streamStop, begin(), streamPrepare({ xid: 9 })), "inside another transaction")
    assert.include(refused(started, message(streamStop, [1, 0])), "1 bytes too many")
    assert.include(refused(started, streamStop, streamCommit(9, 0x100n, 0x100n)), "ends before it begins")
    assert.include(refused(streamStart(9, 2)), "segment 2")
  })

  it("are nothing where they undo a subtransaction of which nothing was sent, as PostgreSQL 18 has it", () => {
    for (const mode of ["gather", "deliver"] as const) {
      assert.deepStrictEqual(changesOf(decoderOf(mode), [streamAbort(9, 10), streamAbortInParallel(9, 10, 0x100n)]), [])
    }
  })

  it("are one to a decoder that did not ask for them", () => {
    const decoder = Pgoutput.make({ publications: ["p"] }).makeDecoder(portableText)
    assert.include(decodeErrorOf(() => changesOf(decoder, [started])).problem, "unknown kind 0x53")
  })

  it("are one when cut anywhere, and when a byte follows", () => {
    const messages = [
      streamStart(9, 1),
      streamCommit(9),
      streamAbort(9),
      beginPrepare(),
      prepare(),
      streamPrepare({ xid: 9 }),
      commitPrepared(),
      rollbackPrepared()
    ]
    for (const whole of messages) {
      const before = whole[0] === 0x53 ? [] : whole[0] === 0x50 ? [beginPrepare()] : block(9, 1)
      for (let length = 1; length < whole.length; length++) {
        decodeErrorOf(() => changesOf(decoderOf("gather", true), [...before, whole.subarray(0, length)]))
      }
      decodeErrorOf(() => changesOf(decoderOf("gather", true), [...before, message(whole, [1, 0])]))
    }
  })
})
