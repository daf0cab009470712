import { assert, describe, it } from "@effect/vitest"
import { Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Bytes from "../../src/pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import * as ReplicationMessage from "../../src/protocol/ReplicationMessage.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { CopyData, type CopyDataOptions } from "../../src/replication/CopyData.ts"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import * as Fake from "../support/FakeWalSender.ts"
import * as Streaming from "../support/StreamingBytes.ts"

const make = (options: Partial<CopyDataOptions> = {}) =>
  new CopyData({
    plugin: Pgoutput.make({ publications: ["orders"] }),
    slices: portableText,
    run: new Run(),
    context: { slot: "orders", publications: ["orders"] },
    serverLsn: Fake.lsn("0/1000"),
    ...options
  })

const started = (options: Partial<CopyDataOptions> = {}) => {
  const copy = make(options)
  copy.decode(BackendMessage.copyBothResponse)
  return copy
}

const tags = (read: ReturnType<CopyData["decode"]>) => read.batch.changes.map((change) => change._tag)

const failure = (read: ReturnType<CopyData["decode"]>) => (read.end?._tag === "Failed" ? read.end.error : undefined)

const decodeError = (read: ReturnType<CopyData["decode"]>) => {
  const error = failure(read)
  assert(error?._tag === "DecodeError")
  return error
}

/** A message of pgoutput that there is none of. */
const unknown = new Uint8Array([0x3f])

/** A description of a type: a message that is of no transaction, and changes nothing. */
const typeAt = (at: string) => Fake.xLogData(at, Bytes.type(20_000, "public", "mood"))

describe("CopyData", () => {
  it("decodes the same changes whatever the sizes of the reads", () => {
    const bytes = Fake.concat(Fake.relation(), Fake.transaction("0/100", "0/130", 1), Fake.keepAlive("0/200", true))
    const whole = started().decode(bytes)
    assert.deepStrictEqual(tags(whole), ["Begin", "Insert", "Commit"])
    for (const size of [1, 2, 3, 7, 50]) {
      const copy = started()
      const seen: Array<string> = []
      let demands = 0
      for (let at = 0; at < bytes.length; at += size) {
        const read = copy.decode(bytes.slice(at, at + size))
        seen.push(...tags(read))
        if (read.replyRequested) demands++
      }
      assert.deepStrictEqual(seen, tags(whole))
      assert.strictEqual(demands, 1)
    }
  })

  it("takes no position from the description of a relation, and the furthest of all others", () => {
    const copy = started()
    assert.strictEqual(copy.decode(Fake.concat(Fake.begin("0/100"), Fake.relation())).received, Lsn.zero)
    const read = copy.decode(Fake.concat(Fake.insert("0/150", 1), Fake.insert("0/110", 2)))
    assert.strictEqual(read.received, Fake.lsn("0/150"))
    assert.isTrue(read.isOpen)
  })

  it("names an error by its stage: a slot that is missing is one before the stream begins", () => {
    const missing = BackendMessage.errorResponse({ severity: "ERROR", sqlState: "42704", message: "gibt es nicht" })
    assert.strictEqual(failure(make().decode(missing))?._tag, "SlotNotFound")
    assert.strictEqual(failure(started().decode(missing))?._tag, "PublicationNotFound")
  })

  it("hands over what came before an error, and nothing after it", () => {
    const cancel = BackendMessage.errorResponse({ severity: "ERROR", sqlState: "57014", message: "canceled" })
    const more = Fake.transaction("0/130", "0/160", 2)
    const read = started().decode(Fake.concat(Fake.relation(), Fake.transaction("0/100", "0/130", 1), cancel, more))
    assert.deepStrictEqual(tags(read), ["Begin", "Insert", "Commit"])
    assert.deepInclude(failure(read), { _tag: "ServerError", stage: "Streaming", isRetryable: true })
  })

  it("keeps the server's words to itself where they may quote a row", () => {
    const division = BackendMessage.errorResponse({
      severity: "ERROR",
      sqlState: "22P02",
      message: 'invalid input syntax for type integer: "planted"',
      detail: "planted"
    })
    const error = failure(started().decode(division))
    assert.notInclude(JSON.stringify(error) + String(error), "planted")
  })

  it("stops behind a warning that may mean that changes are missing, and goes on with the rest of the read", () => {
    for (const sqlState of ["55000", "22023"]) {
      const warning = { severity: "WARNING", sqlState, message: "mind", routine: "LoadPublications" }
      const copyData = started()
      const before = Fake.concat(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
      const after = Fake.concat(Fake.transaction("0/200", "0/230", 2), Fake.begin("0/300").subarray(0, 20))
      const read = copyData.decode(Fake.concat(before, BackendMessage.noticeResponse(warning), after))
      assert.isUndefined(read.end)
      assert.deepStrictEqual(tags(read), ["Begin", "Insert", "Commit"])
      assert.deepInclude(read.warning?.notice, warning)
      assert.isEmpty(read.notices)
      assert.strictEqual(read.received, Fake.lsn("0/130"))
      const rest = copyData.decode(read.warning!.rest)
      assert.isUndefined(rest.warning)
      assert.deepStrictEqual(tags(rest), ["Begin", "Insert", "Commit"])
      assert.strictEqual(
        read.bytes + rest.bytes,
        before.length + BackendMessage.noticeResponse(warning).length + after.length
      )
      assert.deepStrictEqual(tags(copyData.decode(Fake.begin("0/300").subarray(20))), ["Begin"])
    }
  })

  it("takes no notice of another severity, and no other warning, for one to be asked about", () => {
    const of = (severity: string, sqlState: string) =>
      started().decode(BackendMessage.noticeResponse({ severity, sqlState, message: "mind" }))
    for (const severity of ["DEBUG", "LOG", "INFO", "NOTICE"]) {
      for (const sqlState of ["55000", "22023"]) assert.isUndefined(of(severity, sqlState).warning)
    }
    for (const sqlState of ["01000", "42704", "57P01", "55006"]) assert.isUndefined(of("WARNING", sqlState).warning)
  })

  it("asks about nothing before the stream has begun", () => {
    const notice = BackendMessage.noticeResponse({ severity: "WARNING", sqlState: "55000", message: "mind" })
    const read = make().decode(notice)
    assert.isUndefined(read.warning)
    assert.lengthOf(read.notices, 1)
  })

  it("steps over warnings once it has said goodbye", () => {
    const notice = BackendMessage.noticeResponse({ severity: "WARNING", sqlState: "55000", message: "mind" })
    assert.isUndefined(started().skip(notice))
  })

  it("passes other notices on, and goes on", () => {
    const notice = { severity: "NOTICE", sqlState: "00000", message: "hello" }
    const read = started().decode(Fake.concat(BackendMessage.noticeResponse(notice), Fake.begin("0/100")))
    assert.deepInclude(read.notices[0], notice)
    assert.isUndefined(read.end)
    assert.deepStrictEqual(tags(read), ["Begin"])
  })

  it("tells the LSN and offset of a message it cannot read, after what came before it", () => {
    const bad = Fake.xLogData("0/AB", new Uint8Array([0x3f]))
    const read = started().decode(Fake.concat(Fake.relation(), Fake.transaction("0/100", "0/130", 1), bad))
    assert.deepStrictEqual(tags(read), ["Begin", "Insert", "Commit"])
    assert.deepInclude(failure(read), { _tag: "DecodeError", lsn: Fake.lsn("0/AB"), isRetryable: false })
  })

  it("does not count as received what it could not read: nothing of it may be acknowledged", () => {
    const message = Fake.xLogData("0/500", new Uint8Array([0x4d, 0]))
    const pgoutput = started().decode(message)
    assert.strictEqual(failure(pgoutput)?._tag, "DecodeError")
    assert.strictEqual(pgoutput.received, Lsn.zero)
    // Format 1 of wal2json has a whole transaction in one message: no transaction is open when it cannot be read.
    const json = new CopyData({
      plugin: Wal2Json.make({ formatVersion: 1 }),
      slices: portableText,
      run: new Run(),
      context: { slot: "orders" },
      serverLsn: Fake.lsn("0/1000")
    })
    json.decode(BackendMessage.copyBothResponse)
    const read = json.decode(
      Fake.xLogData("0/700", new TextEncoder().encode('{"xid":1,"nextlsn":"0/700","change":[{]}'))
    )
    assert.strictEqual(failure(read)?._tag, "DecodeError")
    assert.isTrue(read.isOpen, "it may have been a transaction")
    assert.strictEqual(read.received, Lsn.zero)
  })

  it("refuses data before the server has accepted the command, rather than lose it", () => {
    const read = make().decode(Fake.concat(Fake.relation(), Fake.transaction("0/100", "0/130", 1)))
    assert.strictEqual(decodeError(read).problem, "data before the server has accepted START_REPLICATION")
  })

  it("refuses a keep-alive that claims WAL far beyond the server's own", () => {
    assert.strictEqual(failure(started().decode(Fake.keepAlive("FFFFFFFF/FFFFFFFF")))?._tag, "DecodeError")
    assert.isUndefined(started().decode(Fake.keepAlive("10/0")).end)
  })

  it("refuses messages and copy data of kinds it does not know, rather than pass over them", () => {
    const unknown = new Uint8Array([0x7a, 0, 0, 0, 4])
    assert.strictEqual(failure(started().decode(unknown))?._tag, "DecodeError")
    assert.strictEqual(failure(started().decode(BackendMessage.copyData(new Uint8Array([0x7a]))))?._tag, "DecodeError")
  })

  it("knows the walsender's own goodbye from an error", () => {
    assert.strictEqual(started().decode(BackendMessage.copyDone).end?._tag, "CopyDone")
    assert.strictEqual(started().decode(BackendMessage.commandComplete("COPY 0")).end?._tag, "CommandComplete")
  })

  it("steps over everything but the end when it skips", () => {
    const copy = started()
    assert.isUndefined(copy.skip(Fake.concat(Fake.relation(), Fake.transaction("0/100", "0/130", 1))))
    const goodbye = Fake.concat(BackendMessage.copyDone, BackendMessage.commandComplete("COPY 0"))
    assert.strictEqual(copy.skip(goodbye)?._tag, "CommandComplete")
  })

  it("knows whether the server has accepted, and refuses that it does so twice", () => {
    const copy = make()
    assert.isFalse(copy.isStreaming)
    copy.decode(BackendMessage.copyBothResponse)
    assert.isTrue(copy.isStreaming)
    assert.include(decodeError(copy.decode(BackendMessage.copyBothResponse)).problem, "a second time")
  })

  it("steps over what a server says beside a stream, and goes on", () => {
    const beside = [0x53, 0x41].map((tag) => new Uint8Array([tag, 0, 0, 0, 6, 97, 0])) // S, A
    const read = started().decode(Fake.concat(...beside, Fake.begin("0/100")))
    assert.isUndefined(read.end)
    assert.deepStrictEqual(tags(read), ["Begin"])
  })

  it("says how many bytes were read, and that nothing was asked of it", () => {
    const bytes = Fake.concat(Fake.transaction("0/100", "0/130", 1), Fake.keepAlive("0/190"))
    const read = started().decode(Fake.concat(Fake.relation(), bytes))
    assert.isUndefined(read.end)
    assert.isFalse(read.isOpen)
    assert.strictEqual(read.bytes, Fake.relation().length + bytes.length)
    assert.isFalse(read.replyRequested)
  })

  it("is open behind a beginning without an end", () => {
    const bytes = Fake.concat(Fake.begin("0/100"), Fake.keepAlive("0/90"))
    const read = started().decode(bytes)
    assert.isTrue(read.isOpen)
    assert.strictEqual(read.bytes, bytes.length)
    assert.isFalse(read.replyRequested)
    assert.strictEqual(started().decode(new Uint8Array(0)).end, undefined)
  })

  it("ends at the end, whatever comes behind it", () => {
    const read = started().decode(Fake.concat(BackendMessage.copyDone, BackendMessage.commandComplete("COPY 0")))
    assert.strictEqual(read.end?._tag, "CopyDone")
    const ready = new Uint8Array([0x5a, 0, 0, 0, 5, 0x49]) // Z
    assert.strictEqual(started().decode(ready).end?._tag, "CommandComplete")
  })

  it("fails with the framing's error, which tells of no message", () => {
    const read = started({ maxFrameLength: 100 }).decode(
      Fake.concat(Fake.keepAlive("0/100"), new Uint8Array([0x64, 0, 1, 0, 0]))
    )
    assert.isUndefined(decodeError(read).lsn)
    assert.strictEqual(read.received, Fake.lsn("0/100"))
    // Also where the message before it has an LSN.
    const behind = started({ maxFrameLength: 100 })
    assert.isUndefined(
      decodeError(behind.decode(Fake.concat(Fake.begin("0/100"), new Uint8Array([0x64, 0, 1, 0, 0])))).lsn
    )
  })

  it("tells the offset within the message, of those that have no LSN as well", () => {
    const error = decodeError(started().decode(Fake.concat(Fake.keepAlive("0/100"), Fake.xLogData("1/AB", unknown))))
    assert.deepInclude(error, { lsn: Fake.lsn("1/AB"), offset: 26 })
    const short = BackendMessage.copyData(Fake.xLogData("0/AB", unknown).subarray(5, 29))
    const cut = decodeError(started().decode(short))
    assert.strictEqual(cut.problem, "an XLogData message cut short")
    assert.isUndefined(cut.lsn)
  })

  it("leaves an error as it is that a plugin's decoder has placed itself", () => {
    const plugin = Pgoutput.make({ publications: ["orders"] })
    const placed = new DecodeError({ problem: "p", offset: 3, lsn: Fake.lsn("0/42") })
    const decode = () => {
      throw placed
    }
    const copy = started({
      plugin: { ...plugin, makeDecoder: (slices) => Object.assign(plugin.makeDecoder(slices), { decode }) }
    })
    assert.strictEqual(failure(copy.decode(Fake.begin("0/100"))), placed)
  })

  it("takes an XLogData message of a header alone for one without a message in it", () => {
    const error = decodeError(started().decode(Fake.xLogData("0/AB", new Uint8Array(0))))
    assert.strictEqual(error.lsn, Fake.lsn("0/AB"))
    assert.notInclude(error.problem, "cut short")
  })

  it("refuses a keep-alive of another length", () => {
    const whole = Fake.keepAlive("0/100").subarray(5)
    for (const payload of [whole.subarray(0, 17), Fake.concat(whole, new Uint8Array([1]))]) {
      const error = decodeError(started().decode(BackendMessage.copyData(payload)))
      assert.strictEqual(error.problem, "a keep-alive of the wrong length")
    }
    const kinds = started().decode(BackendMessage.copyData(new Uint8Array([0x7a])))
    assert.include(decodeError(kinds).problem, "an unknown streaming message of type 0x7a")
    const long = started().decode(BackendMessage.copyData(new Uint8Array(30).fill(0x7a)))
    assert.isUndefined(decodeError(long).lsn, "of no message whose place is known")
    assert.include(decodeError(started().decode(new Uint8Array([0x7a, 0, 0, 0, 4]))).problem, "of type 0x7a")
  })

  it("takes a terabyte beyond what is known, of the server or of the stream, and not a byte more", () => {
    assert.isUndefined(started().decode(Fake.keepAlive("100/1000")).end)
    const beyond = decodeError(started().decode(Fake.keepAlive("100/1001")))
    assert.strictEqual(beyond.problem, "a keep-alive claims the WAL ends at 100/1001, far beyond 0/1000")
    const copy = started()
    assert.isUndefined(copy.decode(Fake.keepAlive("100/0")).end)
    assert.isUndefined(copy.decode(Fake.keepAlive("200/0")).end)
    assert.include(decodeError(copy.decode(Fake.keepAlive("300/1"))).problem, "far beyond 200/0")
  })

  it("takes a message 256 times four gigabytes beyond what is known, and none further on", () => {
    const far = { serverLsn: Fake.lsn("500/0") }
    assert.strictEqual(started(far).decode(typeAt("600/FFFFFFFF")).received, Fake.lsn("600/FFFFFFFF"))
    const beyond = decodeError(started(far).decode(typeAt("601/0")))
    assert.strictEqual(beyond.problem, "a message claims to stand at 601/0, far beyond 500/0")
    const copy = started()
    assert.isUndefined(copy.decode(Fake.concat(typeAt("100/0"), typeAt("200/0"))).end)
    assert.include(decodeError(copy.decode(typeAt("301/0"))).problem, "far beyond 200/0")
  })

  it("keeps the furthest position, by all 64 bits of it", () => {
    const copy = started({ serverLsn: Fake.lsn("FFFFFF00/0") })
    const received = (...messages: ReadonlyArray<Uint8Array>) =>
      Lsn.format(copy.decode(Fake.concat(...messages)).received)
    assert.strictEqual(received(typeAt("8A7B6C5D/9E8F7A6B")), "8A7B6C5D/9E8F7A6B")
    assert.strictEqual(received(typeAt("8A7B6C5D/9E8F7A6A")), "8A7B6C5D/9E8F7A6B")
    assert.strictEqual(received(typeAt("8A7B6C5C/FFFFFFFF")), "8A7B6C5D/9E8F7A6B")
    assert.strictEqual(received(typeAt("8A7B6C5D/9E8F7A6C")), "8A7B6C5D/9E8F7A6C")
    assert.strictEqual(received(Fake.keepAlive("8A7B6C5D/9E8F7A6B")), "8A7B6C5D/9E8F7A6C")
    assert.strictEqual(received(Fake.keepAlive("8A7B6C5D/FE8F7A6D")), "8A7B6C5D/FE8F7A6D")
    assert.strictEqual(received(typeAt("8A7B6C5E/0")), "8A7B6C5E/0")
    assert.strictEqual(received(Fake.keepAlive("8A7B6C5F/0")), "8A7B6C5F/0")
  })

  it("hands on no unit that claims to end beyond the message that tells of its end", () => {
    const commit = (endLsn: string) =>
      Fake.xLogData("0/130", Bytes.commit({ commitLsn: Fake.lsn("0/100"), endLsn: Fake.lsn(endLsn), commitTime: 0 }))
    const exact = started().decode(Fake.concat(Fake.begin("0/100"), commit("0/130")))
    assert.isUndefined(exact.end)
    const before = Fake.concat(Fake.relation(), Fake.transaction("0/80", "0/90", 1), Fake.begin("0/100"))
    const read = started().decode(Fake.concat(before, commit("0/131")))
    assert.strictEqual(decodeError(read).problem, "a unit claims to end at 0/131, beyond 0/130 where its end is told")
    assert.deepStrictEqual(tags(read), ["Begin", "Insert", "Commit", "Begin"])
    assert.deepStrictEqual(
      read.batch.delivered.map(({ lsn }) => lsn),
      [Fake.lsn("0/90")]
    )
    assert.strictEqual(read.received, Fake.lsn("0/90"), "and counts nothing of it as received")
  })

  it("hands on no gathered transaction that claims to end beyond its commit", () => {
    const gathering = () =>
      started({ plugin: Pgoutput.make({ publications: ["orders"], streaming: "parallel" }), inProgress: "gather" })
    const blocks = (xid: number) => Streaming.block(xid, 1).map((bytes) => Fake.xLogData("0/0", bytes))
    const commit = (xid: number, endLsn: string) =>
      Fake.xLogData("0/130", Streaming.streamCommit(xid, Fake.lsn("0/100"), Fake.lsn(endLsn)))
    const read = gathering().decode(Fake.concat(...blocks(8), ...blocks(9), commit(8, "0/130"), commit(9, "0/131")))
    assert.include(decodeError(read).problem, "a unit claims to end at 0/131")
    assert.lengthOf(read.batch.gathered, 1)
    assert.lengthOf(read.batch.delivered, 1)
    const alone = gathering().decode(Fake.concat(...blocks(9), commit(9, "0/131")))
    assert.isEmpty(alone.batch.gathered)
    // What came before it in the read is no part of it.
    const behind = gathering().decode(
      Fake.concat(
        ...blocks(8),
        commit(8, "0/130"),
        Fake.begin("0/100"),
        Fake.commit("0/100", "0/130"),
        Fake.xLogData(
          "0/130",
          Bytes.logicalMessage({ isTransactional: false, lsn: Fake.lsn("0/131"), prefix: "p", content: unknown })
        )
      )
    )
    assert.include(decodeError(behind).problem, "a unit claims to end at 0/131")
    assert.lengthOf(behind.batch.gathered, 1)
    assert.deepStrictEqual(tags(behind), ["Begin", "Commit"])
    assert.strictEqual(gathering().gathering?.bytesInMemory, 0)
    assert.isUndefined(started().gathering)
  })

  it("of a plugin that tells of a unit's end before it takes one that is a record ahead, and none beyond", () => {
    const ending = (nextLsn: string) =>
      started({ plugin: Wal2Json.make({ formatVersion: 1 }) }).decode(
        Fake.xLogData(
          "0/130",
          new TextEncoder().encode(
            `{"xid":1,"nextlsn":"${nextLsn}","timestamp":"2026-11-23 01:21:19.98+00","change":[]}`
          )
        )
      )
    assert.isUndefined(ending("0/40000130").end)
    assert.include(decodeError(ending("0/40000131")).problem, "beyond 0/130")
  })

  it("knows by the server's own clock how far behind it is, and that it is not where nothing is to come", () => {
    const at = (sendTime: number, walData: Uint8Array) =>
      BackendMessage.copyData(
        ReplicationMessage.encodeXLogData({
          walStart: Fake.lsn("0/100"),
          walEnd: Fake.lsn("0/100"),
          sendTime: PgTimestamp.make(sendTime),
          walData
        })
      )
    const commitTime = 5_000_000_000_000
    const begin = Bytes.begin({ commitLsn: Fake.lsn("0/100"), commitTime, xid: 7 })
    const copy = started()
    assert.strictEqual(copy.behindMillis, 0)
    copy.decode(at(commitTime + 2_500_000, Bytes.type(20_000, "public", "mood")))
    assert.strictEqual(copy.behindMillis, 0, "nothing has committed yet")
    copy.decode(at(commitTime + 2_500_000, begin))
    assert.strictEqual(copy.behindMillis, 2500)
    copy.decode(Fake.keepAlive("0/100"))
    assert.strictEqual(copy.behindMillis, 0)
    // A ParameterStatus whose first letter is that of a message of the stream.
    copy.decode(new Uint8Array([0x53, 0, 0, 0, 40, ...new Uint8Array(36).fill(0x77)]))
    assert.strictEqual(copy.behindMillis, 0)
    copy.decode(Fake.concat(Fake.keepAlive("0/100"), at(commitTime + 1000, Bytes.type(20_000, "public", "mood"))))
    assert.strictEqual(copy.behindMillis, 1)
  })

  it("when it skips, says how the stream ends, also where that is by an error or by damage", () => {
    const cancel = BackendMessage.errorResponse({ severity: "FATAL", sqlState: "57P01", message: "going down" })
    const failed = started().skip(Fake.concat(Fake.begin("0/100"), BackendMessage.copyDone, cancel))
    assert.deepInclude(failed?._tag === "Failed" ? failed.error : undefined, { _tag: "ServerError", sqlState: "57P01" })
    const damaged = started().skip(new Uint8Array([0x7a, 0, 0, 0, 4]))
    assert.strictEqual(damaged?._tag === "Failed" ? damaged.error._tag : undefined, "DecodeError")
    assert.isUndefined(started().skip(BackendMessage.copyDone))
  })
})
