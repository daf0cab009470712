/** What a doctor makes of facts, of what is refused, and of a plan: no server is needed. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Check from "../../src/doctor/Check.ts"
import * as Doctor from "../../src/doctor/Doctor.ts"
import { ConnectionError, PermissionDenied, type ReplicationError, ServerError } from "../../src/ReplicationError.ts"
import { type QueryRow, WalSender } from "../../src/server/WalSender.ts"

const who = {
  role: 'o"neil',
  database: "shop",
  isSuperuser: false,
  isInRecovery: false,
  encoding: "UTF8",
  startedAt: "1",
  providerRoles: []
}

/** A session that answers what is asked for by `SELECT …`, in the words of `answers`. */
const session = (answer: (text: string) => unknown): Doctor.Session => ({
  serverVersion: 180_000,
  query: (text) => {
    if (text.startsWith("SET ")) return Effect.succeed([])
    if (text === "IDENTIFY_SYSTEM") {
      return Effect.succeed([{ systemid: "1", timeline: "1", xlogpos: "0/1", dbname: "shop" }])
    }
    const said = text.includes("providerRoles") ? who : answer(text)
    return said instanceof Error
      ? Effect.fail(said as ReplicationError)
      : Effect.succeed<ReadonlyArray<QueryRow>>([{ facts: JSON.stringify(said) }])
  }
})

const opening = (opened: Doctor.Session | ReplicationError) =>
  opened instanceof Error ? Effect.fail(opened) : Effect.succeed(opened as never)

/** A server that opens a walsender so, and an ordinary session. */
const connected = (walSender: Doctor.Session | ReplicationError, ordinary = walSender) =>
  Effect.provideService(WalSender, WalSender.of({ connect: opening(walSender), openSession: opening(ordinary) }))

const denied = new ServerError({
  stage: "Query",
  severity: "ERROR",
  sqlState: "42501",
  serverMessage: "permission denied for view v"
})

const number = (name: string, text: string): Check.Fact<number> => ({
  name,
  what: `the ${name}`,
  server: "source",
  read: ({ session }) => Check.ask(session, name, Schema.Number, text)
})

const [one, two] = [number("one", "1"), number("two", "2")]

const checkOf = (id: string, ...facts: ReadonlyArray<Check.Fact<number>>): Doctor.Check =>
  Check.make(
    { id, about: id, page: "docs/doctor.md" },
    Object.fromEntries(facts.map((fact) => [fact.name, fact])),
    (values) => [{ severity: "warning", seen: Object.values(values).join(), consequence: "" }]
  )

const onlyOurs = (report: Doctor.Report) =>
  report.findings
    .filter(({ id }) => /^(first|second|unseen\.(one|two)$)/.test(id))
    .map(({ id, seen }) => `${id} ${seen}`)

