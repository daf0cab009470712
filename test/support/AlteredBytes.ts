/** Somebody in between who changes what passes: a pooler, played by a few lines. */
import * as Net from "node:net"
import { Effect, type Scope } from "effect"

/** What becomes of the bytes of one read, to the server and back. */
export interface Alterations {
  readonly up?: ((bytes: Buffer) => Buffer) | undefined
  readonly down?: ((bytes: Buffer) => Buffer) | undefined
}

const unchanged = (bytes: Buffer): Buffer => bytes

/** A port that leads to another of this machine; gone with the scope, and its connections with it. */
export const alteredBytes = (
  to: number,
  { down = unchanged, up = unchanged }: Alterations
): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly server: Net.Server; readonly sockets: Set<Net.Socket> }>((resume) => {
        const sockets = new Set<Net.Socket>()
        const server = Net.createServer((client) => {
          const upstream = Net.connect(to, "127.0.0.1")
          for (const [socket, other, alter] of [
            [client, upstream, up],
            [upstream, client, down]
          ] as const) {
            sockets.add(socket)
            socket.on("data", (bytes: Buffer) => other.write(alter(bytes)))
            socket.on("error", () => other.destroy())
            socket.on("close", () => other.destroy())
          }
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, sockets })))
      }),
      ({ server, sockets }) =>
        Effect.callback<void>((resume) => {
          for (const socket of sockets) socket.destroy()
          server.close(() => resume(Effect.void))
        })
    ),
    ({ server }) => (server.address() as Net.AddressInfo).port
  )
