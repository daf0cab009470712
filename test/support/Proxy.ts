/**
 * A network that misbehaves on command: a TCP proxy on 127.0.0.1 between client and server. It knows bytes, not messages.
 */
import * as Net from "node:net"
import { Context, Deferred, Effect, Exit, FiberSet, Latch, Layer, Queue, type Scope } from "effect"

/** `toServer` is what the client sends, `toClient` what the server sends. */
export type Direction = "toServer" | "toClient"

/** `fin` ends in order, after what was sent; `rst` breaks, and may take back bytes the peer has not read. */
export type Ending = "fin" | "rst"

export interface ProxyShape {
  readonly host: "127.0.0.1"
  readonly port: number
  /** Connections accepted so far. */
  readonly accepted: Effect.Effect<number>
  /** Connections open now. */
  readonly open: Effect.Effect<number>
  /** Bytes passed to that side so far, over all connections. */
  readonly passed: (direction: Direction) => Effect.Effect<number>
  /** Holds bytes back, both ways unless told otherwise: nothing is lost, nothing arrives, nobody is told. */
  readonly stall: (...directions: ReadonlyArray<Direction>) => Effect.Effect<void>
  /** Ends every rule: what is held back goes on, pieces are whole again, no cut is pending. */
  readonly pass: Effect.Effect<void>
  /** Ends the connections open now, towards both sides. New ones are welcome. */
  readonly cut: (ending: Ending) => Effect.Effect<void>
  /** Lets exactly this many more bytes to the client, then cuts the connection that carried the last of them. Once. */
  readonly cutAfter: (bytes: number, ending: Ending) => Effect.Effect<void>
  /** From now on the client gets pieces of at most `bytes`, each after `latency` milliseconds. */
  readonly slice: (bytes: number, latency: number) => Effect.Effect<void>
}

interface Connection {
  readonly client: Net.Socket
  readonly server: Net.Socket
  /** Completed by whoever ends it. */
  readonly ending: Deferred.Deferred<Ending>
}

/** The next bytes of a paused socket; `undefined` when it has ended or broken. */
const read = (socket: Net.Socket): Effect.Effect<Buffer | undefined> =>
  Effect.callback((resume) => {
    const check = (): void => {
      const bytes: Buffer | null = socket.read()
      if (bytes !== null) done(bytes)
      else if (socket.readableEnded || socket.destroyed) done(undefined)
    }
    const done = (bytes: Buffer | undefined): void => {
      for (const event of events) socket.off(event, check)
      resume(Effect.succeed(bytes))
    }
    const events = ["readable", "end", "close"]
    for (const event of events) socket.on(event, check)
    check()
    return Effect.sync(() => {
      for (const event of events) socket.off(event, check)
    })
  })

/** Writes, and waits until the socket has taken it; a broken socket takes anything. */
const write = (socket: Net.Socket, bytes: Buffer): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.destroyed) return resume(Effect.void)
    socket.write(bytes, () => resume(Effect.void))
  })

/**
 * Ends a socket. FIN is sent by half-closing and then reading on: closing outright with bytes unread would send RST.
 */
const endSocket = (socket: Net.Socket, ending: Ending): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.destroyed) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void))
    if (ending === "rst") socket.resetAndDestroy()
    else socket.end(() => void socket.resume())
  })

