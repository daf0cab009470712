import { assert, describe, it } from "@effect/vitest"
import { type ConnectionError, DecodeError } from "@replicant/core"
import pg from "pg"
import { connectFailure, connectionError, isWithoutTls, type Peer, queryFailure } from "../../src/pg/PgServerError.ts"

const peer: Peer = {
  host: "db",
  port: 5432,
  user: "me",
  database: "shop",
  sslmode: "verify-full",
  sslnegotiation: "postgres"
}

const coded = (code: string, message = "it broke") => Object.assign(new Error(message), { code })

const response = (code: string, message = "no") =>
  Object.assign(new pg.DatabaseError(message, 0, "error"), { code, severity: "FATAL" })

describe("connectionError", () => {
  it("tells by a system error's code how the connection was lost", () => {
    const reasons: Record<string, ConnectionError["reason"]> = {
      ECONNREFUSED: "Refused",
      ENOENT: "Refused",
      EHOSTUNREACH: "Refused",
      ENOTFOUND: "HostNotFound",
      EAI_AGAIN: "HostNotFound",
      ETIMEDOUT: "TimedOut",
      ECONNRESET: "Reset",
      EPIPE: "Reset"
    }
    for (const [code, reason] of Object.entries(reasons)) {
      const error = connectionError(coded(code), peer)
      assert.strictEqual(error.reason, reason)
      assert.isTrue(error.isRetryable)
      assert.include(error.message, "db:5432")
      assert.include(error.message, code)
    }
  })

  it("takes a failed certificate for a lasting fault of TLS, with what was wrong about it", () => {
    for (const code of [
      "SELF_SIGNED_CERT_IN_CHAIN",
      "DEPTH_ZERO_SELF_SIGNED_CERT",
      "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
      "CERT_HAS_EXPIRED",
      "ERR_TLS_CERT_ALTNAME_INVALID",
      "ERR_SSL_WRONG_VERSION_NUMBER",
      "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA",
      "EPROTO"
    ]) {
      const error = connectionError(coded(code, "what is wrong"), peer)
      assert.strictEqual(error.reason, "Tls")
      assert.isFalse(error.isRetryable)
      assert.include(error.message, "what is wrong")
      assert.isDefined(error.remedy)
    }
  })

  it("takes a server without TLS for a lasting fault", () => {
    const thrown = new Error("The server does not support SSL connections")
    assert.isTrue(isWithoutTls(thrown))
    assert.strictEqual(connectionError(thrown, peer).reason, "Tls")
    assert.isFalse(connectionError(thrown, peer).isRetryable)
  })

  it("takes an end without a word, and what it does not know, for a close", () => {
    for (const thrown of [undefined, new Error("Connection terminated unexpectedly"), coded("ERR_STREAM_DESTROYED")]) {
      const error = connectionError(thrown, peer)
      assert.strictEqual(error.reason, "Closed")
      assert.include(error.message, "the server closed the connection")
    }
  })

  it("does not repeat the text of an error it does not know", () => {
    assert.notInclude(connectionError(new Error("password hunter2"), peer).message, "hunter2")
  })

  it("names an IPv6 address and a socket so that they can be read", () => {
    assert.include(connectionError(undefined, { ...peer, host: "::1" }).message, "[::1]:5432")
    assert.include(connectionError(undefined, { ...peer, host: "/tmp" }).message, "/tmp/.s.PGSQL.5432")
  })
})

describe("connectFailure", () => {
  it("names an ErrorResponse by its SQLSTATE", () => {
    assert.strictEqual(connectFailure(response("28P01"), peer)._tag, "AuthenticationFailed")
    assert.strictEqual(connectFailure(response("28000"), peer)._tag, "AuthenticationFailed")
    const denied = connectFailure(response("42501"), peer)
    assert.strictEqual(denied._tag, "PermissionDenied")
    assert.strictEqual(denied.remedy, 'ALTER ROLE "me" REPLICATION; GRANT CONNECT ON DATABASE "shop" TO "me"')
  })

  it("[X3] names TLS among the cures where a connection without it is not admitted", () => {
    const plain = { ...peer, sslmode: "disable" } as const
    const rejected = connectFailure(response("28000"), plain)
    assert.deepInclude(rejected, { _tag: "AuthenticationFailed", sqlState: "28000", isRetryable: false })
    assert.include(rejected.remedy, "sslmode")
    for (const other of [connectFailure(response("28000"), peer), connectFailure(response("28P01"), plain)]) {
      assert.notInclude(other.remedy, "sslmode")
    }
  })

  it("tells what of pg_hba.conf may be meant, by whether the connection was encrypted", () => {
    const remedy = (sslmode: Peer["sslmode"], isEncrypted: boolean, host = "db") =>
      connectFailure(response("28000"), { ...peer, host, sslmode }, isEncrypted).remedy ?? ""
    assert.match(remedy("prefer", true), /hostnossl, set sslmode to disable/)
    assert.match(remedy("prefer", false), /hostssl, set ssl = on at the server/)
    assert.match(remedy("disable", false), /hostssl, set sslmode to verify-full/)
    assert.notInclude(remedy("disable", false, "/tmp"), "sslmode")
  })

  it("retries a server that is starting or full, and not one without the database", () => {
    assert.isTrue(connectFailure(response("57P03"), peer).isRetryable)
    assert.isTrue(connectFailure(response("53300"), peer).isRetryable)
    assert.isFalse(connectFailure(response("3D000"), peer).isRetryable)
  })

  it("tells a pooler by its answer, and what to do", () => {
    const error = connectFailure(response("08P01", "unsupported startup parameter: replication"), peer)
    assert.strictEqual(error._tag, "InvalidOption")
    assert.isFalse(error.isRetryable)
    assert.strictEqual(error.remedy, "connect to PostgreSQL directly")
  })

  it("retries a pooler that is merely full", () => {
    assert.isTrue(connectFailure(response("08P01", "no more connections allowed"), peer).isRetryable)
  })

  it("takes a failed SCRAM exchange for failed authentication, with no SQLSTATE that nobody sent", () => {
    const error = connectFailure(new Error("SASL: SCRAM-SERVER-FINAL-MESSAGE: server signature does not match"), peer)
    assert.strictEqual(error._tag, "AuthenticationFailed")
    assert.include(error.message, "server signature does not match")
    assert.isFalse(error.isRetryable)
  })

  it("takes a message of no known type for a DecodeError", () => {
    assert.strictEqual(
      connectFailure(new pg.DatabaseError("received invalid response", 1, "error"), peer)._tag,
      "DecodeError"
    )
  })

  it("lets errors that are ours already pass", () => {
    const ours = new DecodeError({ problem: "nonsense", offset: 0 })
    assert.strictEqual(connectFailure(ours, peer), ours)
  })
})

describe("queryFailure", () => {
  it("keeps a server's error whole, for the caller to refine", () => {
    const thrown = Object.assign(response("42704", "slot gone"), { severity: "ERROR", detail: "d", hint: "h" })
    const error = queryFailure(thrown, peer)
    assert.strictEqual(error._tag, "ServerError")
    assert.deepInclude(error, {
      stage: "Query",
      severity: "ERROR",
      sqlState: "42704",
      serverMessage: "slot gone",
      detail: "d",
      hint: "h"
    })
  })

  it("takes anything else for the loss of the connection", () => {
    assert.deepInclude(queryFailure(coded("ECONNRESET"), peer), { _tag: "ConnectionError", reason: "Reset" })
  })
})
