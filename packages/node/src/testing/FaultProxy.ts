/**
 * A network that misbehaves on command: a TCP proxy on 127.0.0.1 between a client and a server, for tests of what becomes
 * of a program when its connection does not hold. It knows bytes, not messages, so TLS goes through it too.
 *
 * Every wait is a sleep of the Effect `Clock`; sockets, listener and fibers end with the scope. Bytes are passed on as
 * they were read and never kept: at most {@link maxReadsHeld} reads of each direction are held back.
 */
import { randomInt } from "node:crypto"
import * as Net from "node:net"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { bothWays, type Cut, type CutPlan, type Direction, type Ending, FaultRules } from "./FaultRules.ts"
import * as TcpSocket from "./TcpSocket.ts"

/** Where the server is: a `PgServer` is one. */
export interface FaultProxyTarget {
  readonly host: string
  readonly port: number
}

/**
 * The proxy, its counters, and its rules. A rule holds for every connection, open or to come, until `pass`; several hold at
 * once. Directions left out mean both.
 *
 * @example
 * Effect.gen(function*() {
 *   const proxy = yield* FaultProxy.make(yield* PgServer)
 *   yield* Effect.forkScoped(program(proxy.host, proxy.port))
 *   yield* proxy.cutAfter(1000, "rst")
 * })
 */
export interface FaultProxyShape {
  readonly host: "127.0.0.1"
  /** The same for as long as the proxy lives, also after it refused connections. */
  readonly port: number

  /** Connections accepted so far. */
  readonly accepted: Effect.Effect<number>
  /** Connections of clients open now. One in a black hole counts until its client leaves. */
  readonly open: Effect.Effect<number>
  /** The most that were open at one time. */
  readonly mostOpen: Effect.Effect<number>
  /** Bytes passed that way so far, over all connections; what was swallowed is not among them. */
  readonly passed: (direction: Direction) => Effect.Effect<number>

  /** Ends the connections open now. New ones are welcome. */
  readonly cut: (ending: Ending) => Effect.Effect<void>
  /**
   * Lets exactly this many more bytes pass, `toClient` unless told otherwise, and ends the connection that carried the
   * last of them; with 0 the one that would carry the next. Once.
   */
  readonly cutAfter: (bytes: number, ending: Ending, direction?: Direction) => Effect.Effect<void>
  /** Ends connections to come, each counted from its own first byte; with 0 as it is accepted. */
  readonly cutEach: (plan: CutPlan) => Effect.Effect<void>
  /**
   * Swallows what is sent. Connections open now do so for good, whatever `pass` says, as a firewall does that has forgotten
   * them; connections to come until `pass`. One whose both ends have left is gone.
   */
  readonly blackHole: (...directions: ReadonlyArray<Direction>) => Effect.Effect<void>
  /** Holds back what is sent, ends of connections too: nothing is lost, nothing arrives, nobody is told. */
  readonly stall: (...directions: ReadonlyArray<Direction>) => Effect.Effect<void>
  /** Delays what is sent by this much each way. A round trip takes twice that; a larger volume takes no longer. */
  readonly latency: (oneWay: Duration.Input) => Effect.Effect<void>
  /** Lets no more than this through, each way of each connection. */
  readonly throttle: (bytesPerSecond: number) => Effect.Effect<void>
  /** The client gets pieces of at most `bytes`, each after a pause. */
  readonly slice: (bytes: number, pause?: Duration.Input) => Effect.Effect<void>
  /** Listens no more: new connections are refused. Those open go on. */
  readonly refuse: Effect.Effect<void>
  /** Ends every rule: what is held back goes on, no cut is pending, new connections are accepted. */
  readonly pass: Effect.Effect<void>
}

/** How much of one direction is read ahead of what may be passed on. */
const maxReadsHeld = 16

const orBoth = (directions: ReadonlyArray<Direction>) => (directions.length === 0 ? bothWays : directions)

interface Connection {
  readonly client: Net.Socket
  readonly server: Net.Socket
  /** Completed by whoever ends it. */
  readonly ending: Deferred.Deferred<TcpSocket.TcpEnding>
  /** What goes these ways is swallowed. */
  readonly silent: Set<Direction>
  /** From the plan that was in force when it came. */
  cut: Cut | undefined
}

