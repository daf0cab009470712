/**
 * Messages that are well framed and make no sense: what they count, name, repeat or leave out. Each ends the stream
 * with a `DecodeError` that names the byte or the number, and where it stands.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { CopyData } from "../../src/replication/CopyData.ts"
import * as Fake from "../support/FakeWalSender.ts"
import * as Streaming from "../support/StreamingBytes.ts"
import { type AttackOptions, attack, ending, frame, refused, streamingPlugin } from "./Hostile.ts"

interface Case {
  /** What the walsender does, in words: the title's end. */
  readonly does: string
  /** What it says: frames, or what the plugin says, which is framed at {@link at}. */
  readonly says: ReadonlyArray<Uint8Array | { readonly frame: Uint8Array }>
  /** Of `DecodeError.problem`. */
  readonly problem: RegExp
  readonly options?: AttackOptions | undefined
}

/** Where all of it stands. */
const at = "0/200"
const oid = 16_385

const framed = ({ says }: Case): Uint8Array =>
  Fake.concat(...says.map((said) => ("frame" in said ? said.frame : Fake.xLogData(at, said))), ending)

const check = (each: Case, options: AttackOptions = {}) =>
  Effect.map(attack([framed(each)], { ...each.options, ...options }), (outcome) => {
    const error = refused(outcome, each.does)
    assert.match(error.problem, each.problem)
    return error
  })

const cases = (id: string, all: ReadonlyArray<Case>): void => {
  for (const each of all) {
    it.effect(`[${id}] ${each.does} is refused`, () =>
      Effect.gen(function* () {
        const error = yield* check(each)
        const last = each.says.at(-1)!
        if (!("frame" in last)) assert.strictEqual(error.lsn, Fake.lsn(at), "the message's own LSN")
        yield* check(each, { readLength: 3 })
      })
    )
  }
}

const begin = Bytes.begin({ commitLsn: 0x200n, commitTime: 0, xid: 8 })
const commit = Bytes.commit({ commitLsn: 0x200n, endLsn: 0x200n + 0x30n, commitTime: 0 })
const framedCommit = { frame: Fake.xLogData("0/230", commit) }
const insert = Bytes.insert(oid, ["2"])
const bytes = (...values: ReadonlyArray<number>): Uint8Array => new Uint8Array(values)
const described = Bytes.relation({
  oid,
  schema: "public",
  name: "orders",
  replicaIdentity: "d",
  columns: [{ name: "id", typeOid: 23, isKey: true }]
})
const column = (kind: string, ...rest: ReadonlyArray<Bytes.Part>) =>
  Bytes.message("I", [4, oid], "N", [2, 1], kind, ...rest)
const relation = (...columns: ReadonlyArray<Bytes.Part>) =>
  Bytes.message("R", [4, 1], { cstring: "public" }, { cstring: "t" }, "d", ...columns)
const logical = (flags: number, ...rest: ReadonlyArray<Bytes.Part>) =>
  Bytes.message("M", [1, flags], [8, 0x200], ...rest)

