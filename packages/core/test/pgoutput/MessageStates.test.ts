/**
 * docs/messages.md, held against the decoder: each message in each state, for whatever was asked for, is taken where the
 * page says that a server may send it, and refused where it says that none can.
 */
import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Run } from "../../src/change/NextLsn.ts"
import { Batch, type Decoder, type InProgressMode } from "../../src/change/OutputPlugin.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { begin, commit, decodeErrorOf, decodeOne, insert, message, relation, tuple } from "../support/PgoutputBytes.ts"
import * as Streaming from "../support/StreamingBytes.ts"

const described = relation(1, [{ name: "a", typeOid: 23, isKey: true }])

type State = "outside" | "transaction" | "prepared" | "block" | "between" | "afterPrepare"

/** In the order of the table's columns. */
const states: ReadonlyArray<State> = ["outside", "transaction", "prepared", "block", "between", "afterPrepare"]

/** Transaction 9 is the one in progress, 7 the one that comes whole; `before` has described the relation to all. */
const before = [begin(0x80n, 6), described, commit(0x80n, 0x90n)]
const blockOf9 = Streaming.block(9, 1, Streaming.within(9, described), Streaming.within(9, insert(1, "1")))
const prefixes: Readonly<Record<State, ReadonlyArray<Uint8Array>>> = {
  outside: before,
  transaction: [...before, begin(0x100n, 7)],
  prepared: [...before, Streaming.beginPrepare()],
  block: [...before, Streaming.streamStart(9, 1), Streaming.within(9, described)],
  between: [...before, ...blockOf9],
  afterPrepare: [...before, ...blockOf9, Streaming.streamPrepare({ xid: 9 })]
}

const logicalMessage = (flags: number) => message("M", [1, flags], [8, 0x95n], { cstring: "p" }, [4, 0])

/** What bears the xid of its subtransaction when it stands in a block. */
const inBlocks: Readonly<Record<string, Uint8Array>> = {
  "`I` Insert": insert(1, "1"),
  "`U` Update": message("U", [4, 1], tuple("N", ["1"])),
  "`D` Delete": message("D", [4, 1], tuple("K", ["1"])),
  "`T` Truncate": message("T", [4, 1], [1, 0], [4, 1]),
  "`R` Relation": described,
  "`Y` Type": message("Y", [4, 16_500], { cstring: "s" }, { cstring: "t" }),
  "`M` Message, transactional": logicalMessage(1),
  "`M` Message, not transactional": logicalMessage(0)
}

/** `A` is longer for who streams in parallel. */
const others = (isParallel: boolean): Readonly<Record<string, Uint8Array>> => {
  const abort = (subxid: number) =>
    isParallel ? Streaming.streamAbortInParallel(9, subxid, 0x90n) : Streaming.streamAbort(9, subxid)
  return {
    "`B` Begin": begin(0x200n, 12),
    "`C` Commit": commit(0x100n, 0x130n),
    "`O` Origin": message("O", [8, 1], { cstring: "o" }),
    "`S` Stream Start, a first block": Streaming.streamStart(12, 1),
    "`S` Stream Start, a later block": Streaming.streamStart(9, 0),
    "`E` Stream Stop": Streaming.streamStop,
    "`c` Stream Commit": Streaming.streamCommit(9),
    "`p` Stream Prepare": Streaming.streamPrepare({ xid: 9 }),
    "`A` Stream Abort, of a subtransaction": abort(10),
    "`A` Stream Abort, of the transaction": abort(9),
    "`b` Begin Prepare": Streaming.beginPrepare({ xid: 12 }),
    "`P` Prepare": Streaming.prepare(),
    "`K` Commit Prepared": Streaming.commitPrepared({ xid: 9 }),
    "`r` Rollback Prepared": Streaming.rollbackPrepared({ xid: 9 })
  }
}

/** A row of the page: what it says of each state is a version, `taken` or `–`. */
interface Row {
  readonly name: string
  readonly asked: string
  readonly cells: ReadonlyArray<string>
}