/** Something read, and not to be passed on before `due`, in monotonic milliseconds. */
interface Arrival {
  readonly what: Uint8Array | TcpSocket.TcpEnding
  readonly due: number
}

const millis = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))
const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1_000_000)

/** Below the range that systems hand out for outgoing connections, one of which could take the port while we refuse. */
const listenAnywhere = (onArrival: (socket: Net.Socket) => void): Effect.Effect<Net.Server> =>
  Effect.suspend(() => TcpSocket.listen(randomInt(15_000, 32_000), onArrival)).pipe(
    Effect.retry({ times: 50 }),
    Effect.orDie
  )

const make = Effect.fnUntraced(function* (
  target: FaultProxyTarget
): Effect.fn.Return<FaultProxyShape, never, Scope.Scope> {
  const rules = new FaultRules()
  const connections = new Set<Connection>()
  const clients = new Set<Net.Socket>()
  const passed = { toServer: 0, toClient: 0 }
  let accepted = 0
  let mostOpen = 0

  /** Ends the connection; what it passes on after that comes to nothing. */
  const endBy = (connection: Connection, ending: Ending): Effect.Effect<void> =>
    ending === "silence"
      ? Effect.sync(() => {
          for (const direction of bothWays) connection.silent.add(direction)
        })
      : Effect.asVoid(Deferred.succeed(connection.ending, ending))

  /** Counts a piece towards the cuts to come, and carries out what is due. */
  const countCut = Effect.fnUntraced(function* (connection: Connection, direction: Direction, length: number) {
    for (const cut of rules.cutsOf(connection, direction)) {
      cut.bytesLeft -= length
      if (cut.bytesLeft > 0) continue
      if (cut === rules.cut) rules.cut = undefined // First: what follows may interrupt us.
      yield* endBy(connection, cut.ending)
      if (cut.ending !== "silence") yield* Effect.never
    }
  })

  const passOn = Effect.fnUntraced(function* (connection: Connection, direction: Direction, bytes: Uint8Array) {
    const to = direction === "toServer" ? connection.server : connection.client
    let rest = bytes
    while (rest.length > 0) {
      yield* rules.gates[direction].await
      if (direction === "toClient" && rules.slice !== undefined) yield* Effect.sleep(rules.slice.pause)
      if (connection.silent.has(direction)) return
      const length = rules.pieceLength(connection, direction, rest.length)
      if (length > 0) yield* TcpSocket.write(to, rest.subarray(0, length))
      passed[direction] += length
      rest = rest.subarray(length)
      yield* countCut(connection, direction, length)
      const time = (length * 1000) / rules.bytesPerSecond
      if (time > 0) yield* Effect.sleep(time)
    }
  })

  const readAhead = Effect.fnUntraced(function* (
    connection: Connection,
    direction: Direction,
    arrivals: Queue.Queue<Arrival>
  ) {
    const from = direction === "toServer" ? connection.client : connection.server
    while (true) {
      const what = yield* TcpSocket.read(from)
      if (typeof what === "string" && direction === "toServer") clients.delete(from)
      yield* Queue.offer(arrivals, { what, due: (yield* monotonicMillis) + rules.latency })
      if (typeof what === "string") return
    }
  })

  /** One direction of a connection, until its end has been passed on or swallowed. */
  const pump = Effect.fnUntraced(function* (connection: Connection, direction: Direction) {
    const arrivals = yield* Queue.bounded<Arrival>(maxReadsHeld)
    yield* Effect.forkScoped(readAhead(connection, direction, arrivals), { startImmediately: true })
    while (true) {
      const { due, what } = yield* Queue.take(arrivals)
      const wait = due - (yield* monotonicMillis)
      if (wait > 0) yield* Effect.sleep(wait)
      if (typeof what !== "string") {
        yield* passOn(connection, direction, what)
        continue
      }
      yield* rules.gates[direction].await
      if (connection.silent.has(direction)) return
      if (what === "rst") return yield* endBy(connection, "rst")
      return yield* Effect.sync(() => void (direction === "toServer" ? connection.server : connection.client).end())
    }
  })

  const serve = Effect.fnUntraced(function* (client: Net.Socket) {
    const server = Net.connect({ port: target.port, host: target.host, allowHalfOpen: true }).pause()
    const sockets = [client, server]
    // What broke a socket is told by `read`; without a listener it would end the process.
    for (const socket of sockets) socket.setNoDelay(true).on("error", () => undefined)
    yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => void socket.destroy())))
    const connection: Connection = {
      client,
      server,
      ending: yield* Deferred.make<TcpSocket.TcpEnding>(),
      silent: new Set(rules.silent),
      cut: rules.nextCut()
    }
    connections.add(connection)
    clients.add(client)
    mostOpen = Math.max(mostOpen, clients.size)
    if (connection.cut?.bytesLeft === 0) yield* endBy(connection, connection.cut.ending)
    const pumps = Effect.forEach(bothWays, (direction) => pump(connection, direction), { concurrency: 2 })
    const ending = yield* Effect.raceFirst(Deferred.await(connection.ending), Effect.as(pumps, "fin" as const))
    connections.delete(connection)
    clients.delete(client)
    yield* Effect.forEach(sockets, (socket) => TcpSocket.end(socket, ending), { concurrency: 2 })
  }, Effect.scoped)

  const newClients = yield* Queue.unbounded<Net.Socket>()
  const onArrival = (socket: Net.Socket): void => {
    accepted++
    Queue.offerUnsafe(newClients, socket)
  }
  let listener: Net.Server | undefined
  const refuse = Effect.sync(() => {
    listener?.close()
    listener = undefined
  })
  yield* Effect.addFinalizer(() => refuse)
  listener = yield* listenAnywhere(onArrival)
  const { port } = listener.address() as Net.AddressInfo
  const listenAgain = Effect.suspend(() =>
    listener === undefined ? Effect.orDie(TcpSocket.listen(port, onArrival)) : Effect.succeed(listener)
  )

  const fibers = yield* FiberSet.make()
  yield* Effect.forkScoped(
    Effect.forever(Effect.flatMap(Queue.take(newClients), (client) => FiberSet.run(fibers, serve(client))))
  )

  return {
    host: "127.0.0.1",
    port,
    accepted: Effect.sync(() => accepted),
    open: Effect.sync(() => clients.size),
    mostOpen: Effect.sync(() => mostOpen),
    passed: (direction) => Effect.sync(() => passed[direction]),
    cut: (ending) =>
      Effect.suspend(() =>
        Effect.forEach([...connections], (connection) => endBy(connection, ending), { discard: true })
      ),
    cutAfter: (bytes, ending, direction = "toClient") =>
      Effect.sync(() => {
        rules.cut = { bytesLeft: bytes, ending, direction }
      }),
    cutEach: (plan) =>
      Effect.sync(() => {
        rules.plan = plan
        rules.planned = 0
      }),
    blackHole: (...directions) =>
      Effect.sync(() => {
        for (const { silent } of [...connections, rules]) {
          for (const direction of orBoth(directions)) silent.add(direction)
        }
      }),
    stall: (...directions) =>
      Effect.forEach(orBoth(directions), (direction) => Latch.close(rules.gates[direction]), { discard: true }),
    latency: (oneWay) =>
      Effect.sync(() => {
        rules.latency = millis(oneWay)
      }),
    throttle: (bytesPerSecond) =>
      Effect.sync(() => {
        rules.bytesPerSecond = bytesPerSecond
      }),
    slice: (bytes, pause = 0) =>
      Effect.sync(() => {
        rules.slice = { bytes, pause: millis(pause) }
      }),
    refuse,
    pass: Effect.gen(function* () {
      rules.clear()
      for (const connection of connections) connection.cut = undefined
      listener = yield* listenAgain
    })
  }
})

/** The proxy as a service. `make` is one within a scope, `layer` the service. */
export class FaultProxy extends Context.Service<FaultProxy, FaultProxyShape>()("@replicant/node/testing/FaultProxy") {
  /** Listens on a port of its own; all it opened is closed with the scope. */
  static readonly make = make
  /** {@link make} as a Layer. */
  static readonly layer = (target: FaultProxyTarget): Layer.Layer<FaultProxy> => Layer.effect(FaultProxy, make(target))
}
