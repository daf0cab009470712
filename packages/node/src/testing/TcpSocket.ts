/**
 * Sockets of Node's as the fault proxy needs them: paused, read and written a step at a time, and ended in one of TCP's
 * two ways. Bytes belong to whoever read them.
 */
import * as Net from "node:net"
import * as Effect from "effect/Effect"

/** `fin` ends in order, after all that was sent; `rst` breaks off. */
export type TcpEnding = "fin" | "rst"

/** The next bytes of a paused socket, or how the peer ended it. */
export const read = (socket: Net.Socket): Effect.Effect<Uint8Array | TcpEnding> =>
  Effect.callback((resume) => {
    const check = (): void => {
      const bytes: Buffer | null = socket.read()
      if (bytes !== null) done(bytes)
      else if (socket.readableEnded) done("fin")
      else if (socket.destroyed) done("rst")
    }
    const done = (result: Uint8Array | TcpEnding): void => {
      stopListening()
      resume(Effect.succeed(result))
    }
    const events = ["readable", "end", "close"]
    const stopListening = (): void => {
      for (const event of events) socket.off(event, check)
    }
    for (const event of events) socket.on(event, check)
    check()
    return Effect.sync(stopListening)
  })

/** Writes, and waits until the socket has taken it; a broken socket takes anything. */
export const write = (socket: Net.Socket, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.destroyed) return resume(Effect.void)
    socket.write(bytes, () => resume(Effect.void))
  })

/** Ends a socket. FIN goes by half-closing and then reading on: to close outright with bytes unread would send RST. */
export const end = (socket: Net.Socket, ending: TcpEnding): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.destroyed) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void))
    if (ending === "rst") socket.resetAndDestroy()
    else socket.end(() => void socket.resume())
  })

/** Listens on 127.0.0.1; each socket that arrives is paused. Fails with Node's error, as when the port is taken. */
export const listen = (port: number, onArrival: (socket: Net.Socket) => void): Effect.Effect<Net.Server, Error> =>
  Effect.callback((resume) => {
    const server = Net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, onArrival)
    server.once("error", (error) => resume(Effect.fail(error)))
    server.listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
  })
