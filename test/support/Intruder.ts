/**
 * A man in the middle: a relay on 127.0.0.1 that changes what passes, swallows it, or ends TLS on either side. It knows
 * bytes; what they mean, the test says.
 */
import * as Net from "node:net"
import * as Tls from "node:tls"
import { Effect, type Scope } from "effect"

/** What becomes of bytes that pass: others, or `silence`, after which nothing passes that way any more. */
export type Meddling = (bytes: Buffer) => Buffer | "silence"

export interface IntruderOptions {
  readonly toServer?: Meddling | undefined
  readonly toClient?: Meddling | undefined
  /** Speaks TLS with both sides: as a server with this certificate, and trusting the real server by `ca`. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca: string } | undefined
}

export interface Intruder {
  readonly port: number
  /** What clients said, and how many connections are open. */
  readonly heard: ReadonlyArray<Buffer>
  readonly open: () => number
}

const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

/** Our side of the server's TLS, begun the way PostgreSQL wants it. */
const secured = (socket: Net.Socket, ca: string, onReady: (secure: Net.Socket) => void): void => {
  socket.write(sslRequest)
  socket.once("data", () => onReady(Tls.connect({ socket, ca, servername: "localhost" })))
}

/** Stands between whoever connects to its port and `target`. */
export const makeIntruder = (
  target: { readonly host: string; readonly port: number },
  { tls, toClient, toServer }: IntruderOptions
): Effect.Effect<Intruder, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Intruder & { readonly stop: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const clients = new Set<Net.Socket>()
      const heard: Array<Buffer> = []
      const pass = (from: Net.Socket, to: Net.Socket, meddle: Meddling | undefined): void => {
        let isSilent = false
        from.on("data", (bytes) => {
          if (isSilent) return
          const passed = meddle === undefined ? bytes : meddle(bytes)
          if (passed === "silence") isSilent = true
          else to.write(passed)
        })
        from.on("error", () => undefined)
        from.on("close", () => to.destroy())
      }
      const join = (client: Net.Socket, server: Net.Socket): void => {
        client.on("data", (bytes) => void heard.push(bytes))
        pass(client, server, toServer)
        pass(server, client, toClient)
      }
      const listener = Net.createServer((client) => {
        const server = Net.connect(target)
        clients.add(client)
        client.on("close", () => clients.delete(client))
        for (const socket of [client, server]) {
          sockets.add(socket)
          socket.on("error", () => undefined)
          socket.on("close", () => sockets.delete(socket))
        }
        if (tls === undefined) return join(client, server)
        client.once("data", () => {
          secured(server, tls.ca, (secure) => {
            client.write("S")
            join(new Tls.TLSSocket(client, { isServer: true, cert: tls.cert, key: tls.key }), secure)
          })
        })
      })
      listener.listen(0, "127.0.0.1", () =>
        resume(
          Effect.succeed({
            port: (listener.address() as Net.AddressInfo).port,
            heard,
            open: () => clients.size,
            stop: () => {
              for (const socket of sockets) socket.destroy()
              listener.close()
            }
          })
        )
      )
    }),
    (intruder) => Effect.sync(intruder.stop)
  )
