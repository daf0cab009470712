/**
 * A server on loopback that says what it is told to, byte by byte, and hears what it is told: for peers that are silent,
 * hostile, or no PostgreSQL at all. It knows the frames of messages, and enough of SCRAM to break it.
 */
import { createHmac, pbkdf2Sync } from "node:crypto"
import * as Net from "node:net"
import * as Tls from "node:tls"
import type { ReplicationError } from "@replicant/core"
import { Effect, Redacted, Result, type Scope } from "effect"
import * as PgConfig from "../../src/pg/PgConfig.ts"
import * as PgWalSender from "../../src/pg/PgWalSender.ts"

/** A message of the protocol: its type, its length, its parts. */
export const message = (type: string, ...parts: ReadonlyArray<string | Uint8Array>): Buffer => {
  const payload = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)))
  const header = Buffer.alloc(5)
  header.write(type)
  header.writeInt32BE(payload.length + 4, 1)
  return Buffer.concat([header, payload])
}

export const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

export const ready = message("Z", "I")

export const authenticationOk = message("R", int32(0))

/** Everything between a startup message and the first query. */
export const authenticated = Buffer.concat([authenticationOk, ready])

/** One row of text values. */
export const row = (values: Readonly<Record<string, string>>): Buffer => {
  const entries = Object.entries(values)
  const count = Buffer.from([0, entries.length])
  const fields = entries.flatMap(([name]) => [`${name}\0`, Buffer.alloc(6), int32(25), Buffer.alloc(8)])
  const columns = entries.flatMap(([, value]) => [int32(Buffer.byteLength(value)), value])
  return Buffer.concat([message("T", count, ...fields), message("D", count, ...columns), message("C", "SHOW\0"), ready])
}

/** The answer to the driver's first query. */
export const version = row({ server_version_num: "180004" })

export const notice = message("N", "SWARNING\0", "C01000\0", "Mmind\0", "\0")

export const errorResponse = (code: string, text: string): Buffer =>
  message("E", "SFATAL\0", `C${code}\0`, `M${text}\0`, "\0")

/** What it says to a chunk it heard: bytes, `end` to close, or nothing. */
export type Saying = Uint8Array | "end" | undefined
export type Answer = Saying | ((heard: Buffer) => Saying)

export interface FakeServer {
  readonly port: number
  /** Everything the client said, a chunk a turn. Within TLS, what it said there. */
  readonly heard: ReadonlyArray<Buffer>
  /** How many connections are open, and how many ever were. */
  readonly open: () => number
  readonly accepted: () => number
  readonly say: (bytes: Uint8Array) => void
}

export interface FakeServerOptions {
  /** Answers the first message, which asks for TLS, with TLS; what follows counts as turns. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined
}

/** A server that answers the client's n-th chunk with the n-th answer. After that, silence. */
export const fakeServer = (
  answers: ReadonlyArray<Answer> | (() => ReadonlyArray<Answer>),
  { tls }: FakeServerOptions = {}
): Effect.Effect<FakeServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<FakeServer & { readonly stop: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const heard: Array<Buffer> = []
      let accepted = 0
      const converse = (socket: Net.Socket): void => {
        const script = typeof answers === "function" ? answers() : answers
        let turn = 0
        socket.on("error", () => undefined)
        socket.on("data", (chunk) => {
          heard.push(chunk)
          const answer = script[turn++]
          const said = typeof answer === "function" ? answer(chunk) : answer
          if (said === "end") socket.end()
          else if (said !== undefined) socket.write(said)
        })
      }
      const server = Net.createServer((socket) => {
        accepted += 1
        sockets.add(socket)
        socket.on("error", () => undefined)
        socket.on("close", () => sockets.delete(socket))
        if (tls === undefined) return converse(socket)
        socket.once("data", () => {
          socket.write("S")
          converse(new Tls.TLSSocket(socket, { isServer: true, ...tls }))
        })
      })
      server.listen(0, "127.0.0.1", () =>
        resume(
          Effect.succeed({
            port: (server.address() as Net.AddressInfo).port,
            heard,
            open: () => sockets.size,
            accepted: () => accepted,
            say: (bytes) => sockets.forEach((socket) => void socket.write(bytes)),
            stop: () => {
              for (const socket of sockets) socket.destroy()
              server.close()
            }
          })
        )
      )
    }),
    (server) => Effect.sync(server.stop)
  )

export interface ScramOptions {
  readonly password: string
  readonly mechanisms?: ReadonlyArray<string> | undefined
  readonly iterations?: number | undefined
  /** What it says instead of its last words. */
  readonly final?: ((honest: string) => Buffer) | undefined
}

const hmac = (key: Uint8Array, text: string): Buffer => createHmac("sha256", key).update(text).digest()

/** The answers of a server that knows the password, up to its first query. */
export const scram = ({
  final,
  iterations = 4096,
  mechanisms = ["SCRAM-SHA-256"],
  password
}: ScramOptions): ReadonlyArray<Answer> => {
  const salt = Buffer.from("a fixed salt").toString("base64")
  let clientFirst = ""
  let serverFirst = ""
  return [
    message("R", int32(10), ...mechanisms.map((mechanism) => `${mechanism}\0`), "\0"),
    (heard) => {
      clientFirst = /n=.*$/s.exec(heard.toString("latin1"))![0]
      serverFirst = `r=${/r=(.*)$/s.exec(clientFirst)![1]}server,s=${salt},i=${iterations}`
      return message("R", int32(11), serverFirst)
    },
    (heard) => {
      const [withoutProof] = heard.subarray(5).toString("latin1").split(",p=")
      const salted = pbkdf2Sync(password, Buffer.from(salt, "base64"), Math.min(iterations, 10_000), 32, "sha256")
      const signature = hmac(hmac(salted, "Server Key"), `${clientFirst},${serverFirst},${withoutProof}`)
      const honest = signature.toString("base64")
      return final === undefined
        ? Buffer.concat([message("R", int32(12), `v=${honest}`), authenticated])
        : final(honest)
    },
    version
  ]
}

/** The password of everyone here. */
export const secret = "hunter2"

export const connect = (port: number, options: PgConfig.Options = {}) =>
  PgWalSender.make(
    Result.getOrThrow(
      PgConfig.resolve({
        host: "127.0.0.1",
        port,
        user: "me",
        password: Redacted.make(secret),
        sslmode: "disable",
        ...options
      })
    )
  ).connect

export const failure = (
  port: number,
  options?: PgConfig.Options
): Effect.Effect<ReplicationError, unknown, Scope.Scope> => Effect.flip(connect(port, options))

/** Waits in real time, also under a `TestClock`. */
export const until = (condition: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let timer: NodeJS.Timeout | undefined
    const look = (): void => {
      if (condition()) resume(Effect.void)
      else timer = setTimeout(look, 2)
    }
    look()
    return Effect.sync(() => clearTimeout(timer))
  })
