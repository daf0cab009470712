import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Lsn from "../src/Lsn.ts"
import * as Errors from "../src/ReplicationError.ts"

const stages = Errors.Stage.literals

const answer = (sqlState: string, stage: Errors.Stage, fields: Partial<Errors.ServerMessage> = {}) =>
  Errors.serverError({ severity: "ERROR", sqlState, message: "eine Meldung", ...fields }, stage)

const refine = (
  sqlState: string,
  context: Errors.ErrorContext,
  fields: Partial<Errors.ServerMessage> = {}
): Errors.ReplicationError => Errors.refineServerError(answer(sqlState, context.stage, fields), context)

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
    ["42710", "CreateSlot", "SlotAlreadyExists", false],
    ["42710", "Query", "ServerError", false],
    ["55006", "StartReplication", "SlotInUse", true],
    ["55006", "DropSlot", "SlotInUse", true],
    ["55000", "StartReplication", "ServerError", false],
    ["22023", "StartReplication", "ServerError", false],
    ["0A000", "StartReplication", "ServerError", false],
    ["XX000", "StartReplication", "ServerError", false],
    ["3D000", "Connect", "ServerError", false],
    ["08P01", "Connect", "ServerError", true],
    ["08006", "Streaming", "ServerError", true],
    ["53300", "Connect", "ServerError", true],
    ["53200", "Streaming", "ServerError", true],
    ["53400", "CreateSlot", "ServerError", false],
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
        const context: Errors.ErrorContext = { stage, slot: "orders", publications: ["shop"] }
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

  it("returns what it cannot name untouched", () => {
    const error = answer("XX000", "Streaming")
    assert.strictEqual(Errors.refineServerError(error, { stage: "Streaming" }), error)
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

/** One of each, as the union has them: the type check fails when one is missing. */
const every: { readonly [Tag in Errors.ReplicationError["_tag"]]: Extract<Errors.ReplicationError, { _tag: Tag }> } = {
  ConnectionError: new Errors.ConnectionError({ reason: "Reset", detail: "the connection broke" }),
  WalReceiverTimeout: new Errors.WalReceiverTimeout({ receiverTimeout: 30_000 }),
  AuthenticationFailed: new Errors.AuthenticationFailed({ sqlState: "28P01", detail: "no" }),
  PermissionDenied: new Errors.PermissionDenied({ stage: "Connect", detail: "no" }),
  LogicalDecodingDisabled: new Errors.LogicalDecodingDisabled({ walLevel: "replica" }),
  SlotInUse: new Errors.SlotInUse({ slot: "orders", activePid: 42 }),
  SlotNotFound: new Errors.SlotNotFound({ slot: "orders" }),
  SlotAlreadyExists: new Errors.SlotAlreadyExists({ slot: "orders" }),
  SlotInvalidated: new Errors.SlotInvalidated({ slot: "orders", reason: "wal_removed" }),
  SlotMismatch: new Errors.SlotMismatch({
    slot: "orders",
    property: "plugin",
    expected: "pgoutput",
    found: "wal2json"
  }),
  PublicationNotFound: new Errors.PublicationNotFound({ publications: ["shop"] }),
  PublicationMismatch: new Errors.PublicationMismatch({ publication: "shop", problem: "publishes no updates" }),
  InvalidOption: new Errors.InvalidOption({ option: "slot", problem: "is empty" }),
  UnsupportedByServer: new Errors.UnsupportedByServer({
    feature: "FAILOVER",
    serverVersion: 160_009,
    neededVersion: 170_000
  }),
  SystemMismatch: new Errors.SystemMismatch({ property: "systemId", expected: "1", found: "2" }),
  DecodeError: new Errors.DecodeError({ problem: "text that is not UTF-8", offset: 7, lsn: Lsn.fromString("0/1A")! }),
  TransactionTooLarge: new Errors.TransactionTooLarge({ xid: 7, commitLsn: Lsn.zero, bytes: 11, maxBytes: 10 }),
  ServerError: answer("XX000", "Query")
}

describe("ReplicationError", () => {
  it.each(Object.entries(every))(
    "%s has a tag to catch it by, one line of text and an answer on retrying",
    (tag, error) => {
      assert.strictEqual(error._tag, tag)
      assert.instanceOf(error, Error)
      assert.match(error.message, /^[^\n]+$/)
      assert.isBoolean(error.isRetryable)
      assert.isTrue(error.remedy === undefined || error.remedy.length > 0)
    }
  )

  it("survives JSON and comes back as the same class", () => {
    const roundTrip = (codec: Schema.Codec<Errors.ReplicationError, unknown>, error: Errors.ReplicationError) => {
      const json = Schema.toCodecJson(codec)
      return Schema.decodeUnknownSync(json)(JSON.parse(JSON.stringify(Schema.encodeSync(json)(error))))
    }
    const decoded = roundTrip(Errors.DecodeError, every.DecodeError)
    assert.instanceOf(decoded, Errors.DecodeError)
    assert.strictEqual(decoded.message, every.DecodeError.message)
    assert.instanceOf(roundTrip(Errors.SlotInUse, every.SlotInUse), Errors.SlotInUse)
  })

  it("retries what time mends, and nothing else", () => {
    const retryable = Object.values(every).filter((error) => error.isRetryable)
    assert.deepStrictEqual(
      retryable.map((error) => error._tag),
      ["ConnectionError", "WalReceiverTimeout", "SlotInUse"]
    )
    assert.isFalse(new Errors.ConnectionError({ reason: "Tls", detail: "expired" }).isRetryable)
  })

  it("tells where the bytes were that it did not understand", () => {
    assert.strictEqual(every.DecodeError.message, "text that is not UTF-8, at byte 7 of the message at LSN 0/1A")
    assert.strictEqual(new Errors.DecodeError({ problem: "p", offset: 0 }).message, "p, at byte 0")
  })

  it("offers remedies that can be pasted, whatever the names", () => {
    assert.strictEqual(every.SlotInUse.remedy, "wait, or end the other consumer: SELECT pg_terminate_backend(42)")
    assert.strictEqual(
      new Errors.PublicationNotFound({ publications: ['my "pub"'] }).remedy,
      'CREATE PUBLICATION "my ""pub""" FOR TABLE ...'
    )
    assert.strictEqual(every.UnsupportedByServer.remedy, "PostgreSQL 17 or later, or do without")
    assert.include(answer("53300", "Connect").remedy, "max_wal_senders")
    assert.include(answer("53400", "CreateSlot").remedy, "max_replication_slots")
  })
})
