/** A third plugin, written here alone: what the core does for pgoutput it does for whoever tells the same. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import type { Begin, Change } from "../../src/change/Change.ts"
import type { Batch, Decoder, OutputPlugin, Tells } from "../../src/change/OutputPlugin.ts"
import type { Relation } from "../../src/change/Relation.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { ByteReader, portableText } from "../../src/protocol/ByteReader.ts"
import { SnapshotDecoder } from "../../src/snapshot/SnapshotDecoder.ts"
import { make, withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import * as Fake from "../support/FakeWalSender.ts"
import { decodeAll } from "../support/PgoutputBytes.ts"
import { table } from "../support/PublishedTable.ts"
import { beginPrepare, prepare } from "../support/StreamingBytes.ts"

/** Words of text: `begin <lsn>`, `row <value>`, `commit <lsn> <end>`. Of a table it reads the names of its columns. */
class WordsDecoder implements Decoder {
  lastCommitTime: PgTimestamp.PgTimestamp | undefined = undefined
  private begin: Begin | undefined = undefined
  private ordinal = 0
  private readonly relation: Relation = { oid: 1, schema: "a", name: "b", replicaIdentity: "default", columns: [] }

  get isOpen(): boolean {
    return this.begin !== undefined
  }

  decode(reader: ByteReader, batch: Batch): void {
    const [word, first = "", second = ""] = reader.utf8(reader.offset, reader.end).split(" ")
    if (word === "begin") {
      this.begin = { _tag: "Begin", xid: 1, commitLsn: Fake.lsn(first), commitTime: PgTimestamp.make(0) }
      batch.changes.push(this.begin)
      return
    }
    const begin = this.begin ?? reader.fail("out of place")
    if (word === "row") {
      const { relation } = this
      batch.changes.push({
        _tag: "Insert",
        begin,
        ordinal: this.ordinal++,
        relation,
        row: { value: first },
        unchanged: []
      })
    } else {
      const endLsn = Fake.lsn(second)
      this.begin = undefined
      batch.changes.push({
        _tag: "Commit",
        begin,
        commitLsn: begin.commitLsn,
        endLsn,
        nextLsn: batch.deliver(endLsn)
      })
    }
  }

  copiedRows({ columns }: Parameters<NonNullable<Decoder["copiedRows"]>>[0]) {
    return {
      relation: this.relation,
      readRow: (reader: ByteReader) => {
        const values = reader.utf8(reader.offset, reader.end - 1).split("\t")
        return Object.fromEntries(columns.map(({ name }, index) => [name, values[index]]))
      }
    }
  }
}

const everything: Tells = {
  publications: ["orders"],
  messages: true,
  inProgress: false,
  prepared: false,
  copiedRows: true,
  endAhead: false
}

const words = (tells: Partial<Tells> = {}): OutputPlugin => ({
  name: "words",
  tells: { ...everything, ...tells },
  get plain() {
    return this
  },
  options: () => Result.succeed([["spaces", "one"]]),
  makeDecoder: () => new WordsDecoder()
})

const say = (at: string, text: string) => Fake.xLogData(at, new TextEncoder().encode(text))

/** How a stream with a snapshot, or a request of a table, takes the plugin, where no server is to be had. */
const refusalOf = (plugin: OutputPlugin, snapshot: "only" | "never") =>
  Effect.gen(function* () {
    const { layer } = yield* Fake.make(() => Fake.refusal("28P01"))
    const stream = yield* make({ slot: "orders", plugin, snapshot: "never" })
    const run = withLogicalStream({ slot: "orders", plugin, snapshot }, () => Effect.undefined)
    const asked = snapshot === "only" ? run : Effect.andThen(stream.request({ table: "t" }), run)
    const error = yield* asked.pipe(Effect.provide(layer), Effect.flip)
    return error._tag === "InvalidOption" ? `${error._tag} ${error.option}` : error._tag
  })