describe("what nobody knows", () => {
  cases("F2", [
    { does: "an unknown type of message", says: [{ frame: frame("z", "x") }], problem: /type 0x7a/ },
    { does: "an unknown kind of copy data", says: [{ frame: frame("d", "?") }], problem: /type 0x3f/ },
    { does: "an unknown letter of pgoutput", says: [bytes(0x3f)], problem: /kind 0x3f/ },
    { does: "an unknown letter within a transaction", says: [begin, bytes(0x01, 2, 3)], problem: /kind 0x1/ },
    {
      does: "an unknown kind of tuple",
      says: [begin, Bytes.message("I", [4, oid], "Q", [2, 1], "n")],
      problem: /tuple of unknown or misplaced kind 0x51/
    },
    {
      does: "an insert with an old tuple and no new one",
      says: [begin, Bytes.message("I", [4, oid], Bytes.tuple("O", ["2"]))],
      problem: /tuple of unknown or misplaced kind 0x4f/
    },
    {
      does: "an update with two old tuples",
      says: [
        begin,
        Bytes.message("U", [4, oid], Bytes.tuple("K", ["2"]), Bytes.tuple("O", ["2"]), Bytes.tuple("N", ["2"]))
      ],
      problem: /tuple of unknown or misplaced kind 0x4f/
    },
    {
      does: "a delete with a new tuple",
      says: [begin, Bytes.message("D", [4, oid], Bytes.tuple("N", ["2"]))],
      problem: /tuple of unknown or misplaced kind 0x4e/
    },
    { does: "an unknown kind of column", says: [begin, column("x", [4, 1], "2")], problem: /column "id" .* kind 0x78/ },
    {
      does: "a column in binary that nobody asked for",
      says: [begin, column("b", [4, 4], [4, 2])],
      problem: /in binary/
    },
    {
      does: "an unknown replica identity",
      says: [Bytes.message("R", [4, 1], { cstring: "s" }, { cstring: "t" }, "x", [2, 0])],
      problem: /replica identity 0x78/
    },
    {
      does: "an unknown flag of a column",
      says: [relation([2, 1], [1, 2], { cstring: "a" }, [4, 23], [4, -1])],
      problem: /flags 0x2/
    },
    {
      does: "an unknown flag of a commit",
      says: [begin, Bytes.message("C", [1, 1], [8, 0x200], [8, 0x230], [8, 0])],
      problem: /flags 0x1/
    },
    {
      does: "an unknown option of a truncate",
      says: [begin, Bytes.message("T", [4, 1], [1, 4], [4, oid])],
      problem: /options 0x4/
    },
    { does: "an unknown flag of a message", says: [logical(2, { cstring: "p" }, [4, 0])], problem: /flags 0x2/ },
    {
      does: "a block of a transaction in progress that nobody asked for",
      says: [Streaming.streamStart(9, 1)],
      problem: /kind 0x53/
    },
    { does: "a prepared transaction that nobody asked for", says: [Streaming.beginPrepare()], problem: /kind 0x62/ },
    {
      does: "a message in a block that belongs in none",
      says: [Streaming.streamStart(9, 1), begin],
      problem: /kind 0x42 in a block/,
      options: { plugin: streamingPlugin }
    },
    {
      does: "a block that is neither the first nor a later one",
      says: [Streaming.streamStart(9, 2)],
      problem: /segment 2/,
      options: { plugin: streamingPlugin }
    }
  ])
})

