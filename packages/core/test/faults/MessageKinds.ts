/**
 * Every kind of message that a walsender sends inside CopyData, each in a stream in which it has its place. Not a test.
 */
import type { OutputPlugin } from "../../src/change/OutputPlugin.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import * as ReplicationMessage from "../../src/protocol/ReplicationMessage.ts"
import * as Fake from "../support/FakeWalSender.ts"
import * as Streaming from "../support/StreamingBytes.ts"
import { ending, type Mode, plugin, streamingPlugin } from "./Hostile.ts"

export interface MessageKind {
  readonly name: string
  readonly plugin: OutputPlugin
  readonly mode: Mode
  /** What must have been said before. */
  readonly before: Uint8Array
  /** The message itself: what stands inside its CopyData. */
  readonly payload: Uint8Array
  /** What completes the stream. */
  readonly after: Uint8Array
}

const oid = 16_385
const commitTime = 0
const [commitLsn, endLsn] = [0x300n, 0x330n]

/** The inside of a frame of XLogData. */
const payload = (at: string, walData: Uint8Array): Uint8Array =>
  ReplicationMessage.encodeXLogData({
    walStart: Fake.lsn(at),
    walEnd: Fake.lsn(at),
    sendTime: 0 as never,
    walData
  })

const begin = Bytes.begin({ commitLsn, commitTime, xid: 8 })
const origin = Bytes.message("O", [8, 0x77], { cstring: "elsewhere" })
const relation = Bytes.relation({
  oid,
  schema: "public",
  name: "orders",
  replicaIdentity: "d",
  columns: [{ name: "id", typeOid: 23, isKey: true }]
})
const type = Bytes.type(16_500, "public", "mood")
const insert = Bytes.insert(oid, ["2"])
const update = Bytes.update(oid, ["2"])
const remove = Bytes.remove(oid, Bytes.tuple("K", ["2"]))
const truncate = Bytes.truncate({ oids: [oid], cascade: false, restartIdentity: false })
const message = (isTransactional: boolean) =>
  Bytes.logicalMessage({ isTransactional, lsn: 0x220n, prefix: "p", content: new Uint8Array([1, 2, 3]) })
const commit = Bytes.commit({ commitLsn, endLsn, commitTime })

const inTransaction: ReadonlyArray<readonly [name: string, walData: Uint8Array]> = [
  ["Origin", origin],
  ["Relation", relation],
  ["Type", type],
  ["Insert", insert],
  ["Update", update],
  ["Delete", remove],
  ["Truncate", truncate],
  ["Message", message(true)]
]

const framedBegin = Fake.xLogData("0/200", begin)
const framedCommit = Fake.xLogData("0/330", commit)

const whole = { plugin, mode: "gather", before: new Uint8Array(0), after: ending } as const

/** Of protocol version 1, nine of pgoutput's and two that stand by themselves. */
export const wholeKinds: ReadonlyArray<MessageKind> = [
  { ...whole, name: "Begin", payload: payload("0/200", begin), after: Fake.concat(framedCommit, ending) },
  ...inTransaction.map(([name, walData]) => ({
    ...whole,
    name,
    before: framedBegin,
    payload: payload("0/220", walData),
    after: Fake.concat(framedCommit, ending)
  })),
  { ...whole, name: "Commit", before: framedBegin, payload: payload("0/330", commit) },
  { ...whole, name: "Message outside of any transaction", payload: payload("0/220", message(false)) },
  {
    ...whole,
    name: "PrimaryKeepAlive",
    payload: ReplicationMessage.encodePrimaryKeepAlive({
      walEnd: 0x220n as never,
      sendTime: 0 as never,
      replyRequested: true
    })
  }
]

const xid = 9
const streamed = (walData: Uint8Array): Uint8Array => Fake.xLogData("0/240", walData)
const opened = Fake.concat(
  streamed(Streaming.streamStart(xid, 1)),
  streamed(Streaming.within(xid, relation)),
  streamed(Streaming.within(xid, insert))
)
const stopped = streamed(Streaming.streamStop)
const committed = Fake.xLogData("0/330", Streaming.streamCommit(xid, commitLsn, endLsn))
const prepared = { gid: "g", lsn: commitLsn, endLsn, xid }

const inProgress = (mode: Mode): ReadonlyArray<MessageKind> => {
  const common = { plugin: streamingPlugin, mode, before: new Uint8Array(0), after: ending } as const
  const block = Fake.concat(opened, stopped)
  return [
    {
      ...common,
      name: "StreamStart",
      payload: payload("0/240", Streaming.streamStart(xid, 1)),
      after: Fake.concat(stopped, committed, ending)
    },
    ...inTransaction.map(([name, walData]) => ({
      ...common,
      name: `${name} in a block`,
      before: opened,
      payload: payload("0/240", name === "Origin" ? walData : Streaming.within(xid, walData)),
      after: Fake.concat(stopped, committed, ending)
    })),
    {
      ...common,
      name: "StreamStop",
      before: opened,
      payload: payload("0/240", Streaming.streamStop),
      after: Fake.concat(committed, ending)
    },
    {
      ...common,
      name: "StreamCommit",
      before: block,
      payload: payload("0/330", Streaming.streamCommit(xid, commitLsn, endLsn))
    },
    {
      ...common,
      name: "StreamAbort",
      before: block,
      payload: payload("0/330", Streaming.streamAbortInParallel(xid, xid, 0x330n))
    },
    {
      ...common,
      name: "StreamPrepare",
      before: block,
      payload: payload("0/330", Streaming.streamPrepare(prepared))
    },
    {
      ...common,
      name: "BeginPrepare",
      payload: payload("0/240", Streaming.beginPrepare(prepared)),
      after: Fake.concat(Fake.xLogData("0/330", Streaming.prepare(prepared)), ending)
    },
    {
      ...common,
      name: "Prepare",
      before: streamed(Streaming.beginPrepare(prepared)),
      payload: payload("0/330", Streaming.prepare(prepared))
    },
    { ...common, name: "CommitPrepared", payload: payload("0/330", Streaming.commitPrepared(prepared)) },
    {
      ...common,
      name: "RollbackPrepared",
      payload: payload("0/330", Streaming.rollbackPrepared({ ...prepared, lsn: 0x200n }))
    }
  ].map((kind) => ({ ...kind, name: `${kind.name}, ${mode === "gather" ? "gathered" : "as it comes"}` }))
}

/** Of protocol versions 2 to 4, with transactions in progress gathered, and as they come. */
export const streamingKinds: ReadonlyArray<MessageKind> = [...inProgress("gather"), ...inProgress("deliver")]
