import { execFileSync } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import type { Insert, Update } from "../../src/change/Change.ts"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import { Batch, type Decoder } from "../../src/change/OutputPlugin.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { goldens } from "../fixtures/goldens.ts"
import {
  begin,
  commit,
  decodeAll,
  decodeErrorOf,
  decodeOne,
  insert,
  message,
  relation,
  tuple,
  type,
  unchanged
} from "../support/PgoutputBytes.ts"

const newDecoder = (): Decoder => Pgoutput.make({ publications: ["p"] }).makeDecoder(portableText)
const one = relation(1, [{ name: "a", typeOid: 23, isKey: true }])
const textMessage = (transactional: 0 | 1, lsn = 0x120n) =>
  message("M", [1, transactional], [8, lsn], "prefix\0", [4, 1], "x")

describe("a relation", () => {
  it("[S8] that is described again and again is held once, and is no change", () => {
    const decoder = newDecoder()
    const batch = new Batch(new Run())
    for (const bytes of [one, begin(), insert(1, "1")]) decodeOne(decoder, bytes, batch)
    for (let count = 0; count < 100_000; count++) decodeOne(decoder, one, batch)
    decodeOne(decoder, insert(1, "2"), batch)
    const [, first, second, ...more] = batch.changes as ReadonlyArray<Insert>
    assert.isEmpty(more)
    assert.strictEqual(first?.relation, second?.relation)
  })

  it("[S8] may have 1,600 columns", () => {
    const names = Array.from({ length: 1600 }, (_, index) => `column ${index}`)
    const wide = relation(
      1,
      names.map((name) => ({ name, typeOid: 23 }))
    )
    const changes = decodeAll([wide, begin(), insert(1, ...names.map((_, index) => `${index}`))])
    assert.deepStrictEqual((changes[1] as Insert).row, Object.fromEntries(names.map((name, index) => [name, index])))
  })
})

