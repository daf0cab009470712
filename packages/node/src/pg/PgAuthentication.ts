/**
 * What a server may ask of us before it lets us in, and what we refuse to answer.
 *
 * `pg` answers whatever it is asked, in whatever order, and checks the server's proof only if the server cares to give
 * one. What is refused here ends the connection before a byte of an answer is written.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP
 */
import type { EventEmitter } from "node:events"
import type { Socket } from "node:net"
import { AuthenticationFailed, DecodeError } from "@replicant/core"
import type { PgConfig } from "./PgConfig.ts"
import type { AuthMethod } from "./PgOptions.ts"

/** The part of `pg`'s connection that is watched: its events, and the socket of now. */
interface Watched extends EventEmitter {
  readonly stream: Socket
}

/**
 * The most rounds of SCRAM's hash that a server may ask for: under a second of one core, beside the event loop. PostgreSQL asks for 4096
 * unless `scram_iterations` says otherwise; a server that asks for 2^31 wants our time.
 */
export const maxScramIterations = 1_000_000

/** Authentication failed on our side: no server said so, and there is no SQLSTATE to tell. */
export const authenticationFailed = (
  { user }: Pick<PgConfig, "user">,
  problem: string,
  remedy: string
): AuthenticationFailed =>
  new AuthenticationFailed({ sqlState: "", detail: `authentication as "${user}" failed: ${problem}`, remedy })

/** The server wants a password, and there is none. */
export const noPassword = (config: PgConfig): AuthenticationFailed =>
  authenticationFailed(
    config,
    "the server asks for a password, and none is given",
    "give a password, or set PGPASSWORD"
  )

/** A socket's directory, or an address of this machine: nobody listens in between. */
export const isLocal = (host: string): boolean => host.startsWith("/") || /^(localhost|127\..*|::1)$/.test(host)

const useScram = "let pg_hba.conf ask for scram-sha-256, or set sslmode to verify-full"

/** Why a method is not answered on this connection, and what to do. */
const objection = (
  method: AuthMethod,
  { host, requireAuth }: PgConfig,
  isTls: boolean
): readonly [problem: string, remedy: string] | undefined => {
  if (requireAuth !== undefined && !requireAuth.has(method)) {
    const asked = method === "none" ? "for no password" : `for ${method}`
    return [`the server asks ${asked}, which requireAuth does not allow`, "check pg_hba.conf, or change requireAuth"]
  }
  if (isTls) return undefined
  if (method === "password" && !host.startsWith("/")) {
    return ["the server asks for the password in plain text, on a connection without TLS", useScram]
  }
  // Whoever listens could try passwords at leisure. By its name it is allowed all the same.
  if (method === "md5" && !isLocal(host) && requireAuth === undefined) {
    return ["the server asks for an MD5 hash of the password, on a connection without TLS", useScram]
  }
  return undefined
}

/** Watches a connection's authentication. What it gives is the error with which it refused, if it did. */
export const guardAuthentication = (
  connection: Watched,
  config: PgConfig,
  isTls: boolean
): (() => AuthenticationFailed | DecodeError | undefined) => {
  const needsBinding = config.channelBinding === "require"
  let refused: AuthenticationFailed | DecodeError | undefined
  let asked: AuthMethod | undefined
  /** How far SCRAM is: the server was told its methods, has sent its salt, has shown that it knows the password. */
  let scram: "none" | "begun" | "continued" | "proven" = "none"

  const refuse = (error: AuthenticationFailed | DecodeError): void => {
    refused ??= error
    connection.stream.destroy(error)
  }
  const answer = (method: AuthMethod): void => {
    const problem = objection(method, config, isTls)
    if (problem !== undefined) refuse(authenticationFailed(config, ...problem))
    if (asked !== undefined) outOfOrder()
    asked = method
  }
  const outOfOrder = (): void => refuse(new DecodeError({ problem: "authentication messages out of order", offset: 0 }))
  const refuseUnbound = (): void =>
    refuse(
      authenticationFailed(
        config,
        "the server does not bind authentication to the TLS connection",
        "set channelBinding to prefer"
      )
    )

  connection.on("authenticationCleartextPassword", () => {
    if (needsBinding) refuseUnbound()
    answer("password")
  })
  connection.on("authenticationMD5Password", () => {
    if (needsBinding) refuseUnbound()
    answer("md5")
  })
  connection.on("authenticationSASL", ({ mechanisms }: { readonly mechanisms: ReadonlyArray<string> }) => {
    if (needsBinding && !mechanisms.includes("SCRAM-SHA-256-PLUS")) refuseUnbound()
    answer("scram-sha-256")
    scram = "begun"
  })
  connection.on("authenticationSASLContinue", () => {
    if (scram !== "begun") outOfOrder()
    scram = "continued"
  })
  connection.on("authenticationSASLFinal", () => {
    // Whether its proof holds is for `pg` to say, right after.
    if (scram !== "continued") outOfOrder()
    scram = "proven"
  })
  connection.on("authenticationOk", () => {
    if (needsBinding && scram !== "proven") refuseUnbound()
    if (asked === undefined) answer("none")
    else if (asked === "scram-sha-256" && scram !== "proven") {
      refuse(
        authenticationFailed(
          config,
          "the server lets us in without showing that it knows the password",
          "check that host leads to the server that knows it"
        )
      )
    }
  })
  return () => refused
}
