import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Lsn from "../src/Lsn.ts"
import * as Errors from "../src/ReplicationError.ts"

const answer = (sqlState: string, stage: Errors.Stage): Errors.ServerError =>
  new Errors.ServerError({ stage, severity: "ERROR", sqlState, serverMessage: "eine Meldung" })

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
  SlotAheadOfCheckpoint: new Errors.SlotAheadOfCheckpoint({
    slot: "orders",
    checkpoint: Lsn.fromString("0/1A")!,
    confirmedFlushLsn: Lsn.fromString("0/2B")!
  }),
  SlotCreationBlocked: new Errors.SlotCreationBlocked({
    slot: "orders",
    transactions: [{ pid: 42, since: "2026-01-01 00:00:00+00", state: "idle in transaction", applicationName: "psql" }]
  }),
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
  StandbyBehind: new Errors.StandbyBehind({ expected: Lsn.fromString("0/2B")!, found: Lsn.fromString("0/1A")! }),
  DecodeError: new Errors.DecodeError({ problem: "text that is not UTF-8", offset: 7, lsn: Lsn.fromString("0/1A")! }),
  TransactionTooLarge: new Errors.TransactionTooLarge({ xid: 7, commitLsn: Lsn.zero, bytes: 11, maxBytes: 10 }),
  SpillFailed: new Errors.SpillFailed({ during: "write", problem: "no space left on device" }),
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
      ["ConnectionError", "WalReceiverTimeout", "SlotInUse", "SlotCreationBlocked", "StandbyBehind"]
    )
    assert.isFalse(new Errors.ConnectionError({ reason: "Tls", detail: "expired" }).isRetryable)
    const refused = { sqlState: "28P01", detail: "no" }
    assert.isTrue(new Errors.AuthenticationFailed({ ...refused, mayPass: true }).isRetryable)
    assert.isFalse(new Errors.AuthenticationFailed({ ...refused, mayPass: false }).isRetryable)
  })

  it("tells where the bytes were that it did not understand", () => {
    assert.strictEqual(every.DecodeError.message, "text that is not UTF-8, at byte 7 of the message at LSN 0/1A")
    assert.strictEqual(new Errors.DecodeError({ problem: "p", offset: 0 }).message, "p, at byte 0")
  })

  it("takes what a decoder threw for an error of the stream, and lets a mistake in the program through", () => {
    assert.strictEqual(Errors.DecodeError.caught(every.DecodeError), every.DecodeError)
    const mistake = new TypeError("undefined is not a function")
    assert.throws(() => Errors.DecodeError.caught(mistake), mistake.message)
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

  it("has a way out for a change that cannot be sent, whatever the code", () => {
    const done = Lsn.fromString("0/1A")!
    for (const code of ["22021", "22012", "XX001"]) {
      const error = new Errors.ServerError({ ...answer(code, "Streaming"), lsn: done })
      assert.include(error.remedy, "replicant slot advance", code)
      assert.include(error.remedy, "out of the publication", code)
    }
    assert.isUndefined(answer("XX001", "Streaming").remedy)
  })
})
