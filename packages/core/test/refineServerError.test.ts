import { assert, describe, it } from "@effect/vitest"
import * as Errors from "../src/ReplicationError.ts"
import { type ErrorContext, refineServerError, serverError } from "../src/refineServerError.ts"

const stages = Errors.Stage.literals

const answer = (sqlState: string, stage: Errors.Stage, fields: Partial<Errors.ServerMessage> = {}) =>
  serverError({ severity: "ERROR", sqlState, message: "eine Meldung", ...fields }, stage)

const refine = (
  sqlState: string,
  context: ErrorContext,
  fields: Partial<Errors.ServerMessage> = {}
): Errors.ReplicationError => refineServerError(answer(sqlState, context.stage, fields), context)

describe("refineServerError", () => {
  const table: ReadonlyArray<
    readonly [sqlState: string, stage: Errors.Stage, tag: Errors.ReplicationError["_tag"], isRetryable: boolean]
  > = [
    ["28P01", "Connect", "AuthenticationFailed", false],
    ["28000", "Connect", "AuthenticationFailed", false],
    ["42501", "Connect", "PermissionDenied", false],
    ["42501", "CreateSlot", "PermissionDenied", false],
    ["42501", "StartReplication", "PermissionDenied", false],
    ["42501", "Query", "PermissionDenied", false],
    ["42704", "StartReplication", "SlotNotFound", false],
    ["42704", "DropSlot", "SlotNotFound", false],
    ["42704", "AlterSlot", "SlotNotFound", false],
    ["42704", "Streaming", "PublicationNotFound", false],
    ["42704", "Query", "ServerError", false],
    ["42704", "CreateSlot", "ServerError", false],
    ["42601", "IdentifySystem", "InvalidOption", false],
    ["42601", "Query", "ServerError", false],
    ["42710", "CreateSlot", "SlotAlreadyExists", false],
    ["42710", "Query", "ServerError", false],
    ["55006", "StartReplication", "SlotInUse", true],
    ["55006", "DropSlot", "SlotInUse", true],
    ["55000", "StartReplication", "ServerError", false],
    ["22023", "StartReplication", "ServerError", false],
    ["0A000", "StartReplication", "ServerError", false],
    ["XX000", "StartReplication", "ServerError", false],
    ["3D000", "Connect", "ServerError", false],
    ["08P01", "Connect", "ServerError", false],
    ["08006", "Streaming", "ServerError", true],
    ["53300", "Connect", "ServerError", true],
    ["53200", "Streaming", "ServerError", true],
    ["53400", "CreateSlot", "ServerError", true],
    ["54000", "Streaming", "ServerError", false],
    ["55P03", "CreateSlot", "ServerError", true],
    ["57014", "Streaming", "ServerError", true],
    ["57P01", "Streaming", "ServerError", true],
    ["57P02", "Streaming", "ServerError", true],
    ["57P03", "Connect", "ServerError", true],
    ["57P04", "Connect", "ServerError", false]
  ]
  it.each(table)("names %s while %s a %s, retryable: %s", (sqlState, stage, tag, isRetryable) => {
    const error = refine(sqlState, { stage, slot: "orders", publications: ["shop"], user: "app" })
    assert.strictEqual(error._tag, tag)
    assert.strictEqual(error.isRetryable, isRetryable)
  })

  it("says the same whatever language the server answers in", () => {
    for (const stage of stages) {
      for (const sqlState of ["28P01", "42501", "42704", "42710", "55006", "55000", "57P01"]) {
        const context: ErrorContext = { stage, slot: "orders", publications: ["shop"] }
        const english = refine(sqlState, context, { message: 'replication slot "x" is active', severity: "ERROR" })
        const french = refine(sqlState, context, { message: "le slot de réplication", severity: "ERROR" })
        assert.strictEqual(english._tag, french._tag)
      }
    }
  })

  it("names the slot, the publications and the user it was about", () => {
    const slot = refine("42704", { stage: "StartReplication", slot: "orders" })
    assert.deepStrictEqual(slot, new Errors.SlotNotFound({ slot: "orders" }))
    const publications = refine("42704", { stage: "Streaming", slot: "orders", publications: ["a", "b"] })
    assert.deepStrictEqual(publications, new Errors.PublicationNotFound({ publications: ["a", "b"] }))
    const permission = refine("42501", { stage: "Connect", user: 'o"brien' })
    assert.strictEqual(permission.remedy, 'ALTER ROLE "o""brien" REPLICATION')
  })

  it("blames no publication when none was asked for", () => {
    assert.strictEqual(refine("42704", { stage: "Streaming", slot: "orders" })._tag, "ServerError")
    assert.strictEqual(refine("42704", { stage: "Streaming", publications: [] })._tag, "ServerError")
  })

  it("blames no slot for something else that is in use", () => {
    assert.strictEqual(refine("55006", { stage: "Query" })._tag, "ServerError")
  })

  it("prefers the server's hint to a guess of ours", () => {
    const hinted = { hint: "List the plugin." }
    assert.strictEqual(refine("42501", { stage: "CreateSlot" }, hinted).remedy, "List the plugin.")
    assert.strictEqual(refine("28000", { stage: "Connect" }, hinted).remedy, "List the plugin.")
    assert.strictEqual(refine("3D000", { stage: "Connect" }, hinted).remedy, "List the plugin.")
  })

  it("blames the list of plugins, not the role, where another plugin than PostgreSQL's own is refused", () => {
    const own = refine("42501", { stage: "CreateSlot", plugin: "pgoutput", user: "app" })
    assert.strictEqual(own.remedy, 'ALTER ROLE "app" REPLICATION')
    const other = refine("42501", { stage: "CreateSlot", plugin: "wal2json", user: "app" })
    assert.include(other.remedy, "output_plugin_libraries")
  })

  it("says of what it cannot name at which stage it came", () => {
    const error = refineServerError(answer("XX000", "Query"), { stage: "CreateSlot" })
    assert.deepInclude(error, { _tag: "ServerError", stage: "CreateSlot", sqlState: "XX000" })
  })

  it("returns what it cannot name untouched", () => {
    const error = answer("XX000", "Streaming")
    assert.strictEqual(refineServerError(error, { stage: "Streaming" }), error)
  })
})

describe("serverError", () => {
  const secret = "4111-1111-1111-1111"
  const quoting = { message: `invalid input: ${secret}`, detail: `Failing row contains (${secret})` }

  it.each(["22003", "22P02", "23505", "23514"])("withholds the text of %s while rows stream", (sqlState) => {
    const error = answer(sqlState, "Streaming", quoting)
    assert.notInclude(JSON.stringify(error), secret)
    assert.notInclude(String(error), secret)
    assert.strictEqual(error.sqlState, sqlState)
  })

  it("keeps every field otherwise", () => {
    const error = answer("55000", "StartReplication", { message: "m", detail: "d", hint: "h", severity: "FATAL" })
    assert.strictEqual(error.serverMessage, "m")
    assert.strictEqual(error.detail, "d")
    assert.strictEqual(error.hint, "h")
    assert.strictEqual(error.stage, "StartReplication")
    assert.strictEqual(error.message, "FATAL 55000: m")
  })
})