describe("a stream of pgoutput messages", () => {
  it("is open from a begin to its commit, and tells when the last transaction was committed", () => {
    const decoder = newDecoder()
    const seen: Array<readonly [boolean, number | undefined]> = []
    for (const bytes of [one, begin(), insert(1, "1"), commit()]) {
      seen.push([decoder.isOpen, decoder.lastCommitTime])
      decodeOne(decoder, bytes, new Batch(new Run()))
    }
    assert.deepStrictEqual(seen, [
      [false, undefined],
      [false, undefined],
      [true, 1_000_000],
      [true, 1_000_000]
    ])
    assert.isFalse(decoder.isOpen)
  })

  it("points every change at its begin, and counts ordinals from nought in each transaction", () => {
    const changes = decodeAll([
      one,
      begin(0x100n),
      insert(1, "1"),
      textMessage(1),
      insert(1, "2"),
      commit(0x100n, 0x130n),
      begin(0x200n),
      insert(1, "3"),
      commit(0x200n, 0x230n)
    ])
    const [first] = changes
    assert.deepStrictEqual(
      changes.map((change) => ("ordinal" in change ? change.ordinal : change._tag)),
      ["Begin", 0, 1, 2, "Commit", "Begin", 0, "Commit"]
    )
    for (const change of changes.slice(1, 5)) {
      assert.strictEqual("begin" in change ? change.begin : undefined, first)
    }
  })

  it("delivers a commit by its end, and a message outside any transaction by its own LSN", () => {
    const run = new Run()
    const batch = new Batch(run)
    const decoder = newDecoder()
    for (const bytes of [textMessage(0, 0x90n), begin(), textMessage(1, 0x95n), commit()])
      decodeOne(decoder, bytes, batch)
    assert.deepStrictEqual(
      batch.delivered.map((nextLsn) => nextLsn.lsn),
      [0x90n, 0x130n]
    )
    assert.isTrue(batch.delivered.every((nextLsn) => NextLsn.isOf(nextLsn, run)))
    const own = batch.changes.map((change) => ("nextLsn" in change ? change.nextLsn : undefined))
    assert.deepStrictEqual(own, [batch.delivered[0], undefined, undefined, batch.delivered[1]])
  })

  it("gives a RelationChanged the ordinal of the change it precedes, so that ids do not hang on where a stream began", () => {
    const other = relation(1, [{ name: "b", typeOid: 23 }])
    const started = [one, begin(), insert(1, "1"), other, insert(1, "2"), commit()]
    const ids = (messages: ReadonlyArray<Uint8Array>) =>
      decodeAll(messages).flatMap((change) => (change._tag === "Insert" ? [change.ordinal] : []))
    assert.deepStrictEqual(ids(started), [0, 1])
    const changed = decodeAll(started).find((change) => change._tag === "RelationChanged")
    assert.strictEqual(changed?.ordinal, 1)
    assert.strictEqual(changed?.before.columns[0]?.name, "a")
    assert.strictEqual(changed?.relation.columns[0]?.name, "b")
  })

  it("keeps one relation object while its description holds, and says nothing when it is sent again", () => {
    const changes = decodeAll([begin(), one, insert(1, "1"), one, insert(1, "2"), commit()])
    assert.deepStrictEqual(
      changes.map((change) => change._tag),
      ["Begin", "Insert", "Insert", "Commit"]
    )
    assert.strictEqual((changes[1] as Insert).relation, (changes[2] as Insert).relation)
  })

  it("reads each of several relations by its own shape, in any order", () => {
    const two = relation(2, [{ name: "b", typeOid: 25 }], "u")
    const changes = decodeAll([
      one,
      two,
      begin(),
      insert(1, "1"),
      insert(2, "x"),
      insert(1, "2"),
      insert(2, "y"),
      commit()
    ])
    assert.deepStrictEqual(
      changes.flatMap((change) => (change._tag === "Insert" ? [change.row] : [])),
      [{ a: 1 }, { b: "x" }, { a: 2 }, { b: "y" }]
    )
  })

  it("decodes anew when a type of the relation goes by another name than before", () => {
    const types = { byName: new Map([["mood", (text: string) => text.toUpperCase()]]) }
    const moody = relation(1, [{ name: "m", typeOid: 16_400 }])
    const named = (name: string) => type(16_400, "public", name)
    const messages = [
      named("mood"),
      moody,
      begin(),
      insert(1, "sad"),
      named("other"),
      moody,
      insert(1, "sad"),
      commit()
    ]
    const rows = decodeAll(messages, types).flatMap((change) => (change._tag === "Insert" ? [change.row] : []))
    assert.deepStrictEqual(rows, [{ m: "SAD" }, { m: "sad" }])
  })

  it("takes what an update left unchanged from the old row where there is one, and else names it", () => {
    const wide = relation(
      1,
      [
        { name: "k", typeOid: 25, isKey: true },
        { name: "b", typeOid: 25 }
      ],
      "t",
      "f"
    )
    const update = (old: string) =>
      message("U", [4, 1], tuple(old, ["x", "before"]), tuple("N", [unchanged, unchanged]))
    const [, full, key] = decodeAll([wide, begin(), update("O"), update("K"), commit()]) as ReadonlyArray<Update>
    assert.deepStrictEqual(full?.row, { k: "x", b: "before" })
    assert.deepStrictEqual(full?.unchanged, [])
    assert.deepStrictEqual(full?.old, { _tag: "Full", row: { k: "x", b: "before" } })
    assert.deepStrictEqual(key?.row, { k: "x" })
    assert.deepStrictEqual(key?.unchanged, ["b"])
    assert.deepStrictEqual(key?.old, { _tag: "Key", row: { k: "x" } })
  })

  it("holds one description an OID, however often it is sent again in another shape", () => {
    // Kept, they would be some 200 MB; a heap of 40 MB ends the process.
    const script = `
      import { decodeAll, relation, type } from "${new URL("../support/PgoutputBytes.ts", import.meta.url)}"
      import * as Pgoutput from "${new URL("../../src/pgoutput/Pgoutput.ts", import.meta.url)}"
      const decoder = Pgoutput.make({ publications: ["p"] }).makeDecoder()
      const columns = Array.from({ length: 50 }, (_, index) => ({ name: "column " + index, typeOid: 25 }))
      const messages = [columns, columns.slice(1)].flatMap((each) => [type(16400, "s", "t" + each.length), relation(1, each)])
      for (let time = 0; time < 10000; time++) decodeAll(messages, undefined, decoder)
      process.stdout.write("done")
    `
    const options = ["--max-old-space-size=40", "--input-type=module", "--no-warnings", "--eval", script]
    assert.strictEqual(execFileSync(process.execPath, options, { encoding: "utf8" }), "done")
  })
})