describe("Doctor.run", () => {
  it.effect("asks each fact once, however many checks need it", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const opened = session((text) => {
        asked.push(text)
        return text === "SELECT 1 AS facts" ? 1 : text === "SELECT 2 AS facts" ? 2 : denied
      })
      const extra = [checkOf("first", one), checkOf("second", one, two)]
      const report = yield* Doctor.run({}, extra).pipe(connected(opened))
      assert.deepStrictEqual(onlyOurs(report), ["first 1", "second 1,2"])
      assert.strictEqual(asked.filter((text) => text === "SELECT 1 AS facts").length, 1)
    })
  )

  it.effect("tells of a fact that it may not read, with the grant, and carries out the other checks", () =>
    Effect.gen(function* () {
      const opened = session((text) => (text === "SELECT 1 AS facts" ? 1 : denied))
      const extra = [checkOf("first", one), checkOf("second", two)]
      const report = yield* Doctor.run({}, extra).pipe(connected(opened))
      const [unseen] = report.findings.filter(({ id }) => id === "unseen.two")
      assert.deepInclude(unseen, { severity: "unseen", server: "source" })
      assert.deepStrictEqual(unseen?.cure.sql, ['GRANT pg_monitor TO "o""neil"'])
      assert.include(report.checked, "first")
      assert.notInclude(report.checked, "second")
      assert.strictEqual(Doctor.verdict(report), "unwell")
    })
  )

  it.effect("tells once of a connection that is lost, and asks nothing more over it", () =>
    Effect.gen(function* () {
      let isLost = false
      const opened = session((text) => {
        assert.isFalse(isLost, text)
        isLost = true
        return new ConnectionError({ reason: "Reset", detail: "connection reset" })
      })
      const report = yield* Doctor.run({}, [checkOf("first", one)]).pipe(connected(opened))
      assert.strictEqual(report.findings.filter(({ severity }) => severity === "unseen").length, 1)
    })
  )

  it.effect("says that it could not look at a server that nobody reaches, and fails not", () =>
    Effect.gen(function* () {
      const refused = new ConnectionError({ reason: "Refused", detail: "nobody listens", remedy: "start it" })
      const report = yield* Doctor.run({ target: Effect.fail(refused) }).pipe(connected(refused))
      assert.isNull(report.server)
      assert.deepStrictEqual(
        report.findings.map(({ id, cure }) => [id, cure.advice]),
        [
          ["unseen.source", "start it"],
          ["unseen.target", "start it"]
        ]
      )
      assert.strictEqual(Doctor.verdict(report), "unsure")
    })
  )

  it.effect("looks over an ordinary session where a walsender is refused, and says what is lacking", () =>
    Effect.gen(function* () {
      const refusal = new PermissionDenied({ stage: "Connect", detail: "no REPLICATION" })
      const ordinary = session((text) => (text === "SELECT 1 AS facts" ? 1 : denied))
      const report = yield* Doctor.run({}, [checkOf("first", one)]).pipe(connected(refusal, ordinary))
      const [finding] = report.findings.filter(({ id }) => id === "role.replication")
      assert.deepStrictEqual(finding?.cure.sql, ['ALTER ROLE "o""neil" REPLICATION'])
      assert.include(report.checked, "first")
    })
  )

  it.effect("refuses a plan that makes no sense before anything is opened", () =>
    Effect.gen(function* () {
      const never = connected(new ConnectionError({ reason: "Refused", detail: "must not be asked" }))
      for (const plan of [{ slot: "No Slot" }, { publications: ["a\0"] }, { tables: ["a\0"] }]) {
        assert.strictEqual((yield* Effect.flip(Doctor.run(plan).pipe(never)))._tag, "InvalidOption")
      }
    })
  )
})

const finding = (overrides: Partial<Doctor.Finding>): Doctor.Finding => ({
  id: "slot.lost",
  severity: "error",
  server: "source",
  seen: "it is lost",
  consequence: "nothing comes",
  cure: { sql: [] },
  page: "docs/doctor.md",
  ...overrides
})

const reportOf = (...findings: ReadonlyArray<Doctor.Finding>): Doctor.Report => ({
  server: null,
  checked: [],
  findings
})

describe("a report", () => {
  it("is unwell by an error or a warning, unsure by what was not seen, and well with notes", () => {
    const verdicts = (["error", "warning", "unseen", "note"] as const).map((severity) =>
      Doctor.verdict(reportOf(finding({ severity })))
    )
    assert.deepStrictEqual(verdicts, ["unwell", "unwell", "unsure", "well"])
    assert.strictEqual(Doctor.verdict(reportOf(finding({ severity: "unseen" }), finding({}))), "unwell")
  })

  it("is one document by its Schema", () => {
    const report = reportOf(finding({ subject: "orders", cure: { sql: ["SELECT 1"], right: "none" } }))
    const decoded = Schema.decodeUnknownSync(Doctor.Report)(JSON.parse(JSON.stringify(report)))
    assert.deepStrictEqual(decoded, report)
  })
})

describe("Doctor.script", () => {
  it("has each statement once, by server, under what it is for", () => {
    const cure = { sql: ["SELECT 1", "SELECT 2;"], right: "a superuser" }
    const text = Doctor.script(
      reportOf(finding({ cure }), finding({ id: "again", cure }), finding({ server: "target", cure }))
    )
    assert.strictEqual(text.match(/^SELECT 1;$/gm)?.length, 2)
    assert.strictEqual(text.match(/^SELECT 2;$/gm)?.length, 2)
    assert.include(text, "-- takes a superuser")
    assert.isBelow(text.indexOf("at the source"), text.indexOf("at the target"))
  })

  it("comments out whatever loses something, line by line, and what a note would change", () => {
    const text = Doctor.script(
      reportOf(
        finding({ cure: { sql: ["SELECT a\nFROM b"], risk: "rows are lost" } }),
        finding({ severity: "note", cure: { sql: ["SELECT 3"] } })
      )
    )
    for (const line of text.split("\n")) assert.match(line, /^(--.*)?$/)
    assert.include(text, "rows are lost")
  })

  it("lets no name out of its comment", () => {
    const text = Doctor.script(reportOf(finding({ seen: "slot\nDROP TABLE t;", cure: { sql: ["SELECT 1"] } })))
    assert.notMatch(text, /^DROP/m)
  })
})