describe("what does not add up", () => {
  cases("F3", [
    {
      does: "a row of 65,535 columns",
      says: [begin, Bytes.message("I", [4, oid], "N", [2, 0xffff], "n")],
      problem: /65535 columns/
    },
    {
      does: "a row without columns",
      says: [begin, Bytes.message("I", [4, oid], "N", [2, 0])],
      problem: /row of 0 columns/
    },
    { does: "a row of one column too many", says: [begin, Bytes.insert(oid, ["2", "3"])], problem: /row of 2 columns/ },
    { does: "a value of -1 bytes", says: [begin, column("t", [4, -1])], problem: /reaches beyond its message/ },
    {
      does: "a value of -2^31 bytes",
      says: [begin, column("t", [4, -0x8000_0000])],
      problem: /reaches beyond its message/
    },
    {
      does: "a value of 2^31 - 1 bytes",
      says: [begin, column("t", [4, 0x7fff_ffff], "2")],
      problem: /reaches beyond its message/
    },
    {
      does: "a value of one byte more than there is",
      says: [begin, column("t", [4, 2], "2")],
      problem: /reaches beyond its message/
    },
    {
      does: "a value of one byte less than there is",
      says: [begin, column("t", [4, 1], "22")],
      problem: /1 bytes too many/
    },
    { does: "a value with half a length", says: [begin, column("t", [2, 0])], problem: /reaches beyond its message/ },
    {
      does: "an old row of another width than the new one",
      says: [begin, Bytes.update(oid, ["2"], Bytes.tuple("O", ["1", "1"]))],
      problem: /row of 2 columns/
    },
    {
      does: "a relation that promises 65,535 columns",
      says: [relation([2, 0xffff], [1, 0])],
      problem: /text without its terminating zero/
    },
    {
      does: "a relation that promises one column and has two",
      says: [
        relation(
          [2, 1],
          ...[1, 2].flatMap((): ReadonlyArray<Bytes.Part> => [[1, 0], { cstring: "a" }, [4, 23], [4, -1]])
        )
      ],
      problem: /bytes too many/
    },
    {
      does: "a truncate of 2^32 - 1 relations",
      says: [begin, Bytes.message("T", [4, -1], [1, 0], [4, oid])],
      problem: /4294967295 relations/
    },
    {
      does: "a truncate of more relations than it names",
      says: [begin, Bytes.message("T", [4, 2], [1, 0], [4, oid])],
      problem: /2 relations in 4 bytes/
    },
    { does: "a message of -1 bytes", says: [logical(0, { cstring: "p" }, [4, -1])], problem: /-1 bytes wanted/ },
    {
      does: "a message of more bytes than it has",
      says: [logical(0, { cstring: "p" }, [4, 9], "x")],
      problem: /9 bytes wanted/
    },
    {
      does: "a key that is shorter than its text",
      says: [begin, Bytes.remove(oid, Bytes.message("K", [2, 1], "t", [4, 99], "2"))],
      problem: /reaches beyond/
    },
    {
      does: "a stream abort with half of what version 4 adds",
      says: [Streaming.streamStart(9, 1), Streaming.streamStop, Bytes.message(Streaming.streamAbort(9), [8, 0x200])],
      problem: /bytes wanted/,
      options: { plugin: streamingPlugin }
    }
  ])
})