const make = Effect.fnUntraced(function* (target: {
  readonly host: string
  readonly port: number
}): Effect.fn.Return<ProxyShape, never, Scope.Scope> {
  const gates = { toServer: yield* Latch.make(true), toClient: yield* Latch.make(true) }
  const passed = { toServer: 0, toClient: 0 }
  const connections = new Set<Connection>()
  let accepted = 0
  let pendingCut: { bytesLeft: number; readonly ending: Ending } | undefined
  let slices: { readonly bytes: number; readonly latency: number } | undefined

  /** The next piece of `bytes` under the rules of now. */
  const pieceLength = (direction: Direction, length: number): number =>
    direction === "toServer"
      ? length
      : Math.min(length, slices?.bytes ?? length, pendingCut === undefined ? length : pendingCut.bytesLeft)

  const pump = Effect.fnUntraced(function* (connection: Connection, direction: Direction) {
    const [from, to] =
      direction === "toServer" ? [connection.client, connection.server] : [connection.server, connection.client]
    while (true) {
      yield* gates[direction].await
      let bytes = yield* read(from)
      if (bytes === undefined) return yield* Effect.sync(() => to.end())
      while (bytes.length > 0) {
        yield* gates[direction].await
        if (direction === "toClient" && slices !== undefined) yield* Effect.sleep(slices.latency)
        const length: number = pieceLength(direction, bytes.length)
        if (length > 0) yield* write(to, bytes.subarray(0, length))
        passed[direction] += length
        bytes = bytes.subarray(length)
        if (direction === "toClient" && pendingCut !== undefined) {
          pendingCut.bytesLeft -= length
          if (pendingCut.bytesLeft === 0) {
            const { ending } = pendingCut
            pendingCut = undefined // First: completing it interrupts us.
            yield* Deferred.succeed(connection.ending, ending)
            return yield* Effect.never
          }
        }
      }
    }
  })

  const serve = Effect.fnUntraced(function* (client: Net.Socket) {
    const server = Net.connect({ port: target.port, host: target.host, allowHalfOpen: true }).pause()
    const connection: Connection = { client, server, ending: yield* Deferred.make<Ending>() }
    const sockets = [client, server]
    for (const socket of sockets) {
      socket.setNoDelay(true).on("error", () => Deferred.doneUnsafe(connection.ending, Exit.succeed("rst")))
    }
    yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => void socket.destroy())))
    connections.add(connection)
    const pumps = Effect.all([pump(connection, "toServer"), pump(connection, "toClient")], { concurrency: 2 })
    const ending = yield* Effect.raceFirst(Effect.as(pumps, "fin" as const), Deferred.await(connection.ending))
    connections.delete(connection)
    yield* Effect.forEach(sockets, (socket) => endSocket(socket, ending), { concurrency: 2 })
  }, Effect.scoped)

  const arrivals = yield* Queue.unbounded<Net.Socket>()
  const listener = yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
        accepted++
        Queue.offerUnsafe(arrivals, socket)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )
  const fibers = yield* FiberSet.make()
  yield* Effect.forkScoped(
    Effect.forever(Effect.flatMap(Queue.take(arrivals), (client) => FiberSet.run(fibers, serve(client))))
  )

  return {
    host: "127.0.0.1",
    port: (listener.address() as Net.AddressInfo).port,
    accepted: Effect.sync(() => accepted),
    open: Effect.sync(() => connections.size),
    passed: (direction) => Effect.sync(() => passed[direction]),
    stall: (...directions) =>
      Effect.forEach(directions.length === 0 ? (["toServer", "toClient"] as const) : directions, (direction) =>
        Latch.close(gates[direction])
      ),
    pass: Effect.suspend(() => {
      pendingCut = undefined
      slices = undefined
      return Effect.andThen(Latch.open(gates.toServer), Latch.open(gates.toClient))
    }),
    cut: (ending) =>
      Effect.suspend(() => Effect.forEach(connections, (connection) => Deferred.succeed(connection.ending, ending))),
    cutAfter: (bytes, ending) =>
      Effect.sync(() => {
        pendingCut = { bytesLeft: bytes, ending }
      }),
    slice: (bytes, latency) =>
      Effect.sync(() => {
        slices = { bytes, latency }
      })
  }
})

/** The proxy as a service; `make` is one within a scope. */
export class Proxy extends Context.Service<Proxy, ProxyShape>()("@replicant/test/Proxy") {
  static readonly make = make
  static readonly layer = (target: { readonly host: string; readonly port: number }): Layer.Layer<Proxy> =>
    Layer.effect(Proxy, make(target))
}