const rows: ReadonlyArray<Row> = readFileSync(new URL("../../../../docs/messages.md", import.meta.url), "utf8")
  .split("\n")
  .filter((line) => /^\| `.` [^|]*\|(?: [^|]* \|){7}$/.test(line))
  .map((line) => {
    const [, name, asked, ...cells] = line.split("|").map((cell) => cell.trim())
    return { name: name!, asked: asked!, cells: cells.slice(0, states.length) }
  })

interface Asked {
  readonly streaming: "on" | "parallel" | undefined
  readonly twoPhase: boolean
  readonly mode: InProgressMode
}

const modes: ReadonlyArray<InProgressMode> = ["gather", "deliver"]
const allAsked: ReadonlyArray<Asked> = [undefined, "on" as const, "parallel" as const].flatMap((streaming) =>
  [false, true].flatMap((twoPhase) => modes.map((mode) => ({ streaming, twoPhase, mode })))
)

/** Whether a stream that asked for this can be in that state. */
const canBe = ({ streaming, twoPhase }: Asked, state: State): boolean => {
  if (state === "prepared") return twoPhase
  if (state === "block" || state === "between") return streaming !== undefined
  return state !== "afterPrepare" || (streaming !== undefined && twoPhase)
}

/** Whether what a row needs was asked for. */
const isAskedFor = (needs: string, { streaming, twoPhase }: Asked): boolean =>
  (!needs.includes("streaming") || streaming !== undefined) && (!needs.includes("twoPhase") || twoPhase)

const feed = (decoder: Decoder, messages: ReadonlyArray<Uint8Array>): void => {
  const batch = new Batch(new Run())
  for (const bytes of messages) decodeOne(decoder, bytes, batch)
  for (const { replay } of batch.gathered) {
    replay.begin(new Batch(new Run()))
    for (const chunk of replay.bytes.takeChunks()) replay.decode(chunk, new Batch(new Run()))
  }
}

/** Whether the message is taken in that state. What stands in a block may be refused as late as at its commit. */
const isTaken = (asked: Asked, state: State, name: string): boolean => {
  const decoder = Pgoutput.make({ publications: ["p"], ...asked }).makeDecoder(portableText, asked.mode)
  feed(decoder, prefixes[state])
  const plain = inBlocks[name] ?? others(asked.streaming === "parallel")[name]!
  const bytes = state === "block" && name in inBlocks ? Streaming.within(9, plain) : plain
  const rest =
    state !== "block" ? [] : [...(name === "`E` Stream Stop" ? [] : [Streaming.streamStop]), Streaming.streamCommit(9)]
  try {
    feed(decoder, [bytes, ...rest])
    return true
  } catch (error) {
    if (error instanceof DecodeError) return false
    throw error
  }
}

describe("docs/messages.md", () => {
  it("lists each message once, and says of each state whether it may come", () => {
    const names = [...Object.keys(inBlocks), ...Object.keys(others(false))]
    assert.deepStrictEqual(rows.map(({ name }) => name).toSorted(), names.toSorted())
    for (const { asked, cells, name } of rows) {
      assert.include(["anything", "streaming", "twoPhase", "streaming, twoPhase"], asked, name)
      for (const cell of cells) assert.match(cell, /^(1[4-8]|taken|–)$/, name)
    }
  })

  for (const { asked: needs, cells, name } of rows) {
    it(`[F13] has ${name} taken in each state in which it may come, whatever was asked for, and refused in the others`, () => {
      const wrong = allAsked.flatMap((asked) =>
        states.flatMap((state, column) => {
          if (!canBe(asked, state)) return []
          const expected = isAskedFor(needs, asked) && cells[column] !== "–"
          const { mode, streaming, twoPhase } = asked
          const where = `${state}, streaming ${streaming ?? "off"}, twoPhase ${twoPhase}, ${mode}`
          return isTaken(asked, state, name) === expected ? [] : [`${expected ? "refused" : "taken"}: ${where}`]
        })
      )
      assert.deepStrictEqual(wrong, [])
    })
  }
})