describe("what is out of place", () => {
  const unknown = 99_999
  const other = Bytes.commit({ commitLsn: 0x1f0n, endLsn: 0x200n, commitTime: 0 })
  const inProgress = { plugin: streamingPlugin } as const
  const block = [Streaming.streamStart(9, 1), Streaming.within(9, described), Streaming.streamStop]
  cases("F4", [
    {
      does: "an insert into an unknown relation",
      says: [begin, Bytes.insert(unknown, ["2"])],
      problem: /relation 99999, which was never described/
    },
    { does: "an update of an unknown relation", says: [begin, Bytes.update(unknown, ["2"])], problem: /99999/ },
    {
      does: "a delete from an unknown relation",
      says: [begin, Bytes.remove(unknown, Bytes.tuple("K", ["2"]))],
      problem: /99999/
    },
    {
      does: "a truncate of an unknown relation",
      says: [begin, Bytes.truncate({ oids: [oid, unknown], cascade: false, restartIdentity: false })],
      problem: /99999/
    },
    { does: "an insert outside of any transaction", says: [insert], problem: /outside any transaction/ },
    {
      does: "an update outside of any transaction",
      says: [Bytes.update(oid, ["2"])],
      problem: /outside any transaction/
    },
    {
      does: "a delete outside of any transaction",
      says: [Bytes.remove(oid, Bytes.tuple("K", ["2"]))],
      problem: /outside any transaction/
    },
    {
      does: "a truncate outside of any transaction",
      says: [Bytes.truncate({ oids: [oid], cascade: false, restartIdentity: false })],
      problem: /outside any transaction/
    },
    {
      does: "an origin outside of any transaction",
      says: [Bytes.message("O", [8, 1], { cstring: "o" })],
      problem: /outside any transaction/
    },
    {
      does: "a transactional message outside of any transaction",
      says: [logical(1, { cstring: "p" }, [4, 0])],
      problem: /outside any transaction/
    },
    {
      does: "a message outside of transactions within one",
      says: [begin, logical(0, { cstring: "p" }, [4, 0])],
      problem: /not transactional inside a transaction/
    },
    { does: "a commit without a transaction", says: [commit], problem: /outside any transaction/ },
    {
      does: "a commit that comes twice",
      says: [{ frame: Fake.concat(Fake.transaction("0/100", "0/130", 1)) }, other],
      problem: /outside any transaction/
    },
    { does: "a commit that is missing", says: [begin, insert, begin], problem: /begins inside another/ },
    {
      does: "a commit of another transaction",
      says: [begin, other],
      problem: /another transaction than the one that is open/
    },
    {
      does: "a commit that ends before it begins",
      says: [begin, Bytes.commit({ commitLsn: 0x200n, endLsn: 0x200n, commitTime: 0 })],
      problem: /ends before it begins/
    },
    {
      does: "a block within a transaction",
      says: [begin, Streaming.streamStart(9, 1)],
      problem: /inside another transaction/,
      options: inProgress
    },
    {
      does: "a block within a block",
      says: [Streaming.streamStart(9, 1), Streaming.streamStart(9, 0)],
      problem: /kind 0x53 in a block/,
      options: inProgress
    },
    {
      does: "the end of a block that never began",
      says: [Streaming.streamStop],
      problem: /kind 0x45/,
      options: inProgress
    },
    {
      does: "a second first block",
      says: [...block, Streaming.streamStart(9, 1)],
      problem: /begins twice/,
      options: inProgress
    },
    {
      does: "a later block without a first one",
      says: [Streaming.streamStart(9, 0)],
      problem: /never began/,
      options: inProgress
    },
    {
      does: "the commit of a transaction in progress that never began",
      says: [Streaming.streamCommit(9, 0x1f0n, 0x200n)],
      problem: /never began/,
      options: inProgress
    },
    {
      does: "the commit of a transaction in progress within its block",
      says: [Streaming.streamStart(9, 1), Streaming.streamCommit(9, 0x1f0n, 0x200n)],
      problem: /kind 0x63 in a block/,
      options: inProgress
    },
    {
      does: "the commit of a transaction in progress within another",
      says: [...block, begin, Streaming.streamCommit(9, 0x1f0n, 0x200n)],
      problem: /inside another transaction/,
      options: inProgress
    },
    {
      does: "the abort of a transaction in progress that never began",
      says: [Streaming.streamAbort(9)],
      problem: /never began/,
      options: inProgress
    },
    {
      does: "the end of a transaction in progress as if it had come whole",
      says: [...block, commit],
      problem: /outside any transaction/,
      options: inProgress
    },
    {
      does: "a prepare of a transaction in progress as if it had come whole",
      says: [...block, Streaming.prepare({ xid: 9, lsn: 0x1f0n, endLsn: 0x200n })],
      problem: /not of its blocks/,
      options: inProgress
    },
    {
      does: "a prepare of another gid",
      says: [
        Streaming.beginPrepare({ lsn: 0x1f0n, endLsn: 0x200n }),
        Streaming.prepare({ gid: "h", lsn: 0x1f0n, endLsn: 0x200n })
      ],
      problem: /prepare of another transaction/,
      options: inProgress
    },
    {
      does: "a commit of what is being prepared",
      says: [Streaming.beginPrepare({ lsn: 0x1f0n, endLsn: 0x200n }), other],
      problem: /being prepared/,
      options: inProgress
    },
    {
      does: "the commit of what was prepared within a transaction",
      says: [begin, Streaming.commitPrepared({ lsn: 0x1f0n, endLsn: 0x200n })],
      problem: /inside a transaction/,
      options: inProgress
    },
    {
      does: "an unknown relation in a block",
      says: [
        Streaming.streamStart(9, 1),
        Streaming.within(9, Bytes.insert(unknown, ["2"])),
        Streaming.streamStop,
        Streaming.streamCommit(9, 0x1f0n, 0x200n)
      ],
      problem: /99999/,
      options: { ...inProgress, mode: "deliver" }
    }
  ])

  it.effect(
    "[F4] an unknown relation in a gathered block is refused once it commits, and the commit is not acknowledged",
    () =>
      Effect.gen(function* () {
        const block = [
          Streaming.streamStart(9, 1),
          Streaming.within(9, Bytes.insert(unknown, ["2"])),
          Streaming.streamStop
        ]
        const says = [...block, Streaming.streamCommit(9, 0x1f0n, 0x200n)]
        const error = yield* check({ does: "it", says, problem: /99999/, options: inProgress })
        assert.strictEqual(error.lsn, Lsn.fromString("0/1F0"), "the commit's own")
      })
  )
})

