import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import { commitTime, decodeFormat1, decodeFormat2, zipColumns } from "../../src/wal2json/Wal2JsonMessage.ts"

describe("Wal2JsonMessage", () => {
  it("keeps a commit's microseconds, whatever the session's time zone", () => {
    const instant = "2026-11-23T00:51:58.614566Z"
    for (const text of [
      "2026-11-23 00:51:58.614566+00",
      "2026-11-23 06:21:58.614566+05:30",
      "2026-11-22 21:51:58.614566-03",
      "2026-11-22 20:06:43.614566-04:45:15"
    ]) {
      assert.strictEqual(PgTimestamp.format(commitTime(text)!), instant)
    }
    assert.strictEqual(commitTime("2000-01-01 00:00:00+00"), 0)
    assert.strictEqual(commitTime("2000-01-01 00:00:00.61783+00"), 617_830)
    assert.strictEqual(commitTime("1999-12-31 23:59:59.999999+00"), -1)
  })

  it("takes nothing else for a commit's timestamp", () => {
    for (const text of [
      "",
      "infinity",
      "2026-11-23",
      "23.11.2026 00:51:58+00",
      "2026-11-23 00:51:58",
      "2026-11-23T00:51:58Z"
    ]) {
      assert.isUndefined(commitTime(text), text)
    }
  })

  it("puts format 1's lists together, and refuses such as differ in length", () => {
    assert.deepStrictEqual(zipColumns(["a"], ["integer"], ["23"], ["1"]), [
      { name: "a", type: "integer", typeoid: "23", value: "1" }
    ])
    assert.isUndefined(zipColumns(["a", "b"], ["integer"], ["23", "23"], ["1", "2"]))
    assert.isUndefined(zipColumns(["a"], undefined, [], ["1"]))
    assert.isUndefined(zipColumns(["a"], undefined, ["23"], []))
  })

  it("lets members pass that it does not know, and no others be missing or of another type", () => {
    const begin = { action: "B", xid: "1", timestamp: "x", lsn: "0/1", nextlsn: "0/2" }
    assert.isTrue(Result.isSuccess(decodeFormat2({ ...begin, future: [{}] })))
    for (const broken of [
      {},
      [],
      null,
      "B",
      { ...begin, action: "Z" },
      { ...begin, xid: "-1" },
      { ...begin, xid: null },
      { ...begin, lsn: "0" },
      { ...begin, lsn: undefined },
      { ...begin, nextlsn: "0/123456789" },
      { action: "D", xid: "1", schema: "s", table: "t", pk: [] }
    ]) {
      assert.isTrue(Result.isFailure(decodeFormat2(broken)), JSON.stringify(broken))
    }
  })

  it("tells a transaction of format 1 from a message outside any", () => {
    const message = { kind: "message", transactional: false, prefix: "p", content: "c" }
    const transaction = { xid: "1", timestamp: "x", nextlsn: "0/2", change: [] }
    assert.isTrue(Result.isSuccess(decodeFormat1({ change: [message] })))
    assert.isTrue(Result.isSuccess(decodeFormat1(transaction)))
    assert.isTrue(Result.isFailure(decodeFormat1({ change: [] })))
    assert.isTrue(Result.isFailure(decodeFormat1({ ...transaction, nextlsn: undefined })))
  })
})