describe("a third plugin", () => {
  it.effect("streams by its own options and decoder", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make(() => ({ slot: { plugin: "words" } }))
      const seen: Array<Change> = []
      const fiber = yield* withLogicalStream({ slot: "orders", plugin: words() }, (change) =>
        Effect.sync(() => {
          seen.push(change)
          return change._tag === "Commit" ? change.nextLsn : undefined
        })
      ).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const connection = yield* fake.accept
      yield* connection.say(say("0/200", "begin 0/200"), say("0/210", "row x"), say("0/300", "commit 0/200 0/300"))
      while (seen.length < 3) yield* Effect.yieldNow
      assert.deepStrictEqual(
        seen.map(({ _tag }) => _tag),
        ["Begin", "Insert", "Commit"]
      )
      assert.deepInclude(seen[1], { row: { value: "x" } })
      assert.include(connection.commands.at(-1), `("spaces" 'one')`)
      yield* Fiber.interrupt(fiber)
    })
  )

  it("has its tables copied as it reads them", () => {
    const decoder = new SnapshotDecoder(words(), portableText)
    const relation = decoder.describe(table())
    const bytes = new TextEncoder().encode("1\ttwo\n")
    assert.deepEqual(decoder.rowsOf(relation)(new ByteReader(portableText).reset(bytes, 0, bytes.length)), {
      id: "1",
      "a b": "two"
    })
  })

  it.effect("is taken by what it tells and refused by what it lacks, whatever its name", () =>
    Effect.gen(function* () {
      const refused = "ServerError" // It has come as far as the server.
      assert.strictEqual(yield* refusalOf(words(), "only"), refused)
      assert.strictEqual(yield* refusalOf(words({ messages: false }), "only"), refused)
      assert.strictEqual(yield* refusalOf(words({ copiedRows: false }), "only"), "InvalidOption plugin")
      assert.strictEqual(yield* refusalOf(words({ publications: [] }), "only"), "InvalidOption plugin")
      assert.strictEqual(yield* refusalOf(words(), "never"), refused)
      assert.strictEqual(yield* refusalOf(words({ messages: false }), "never"), "InvalidOption messages")
      assert.strictEqual(yield* refusalOf(words({ prepared: true }), "never"), "InvalidOption twoPhase")
      assert.strictEqual(yield* refusalOf(words({ copiedRows: false }), "never"), "InvalidOption plugin")
    })
  )
})

describe("what the plugins tell", () => {
  const asked: Pgoutput.Options = { publications: ["p"], streaming: "parallel", twoPhase: true }

  it("follows what they are asked for", () => {
    assert.deepStrictEqual(Pgoutput.make(asked).tells, {
      publications: ["p"],
      messages: true,
      inProgress: true,
      prepared: true,
      copiedRows: true,
      endAhead: false
    })
    assert.isFalse(Pgoutput.make({ publications: ["p"], messages: false }).tells.messages)
    const none = { publications: [], messages: true, inProgress: false, prepared: false, copiedRows: false }
    assert.deepStrictEqual(Wal2Json.make().tells, { ...none, endAhead: false })
    assert.deepStrictEqual(Wal2Json.make({ formatVersion: 1 }).tells, { ...none, endAhead: true })
    assert.isFalse(Wal2Json.make({ addMsgPrefixes: ["a"] }).tells.messages)
  })

  it("a plain plugin asks for committed transactions alone, and still understands a slot that prepares", () => {
    const { plain } = Pgoutput.make({ ...asked, origin: "none" })
    assert.deepInclude(plain.tells, { inProgress: false, prepared: false, messages: true })
    const names = Result.getOrThrow(plain.options(180_000)).map(([name, value]) => `${name} ${value}`)
    assert.deepStrictEqual(names, ["proto_version 1", 'publication_names "p"', "messages true", "origin none"])
    const prepared = decodeAll([beginPrepare(), prepare()], {}, plain.makeDecoder(portableText))
    assert.deepStrictEqual(
      prepared.map(({ _tag }) => _tag),
      ["Begin", "Prepare"]
    )
    assert.deepEqual(plain.plain.tells, plain.tells)
    assert.strictEqual(Wal2Json.make().plain.name, "wal2json")
  })
})
