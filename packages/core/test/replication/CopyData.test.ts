import { assert, describe, it } from "@effect/vitest"
import { Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { CopyData } from "../../src/replication/CopyData.ts"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import * as Fake from "../support/FakeWalSender.ts"

const make = () =>
  new CopyData({
    plugin: Pgoutput.make({ publications: ["orders"] }),
    slices: portableText,
    run: new Run(),
    context: { slot: "orders", publications: ["orders"] },
    serverLsn: Fake.lsn("0/1000")
  })

const started = () => {
  const copy = make()
  copy.decode(BackendMessage.copyBothResponse)
  return copy
}

const tags = (read: ReturnType<CopyData["decode"]>) => read.batch.changes.map((change) => change._tag)

const failure = (read: ReturnType<CopyData["decode"]>) => (read.end?._tag === "Failed" ? read.end.error : undefined)

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
    assert.strictEqual(failure(read)?._tag, "DecodeError")
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
})
