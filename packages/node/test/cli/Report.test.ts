import { assert, describe, it } from "@effect/vitest"
import {
  AuthenticationFailed,
  ConnectionError,
  InvalidOption,
  PublicationNotFound,
  ServerError,
  SlotInUse,
  SlotNotFound
} from "@replicant/core"
import * as Cause from "effect/Cause"
import { exitCodeOf, failureOf, failureOfDefect, formatFailure, formatLog, UsageError } from "../../src/cli/Report.ts"

const refused = new ConnectionError({ reason: "Refused", detail: "connection to db:5432: nobody listens" })

describe("a failure", () => {
  it("is one line, and its cure another", () => {
    assert.strictEqual(
      formatFailure(failureOf(new SlotNotFound({ slot: "orders" })), "text"),
      'error: replication slot "orders" does not exist\n' +
        "cure: replicant slot create orders, or stream with --create: what was committed before is not in it"
    )
  })

  it("is one JSON object where that was asked for", () => {
    assert.deepStrictEqual(
      JSON.parse(formatFailure(failureOf(new PublicationNotFound({ publications: ["p"] })), "json")),
      {
        level: "error",
        error: "PublicationNotFound",
        message: 'no publication "p" in this database',
        cure: "replicant publication create p --table TABLE"
      }
    )
  })

  it("names the publications that are there where one is not", () => {
    const missing = (available: ReadonlyArray<string>) =>
      failureOf(new PublicationNotFound({ publications: ["p"], available }))
    assert.strictEqual(missing(["a", "b"]).message, 'no publication "p" in this database, which has "a", "b"')
    assert.match(missing(["a"]).cure ?? "", /^name one that is there, or: replicant publication create p/)
    assert.strictEqual(missing([]).message, 'no publication "p" in this database, which has none')
    const many = Array.from({ length: 12 }, (_, index) => `p${index}`)
    assert.match(missing(many).message, /"p9" and 2 more$/)
  })

  it("has a cure in every class that core gives none", () => {
    const errors = [
      refused,
      new AuthenticationFailed({ sqlState: "28P01", detail: "password authentication failed" }),
      new InvalidOption({ option: "url", problem: "is wrong" }),
      new SlotInUse({ slot: "s", activePid: 7 }),
      new ServerError({ stage: "Query", severity: "ERROR", sqlState: "42P01", serverMessage: "no table" }),
      new ServerError({ stage: "Query", severity: "ERROR", sqlState: "99999", serverMessage: "who knows" })
    ]
    for (const error of errors) assert.isNotEmpty(failureOf(error).cure, error._tag)
  })

  it("stays on one line, and lets the server's text do nothing to the terminal", () => {
    const hostile = new ServerError({
      stage: "Query",
      severity: "ERROR",
      sqlState: "99999",
      serverMessage: "first\n  second\u001b[2J\u202e"
    })
    const [line, ...rest] = formatFailure(failureOf(hostile), "text").split("\n")
    assert.strictEqual(line, "error: ERROR 99999: first second\\u{1b}[2J\\u{202e}")
    assert.lengthOf(rest, 1)
  })

  it("repeats no password, wherever it stood", () => {
    for (const message of ["at postgres://me:SECRET@db/shop", "at postgres://me:SEC@RET@db/x", "password=SECRET&x"]) {
      for (const format of ["text", "json"] as const) {
        assert.notMatch(formatFailure({ tag: "x", message, cure: message }, format), /SEC|RET/)
      }
    }
  })

  it("of a defect tells no trace", () => {
    const text = formatFailure(failureOfDefect(Cause.die(new Error("boom"))), "text")
    assert.match(text, /^error: internal error: boom\ncure: report it/)
    assert.notInclude(text, "at ")
  })

  it("exits with 2 for what was refused before anything was done, else with 1", () => {
    assert.strictEqual(exitCodeOf(new UsageError({ message: "", remedy: "" })), 2)
    assert.strictEqual(exitCodeOf(new InvalidOption({ option: "slot", problem: "" })), 2)
    assert.strictEqual(exitCodeOf(refused), 1)
  })
})

describe("a log message", () => {
  const entry = { level: "Warn", message: ["reconnecting", "soon"], annotations: { slot: "s" } } as const

  it("is one line, or one JSON object with its annotations", () => {
    assert.strictEqual(formatLog(entry, "text"), "warning: reconnecting soon")
    assert.deepStrictEqual(JSON.parse(formatLog(entry, "json")), {
      level: "warning",
      message: "reconnecting soon",
      slot: "s"
    })
  })
})