describe("a message out of place", () => {
  const cases: ReadonlyArray<readonly [what: string, messages: ReadonlyArray<Uint8Array>, problem: string]> = [
    ["an empty one", [message()], "1 bytes wanted where 0 are left"],
    ["an unknown one", [message("?")], "a pgoutput message of unknown kind 0x3f"],
    ["a block of protocol 2", [message("S", [4, 1], [1, 1])], "a pgoutput message of unknown kind 0x53"],
    ["a begin inside a transaction", [begin(), begin(0x200n)], "a transaction begins inside another"],
    ["a commit without a begin", [commit()], "a change or commit outside any transaction"],
    ["a second commit", [begin(), commit(), commit()], "a change or commit outside any transaction"],
    [
      "a commit of another transaction",
      [begin(0x100n), commit(0x200n, 0x230n)],
      "a commit of another transaction than the one that is open"
    ],
    ["a commit that ends where it begins", [begin(), commit(0x100n, 0x100n)], "a commit that ends before it begins"],
    ["an insert outside a transaction", [one, insert(1, "1")], "a change or commit outside any transaction"],
    [
      "an insert after the commit",
      [one, begin(), commit(), insert(1, "1")],
      "a change or commit outside any transaction"
    ],
    [
      "an update outside a transaction",
      [one, message("U", [4, 1], tuple("N", ["1"]))],
      "a change or commit outside any transaction"
    ],
    [
      "a delete outside a transaction",
      [one, message("D", [4, 1], tuple("K", ["1"]))],
      "a change or commit outside any transaction"
    ],
    [
      "a truncate outside a transaction",
      [one, message("T", [4, 1], [1, 0], [4, 1])],
      "a change or commit outside any transaction"
    ],
    ["an origin outside a transaction", [message("O", [8, 1], "o\0")], "a change or commit outside any transaction"],
    ["a transactional message outside a transaction", [textMessage(1)], "a change or commit outside any transaction"],
    [
      "a message on its own inside a transaction",
      [begin(), textMessage(0)],
      "a message that is not transactional inside a transaction"
    ],
    [
      "an insert into what was never described",
      [one, begin(), insert(2, "1")],
      "a change of relation 2, which was never described"
    ],
    [
      "a truncate of what was never described",
      [one, begin(), message("T", [4, 2], [1, 0], [4, 1], [4, 9])],
      "a change of relation 9, which was never described"
    ],
    [
      "an insert of an old tuple",
      [one, begin(), message("I", [4, 1], tuple("O", ["1"]))],
      "a tuple of unknown or misplaced kind 0x4f"
    ],
    [
      "an update with two keys",
      [one, begin(), message("U", [4, 1], tuple("K", ["1"]), tuple("K", ["1"]))],
      "a tuple of unknown or misplaced kind 0x4b"
    ],
    [
      "a delete of a new tuple",
      [one, begin(), message("D", [4, 1], tuple("N", ["1"]))],
      "a tuple of unknown or misplaced kind 0x4e"
    ]
  ]
  for (const [what, messages, problem] of cases) {
    it(`is a DecodeError: ${what}`, () => {
      const decoder = newDecoder()
      const batch = new Batch(new Run())
      for (const bytes of messages.slice(0, -1)) decodeOne(decoder, bytes, batch)
      assert.strictEqual(decodeErrorOf(() => decodeOne(decoder, messages.at(-1)!, batch)).problem, problem)
    })
  }
})

/** Every golden message with all that came before it in its stream. */
const streams = Object.entries(goldens).map(([name, messages]) => ({
  name,
  messages: messages.map((each) => Uint8Array.from(Buffer.from(each, "base64")))
}))

describe("every message a server said", () => {
  for (const { messages, name } of streams) {
    it(`is a DecodeError when cut anywhere, and when a byte follows: ${name}`, () => {
      const seen: Array<Uint8Array> = []
      for (const bytes of messages) {
        const { length } = bytes
        // Long values are alike in the middle: there, some cuts stand for all.
        for (let end = 0; end < length; end += length > 600 && end > 200 && end < length - 200 ? 97 : 1) {
          decodeErrorOf(() => decodeAll([...seen, bytes.subarray(0, end)]))
        }
        decodeErrorOf(() => decodeAll([...seen, message(bytes, [1, 0])]))
        // The shortest stream in which it can stand: its transaction, and the relations and types.
        if (bytes[0] === 0x42) seen.splice(0, seen.length, ...seen.filter(([kind]) => kind === 0x52 || kind === 0x59))
        seen.push(bytes)
        if (bytes[0] === 0x43) seen.splice(0, seen.length, ...seen.filter(([kind]) => kind === 0x52 || kind === 0x59))
      }
    })
  }

  it("is a value or a DecodeError after any damage", () => {
    let state = 20_261_123
    const random = (below: number): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return Math.floor((state / 0x1_0000_0000) * below)
    }
    let failures = 0
    for (let round = 0; round < 20_000; ) {
      const { messages } = streams[random(streams.length)]!
      const decoder = newDecoder()
      const batch = new Batch(new Run())
      const damagedAt = random(messages.length)
      for (const [index, original] of messages.entries()) {
        const bytes = Uint8Array.from(original)
        if (index >= damagedAt) {
          round += 1
          for (let hits = 1 + random(3); hits > 0; hits--) {
            const at = random(Math.min(bytes.length, 300))
            bytes[at] = random(3) === 0 ? 0xff : random(2) === 0 ? bytes[at]! ^ (1 << random(8)) : random(256)
          }
        }
        try {
          decodeOne(decoder, bytes, batch)
        } catch (error) {
          assert.instanceOf(error, DecodeError)
          assert.isAtMost(error.offset, bytes.length + 5)
          failures += 1
        }
      }
    }
    assert.isAbove(failures, 5_000)
  })
})