describe("a unit that claims to end further on than it does", () => {
  const far = 0xffff_ffff_ffff_ffffn
  const problem = /beyond 0\/200 where its end is told/
  cases("F6", [
    { does: "a commit", says: [begin, Bytes.commit({ commitLsn: 0x200n, endLsn: far, commitTime: 0 })], problem },
    {
      does: "a message outside of any transaction",
      says: [Bytes.message("M", [1, 0], [8, far], { cstring: "p" }, [4, 0])],
      problem
    },
    {
      does: "the commit of what was prepared",
      says: [Streaming.commitPrepared({ lsn: 0x1f0n, endLsn: far })],
      problem,
      options: { plugin: streamingPlugin }
    },
    {
      does: "the commit of a transaction in progress",
      says: [Streaming.streamStart(9, 1), Streaming.streamStop, Streaming.streamCommit(9, 0x1f0n, far)],
      problem,
      options: { plugin: streamingPlugin }
    },
    {
      does: "the commit of a transaction in progress, as it comes",
      says: [Streaming.streamStart(9, 1), Streaming.streamStop, Streaming.streamCommit(9, 0x1f0n, far)],
      problem,
      options: { plugin: streamingPlugin, mode: "deliver" }
    }
  ])

  it("[F6] is not handed on, whether it comes whole or was gathered, so that nobody can acknowledge it", () => {
    const lie = Bytes.commit({ commitLsn: 0x200n, endLsn: far, commitTime: 0 })
    const block = [Streaming.streamStart(9, 1), Streaming.streamStop]
    const streams = [
      [begin, lie],
      [begin, commit, ...block, Streaming.streamCommit(9, 0x1f0n, far)]
    ]
    for (const says of streams) {
      const copy = new CopyData({
        plugin: streamingPlugin,
        slices: portableText,
        run: new Run(),
        context: { slot: "orders" },
        serverLsn: Fake.lsn("0/1000")
      })
      const { batch, end } = copy.decode(
        Fake.concat(BackendMessage.copyBothResponse, ...says.map((said) => Fake.xLogData("0/230", said)))
      )
      assert.strictEqual(end?._tag, "Failed")
      const good = says.length === 2 ? [] : ["0/230"]
      assert.deepStrictEqual(
        batch.delivered.map(({ lsn }) => Lsn.format(lsn)),
        good
      )
      assert.lengthOf(batch.changes, says.length === 2 ? 1 : 2)
      assert.isEmpty(batch.gathered)
    }
  })
})

