/**
 * libpq's `sslmode` and PEM files -> what Node's TLS wants.
 *
 * Files are read anew at each attempt, since certificates are renewed while a stream goes on. What cannot be used is
 * told by the option's name; no key is ever quoted.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-ssl.html
 */
import { createPrivateKey, X509Certificate } from "node:crypto"
import { readFile } from "node:fs/promises"
import * as Tls from "node:tls"
import { InvalidOption } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { PgConfig } from "./PgConfig.ts"

type PemOption = "sslrootcert" | "sslcrl" | "sslcert" | "sslkey"

const isPem = (given: string): boolean => given.includes("-----BEGIN ")

const codeOf = (thrown: unknown): string =>
  thrown instanceof Error && "code" in thrown ? String(thrown.code) : "an unknown error"

const readPem = (option: PemOption, given: string): Effect.Effect<string, InvalidOption> =>
  isPem(given)
    ? Effect.succeed(given)
    : Effect.tryPromise({
        try: (signal) => readFile(given, { encoding: "utf8", signal }),
        catch: (thrown) => new InvalidOption({ option, problem: `the file cannot be read: ${codeOf(thrown)}` })
      })

const checking = <A>(option: PemOption, problem: string, check: () => A): Effect.Effect<A, InvalidOption> =>
  Effect.try({
    try: check,
    catch: (thrown) => new InvalidOption({ option, problem: `${problem} (${codeOf(thrown)})` })
  })

const readCertificates = Effect.fnUntraced(function* (option: PemOption, given: string) {
  const pem = yield* readPem(option, given)
  yield* checking(option, "holds no certificate in PEM form", () => new X509Certificate(pem))
  return pem
})

const readKey = Effect.fnUntraced(function* (given: Redacted.Redacted, passphrase: string | undefined) {
  const key = yield* readPem("sslkey", Redacted.value(given))
  yield* checking("sslkey", "holds no private key in PEM form, or sslpassword does not open it", () =>
    createPrivateKey({ key, ...(passphrase === undefined ? {} : { passphrase }) })
  )
  return key
})

const acceptAnyName = (): undefined => undefined

/**
 * How to do TLS, or `undefined` for plain text. Fails with `InvalidOption` when a file is missing or is not what it
 * should be.
 */
export const tlsOptions = Effect.fnUntraced(function* (
  config: PgConfig
): Effect.fn.Return<Tls.ConnectionOptions | undefined, InvalidOption> {
  const { sslcert, sslkey, sslmode, sslrootcert } = config
  if (sslmode === "disable") return undefined
  const isVerified = sslmode === "verify-ca" || sslmode === "verify-full"
  const passphrase = config.sslpassword && Redacted.value(config.sslpassword)
  const ca =
    isVerified && sslrootcert !== undefined && sslrootcert !== "system"
      ? yield* readCertificates("sslrootcert", sslrootcert)
      : undefined
  const cert = sslcert === undefined ? undefined : yield* readCertificates("sslcert", sslcert)
  const key = sslkey === undefined ? undefined : yield* readKey(sslkey, passphrase)
  // As in libpq: looked at where the certificate is.
  const crl = isVerified && config.sslcrl !== undefined ? yield* readPem("sslcrl", config.sslcrl) : undefined
  if (crl !== undefined) {
    yield* checking("sslcrl", "holds no list of revoked certificates in PEM form", () =>
      Tls.createSecureContext({ crl })
    )
  }
  const minVersion = config.sslMinProtocolVersion
  const maxVersion = config.sslMaxProtocolVersion
  const secureContext = yield* checking("sslkey", "does not belong to sslcert", () =>
    Tls.createSecureContext({ ca, cert, crl, key, passphrase, minVersion, ...(maxVersion && { maxVersion }) })
  )
  return {
    secureContext,
    rejectUnauthorized: isVerified,
    // Without a check of our own Node compares the certificate with the host, names and addresses alike.
    ...(sslmode === "verify-ca" ? { checkServerIdentity: acceptAnyName } : {})
  }
})