describe("an abort of what never came", () => {
  const decoderOf = (options: Partial<Pgoutput.Options>, mode: InProgressMode = "gather") =>
    Pgoutput.make({ publications: ["p"], ...options }).makeDecoder(portableText, mode)

  it("[F13] changes nothing: no change, no unit, no transaction that stays open, and what follows comes", () => {
    for (const { mode, ...options } of allAsked) {
      const decoder = decoderOf(options, mode)
      const batch = new Batch(new Run())
      for (const bytes of [...before, Streaming.streamAbort(9, 10), Streaming.streamAbort(9, 11)]) {
        decodeOne(decoder, bytes, batch)
      }
      assert.deepStrictEqual(
        [batch.changes.map(({ _tag }) => _tag), batch.delivered.length, decoder.isOpen],
        [["Begin", "Commit"], 1, false]
      )
      for (const bytes of [begin(0x100n, 7), insert(1, "1"), commit()]) decodeOne(decoder, bytes, batch)
      assert.deepStrictEqual(
        batch.changes.map(({ _tag }) => _tag),
        ["Begin", "Commit", "Begin", "Insert", "Commit"]
      )
    }
  })

  it("[F13] is told once of a transaction that ended prepared, and not at all once its end was told", () => {
    for (const mode of modes) {
      const options = { streaming: "on", twoPhase: true } as const
      const prepared = [...blockOf9, Streaming.streamPrepare({ xid: 9 })]
      const refusedAfter = (...messages: ReadonlyArray<Uint8Array>) =>
        decodeErrorOf(() => feed(decoderOf(options, mode), [...prepared, ...messages, Streaming.streamAbort(9)]))
          .problem
      assert.include(refusedAfter(Streaming.streamAbort(9)), "never began")
      assert.include(refusedAfter(Streaming.commitPrepared({ xid: 9 })), "never began")
      assert.include(refusedAfter(Streaming.rollbackPrepared({ xid: 9 })), "never began")
    }
  })

  it("[F13] within a transaction or a block is refused", () => {
    const within = decodeErrorOf(() => feed(decoderOf({}), [begin(), Streaming.streamAbort(9, 10)]))
    assert.include(within.problem, "an abort inside a transaction")
  })
})

describe("blocks of what was prepared on an earlier connection", () => {
  for (const [what, end] of [
    ["its commit", Streaming.commitPrepared({ xid: 9 })],
    ["its rollback", Streaming.rollbackPrepared({ xid: 9 })]
  ] as const) {
    for (const mode of modes) {
      it(`[F13] end with ${what}: nothing of them is kept (${mode})`, () => {
        const plugin = Pgoutput.make({ publications: ["p"], streaming: "on", twoPhase: true })
        const decoder = plugin.makeDecoder(portableText, mode)
        feed(decoder, blockOf9)
        const batch = new Batch(new Run())
        decodeOne(decoder, end, batch)
        assert.deepStrictEqual([batch.changes.length, batch.gathered.length, batch.delivered.length], [1, 0, 1])
        assert.strictEqual(decoder.gathering?.bytesInMemory ?? 0, 0)
        assert.deepStrictEqual(
          (decoder.gathering?.takeAborted() ?? []).map(({ xid }) => xid),
          mode === "gather" ? [9] : []
        )
        assert.include(decodeErrorOf(() => feed(decoder, [Streaming.streamCommit(9)])).problem, "never began")
      })
    }
  }
})

describe("a prepared transaction that was not asked for", () => {
  it("[F13] is refused with the reason and the ways out, whichever of its messages comes first", () => {
    for (const streaming of [undefined, "on"] as const) {
      const firsts = [
        Streaming.beginPrepare(),
        Streaming.prepare(),
        Streaming.commitPrepared(),
        Streaming.rollbackPrepared()
      ]
      for (const bytes of firsts) {
        const decoder = Pgoutput.make({ publications: ["p"], streaming }).makeDecoder(portableText)
        assert.include(
          decodeErrorOf(() => feed(decoder, [bytes])).problem,
          "the slot was made or once read with two_phase, and keeps it; ask for twoPhase"
        )
      }
    }
  })
})
