/** Certificates for tests of TLS, made by the machine's openssl and gone with their directory. */
import { execFile } from "node:child_process"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { Effect, type Scope } from "effect"

const run = promisify(execFile)

/** A certificate and its key, as PEM text and as files. */
export interface Certificate {
  readonly cert: string
  readonly key: string
  readonly certFile: string
  readonly keyFile: string
}

export interface Certificates {
  /** An authority, and one that signed nothing we meet. */
  readonly authority: Certificate
  readonly otherAuthority: Certificate
  /** A server's, for the name `localhost` alone. */
  readonly server: Certificate
  /** Another's, for the same name and from the same authority, and one of its kind that has expired. */
  readonly intruder: Certificate
  readonly expired: Certificate
  /** A client's, for the role `carl`. */
  readonly client: Certificate
}

const newKey = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]

export const makeCertificates: Effect.Effect<Certificates, never, Scope.Scope> = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "replicant-tls-"))),
    (path) => Effect.promise(() => rm(path, { recursive: true }))
  )
  const file = (name: string): string => join(directory, name)
  const read = async (name: string): Promise<Certificate> => {
    const [certFile, keyFile] = [file(`${name}.crt`), file(`${name}.key`)]
    const [cert, key] = await Promise.all([readFile(certFile, "utf8"), readFile(keyFile, "utf8")])
    return { cert, key, certFile, keyFile }
  }
  const make = (name: string, ...args: ReadonlyArray<string>): Effect.Effect<Certificate> =>
    Effect.promise(async () => {
      await run("openssl", [...newKey, "-keyout", file(`${name}.key`), "-out", file(`${name}.crt`), ...args])
      return read(name)
    })
  const authority = yield* make("authority", "-subj", "/CN=Replicant test authority")
  const otherAuthority = yield* make("other", "-subj", "/CN=Another authority")
  const signed = [
    "-CA",
    authority.certFile,
    "-CAkey",
    authority.keyFile,
    "-addext",
    "basicConstraints=critical,CA:FALSE"
  ]
  const localhost = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
  const server = yield* make("server", ...localhost, ...signed)
  const intruder = yield* make("intruder", ...localhost, ...signed)
  const client = yield* make("client", "-subj", "/CN=carl", ...signed)
  // `req` makes none that has expired already.
  const expired = yield* Effect.promise(async () => {
    const request = [...newKey.filter((word) => word !== "-x509"), ...localhost]
    await run("openssl", [...request, "-keyout", file("expired.key"), "-out", file("expired.csr")])
    const issuer = ["-CA", authority.certFile, "-CAkey", authority.keyFile, "-copy_extensions", "copyall"]
    const args = ["x509", "-req", "-in", file("expired.csr"), ...issuer, "-days", "-1", "-out", file("expired.crt")]
    await run("openssl", args)
    return read("expired")
  })
  return { authority, otherAuthority, server, intruder, expired, client }
})