describe("text that is none", () => {
  const broken: Readonly<Record<string, Uint8Array>> = {
    "a byte that is never UTF-8": bytes(0x61, 0xff),
    "a continuation without its beginning": bytes(0x80),
    "a character cut short": bytes(0xe2, 0x82),
    "an overlong form": bytes(0xc0, 0xaf),
    "half of a surrogate pair": bytes(0xed, 0xa0, 0x80),
    "a character beyond Unicode": bytes(0xf5, 0x80, 0x80, 0x80)
  }
  const notUtf8 = /not UTF-8/
  for (const [what, text] of Object.entries(broken)) {
    const name = Bytes.message(text, [1, 0])
    const table = Bytes.message(
      "R",
      [4, 2],
      { cstring: "public" },
      { cstring: "t" },
      "d",
      [2, 1],
      [1, 0],
      { cstring: "a" },
      [4, 25],
      [4, -1]
    )
    cases("F5", [
      { does: `${what} in a value`, says: [begin, table, Bytes.insert(2, [text])], problem: notUtf8 },
      {
        does: `${what} in an old value`,
        says: [begin, table, Bytes.remove(2, Bytes.tuple("O", [text]))],
        problem: notUtf8
      },
      {
        does: `${what} in a schema's name`,
        says: [Bytes.message("R", [4, 1], name, { cstring: "t" }, "d", [2, 0])],
        problem: notUtf8
      },
      {
        does: `${what} in a table's name`,
        says: [Bytes.message("R", [4, 1], { cstring: "s" }, name, "d", [2, 0])],
        problem: notUtf8
      },
      {
        does: `${what} in a column's name`,
        says: [relation([2, 1], [1, 0], name, [4, 23], [4, -1])],
        problem: notUtf8
      },
      {
        does: `${what} in a type's name`,
        says: [Bytes.message("Y", [4, 16_500], { cstring: "s" }, name)],
        problem: notUtf8
      },
      { does: `${what} in an origin's name`, says: [begin, Bytes.message("O", [8, 1], name)], problem: notUtf8 },
      { does: `${what} in a message's prefix`, says: [logical(0, name, [4, 0])], problem: notUtf8 },
      {
        does: `${what} in a gid`,
        says: [Bytes.message("K", [1, 0], [8, 0x1f0], [8, 0x200], [8, 0], [4, 9], name)],
        problem: notUtf8,
        options: { plugin: streamingPlugin }
      },
      {
        does: `${what} in an error's text`,
        says: [{ frame: frame("E", Bytes.message("M", name, [1, 0])) }],
        problem: notUtf8
      },
      {
        does: `${what} in a notice's text`,
        says: [{ frame: frame("N", Bytes.message("M", name, [1, 0])) }],
        problem: notUtf8
      }
    ])
  }

  const endless = /without its terminating zero/
  cases("F5", [
    {
      does: "a table's name without its end",
      says: [Bytes.message("R", [4, 1], { cstring: "s" }, "t")],
      problem: endless
    },
    {
      does: "a type's name without its end",
      says: [Bytes.message("Y", [4, 1], { cstring: "s" }, "t")],
      problem: endless
    },
    { does: "an origin's name without its end", says: [begin, Bytes.message("O", [8, 1], "o")], problem: endless },
    { does: "a message's prefix without its end", says: [logical(0, "p")], problem: endless },
    { does: "an error's text without its end", says: [{ frame: frame("E", "SERROR\0Mtext") }], problem: endless },
    {
      does: "an error without the end of its fields",
      says: [{ frame: frame("E", "SERROR\0Mtext\0") }],
      problem: /1 bytes wanted/
    },
    {
      does: "an error with more behind its end",
      says: [
        {
          frame: Fake.concat(
            frame(
              "E",
              Bytes.message(
                BackendMessage.errorResponse({ severity: "ERROR", sqlState: "57014", message: "m" }).subarray(5),
                [4, 0]
              )
            )
          )
        }
      ],
      problem: /4 bytes too many/
    },
    { does: "an empty error", says: [{ frame: frame("E") }], problem: /1 bytes wanted/ }
  ])
})

describe("a good stream among all this", () => {
  it.effect("[F4] is one whose commit is told where it ends", () =>
    Effect.gen(function* () {
      const { error } = yield* attack([Fake.concat(Fake.xLogData(at, begin), framedCommit.frame, ending)])
      assert.isUndefined(error)
    })
  )
})
