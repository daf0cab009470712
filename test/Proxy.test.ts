import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Queue, type Scope } from "effect"
import { eventually } from "./support/eventually.ts"
import { Proxy } from "./support/Proxy.ts"

/** Sends back what it gets. */
const echoServer = Effect.acquireRelease(
  Effect.callback<Net.Server>((resume) => {
    const server = Net.createServer((socket) => void socket.on("error", () => undefined).pipe(socket))
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.sync(() => server.close())
)

interface Client {
  readonly send: (text: string) => Effect.Effect<void>
  /** All that came so far. */
  readonly received: Effect.Effect<string>
  /** Reads that it came in. */
  readonly reads: Effect.Effect<number>
  /** `end` after FIN, the error's code after RST. */
  readonly ending: Effect.Effect<string>
}

const connect = Effect.fnUntraced(function* (port: number): Effect.fn.Return<Client, never, Scope.Scope> {
  const socket = yield* Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = Net.connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
    }),
    (open) => Effect.sync(() => open.destroy())
  )
  const ending = yield* Queue.unbounded<string>()
  const reads: Array<string> = []
  socket.on("data", (bytes) => reads.push(bytes.toString("latin1")))
  socket.on("end", () => Queue.offerUnsafe(ending, "end"))
  socket.on("error", (error: NodeJS.ErrnoException) => Queue.offerUnsafe(ending, error.code ?? ""))
  return {
    send: (text) => Effect.sync(() => void socket.write(text)),
    received: Effect.sync(() => reads.join("")),
    reads: Effect.sync(() => reads.length),
    ending: Queue.take(ending)
  }
})

const setup = Effect.gen(function* () {
  const server = yield* echoServer
  const proxy = yield* Proxy.make({ host: "127.0.0.1", port: (server.address() as Net.AddressInfo).port })
  const client = yield* connect(proxy.port)
  yield* client.send("hello")
  yield* eventually(Effect.map(client.received, (text) => text === "hello"))
  return { client, proxy }
})

const receives = (client: Client, text: string) =>
  eventually(
    Effect.map(client.received, (received) => received === text),
    { what: `the client receives ${text}` }
  )

describe("Proxy", () => {
  it.live("passes bytes both ways and counts them and the connections", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* Effect.scoped(connect(proxy.port))
      assert.strictEqual(yield* proxy.accepted, 2)
      yield* eventually(Effect.map(proxy.open, (count) => count === 1))
      yield* client.send(" you")
      yield* receives(client, "hello you")
      assert.strictEqual(yield* proxy.passed("toServer"), 9)
      assert.strictEqual(yield* proxy.passed("toClient"), 9)
    })
  )

  it.live("stalls one direction without losing a byte", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.stall("toClient")
      yield* client.send(" you")
      yield* eventually(Effect.map(proxy.passed("toServer"), (bytes) => bytes === 9))
      assert.strictEqual(yield* client.received, "hello")
      yield* proxy.pass
      yield* receives(client, "hello you")
    })
  )

  it.live("stalls both directions", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.stall()
      yield* client.send(" you")
      const arrival = yield* Effect.exit(
        eventually(
          Effect.map(proxy.passed("toServer"), (n) => n > 5),
          { deadline: 200 }
        )
      )
      assert.isTrue(Exit.isFailure(arrival))
      yield* proxy.pass
      yield* receives(client, "hello you")
    })
  )

  it.live("cuts with FIN, and the client sees an end", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.cut("fin")
      assert.strictEqual(yield* client.ending, "end")
      assert.strictEqual(yield* proxy.open, 0)
      const next = yield* connect(proxy.port)
      yield* next.send("again")
      yield* receives(next, "again")
    })
  )

  it.live("cuts with RST, and the client sees a reset, even while stalled", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.stall()
      yield* proxy.cut("rst")
      assert.strictEqual(yield* client.ending, "ECONNRESET")
    })
  )

  it.live("cuts after exactly so many bytes, once", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.cutAfter(3, "fin")
      yield* client.send(" you")
      assert.strictEqual(yield* client.ending, "end")
      assert.strictEqual(yield* client.received, "hello yo")
      const next = yield* connect(proxy.port)
      yield* next.send("longer than three")
      yield* receives(next, "longer than three")
    })
  )

  it.live("slices what the client gets, and waits before each piece", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.slice(2, 30)
      yield* client.send(" my dear")
      yield* receives(client, "hello my dear")
      assert.strictEqual(yield* client.reads, 1 + 4)
    })
  )

  it.live("resets the client when nobody listens behind it", () =>
    Effect.gen(function* () {
      const server = yield* echoServer
      const { port } = server.address() as Net.AddressInfo
      server.close()
      const proxy = yield* Proxy.make({ host: "127.0.0.1", port })
      assert.strictEqual(yield* (yield* connect(proxy.port)).ending, "ECONNRESET")
    })
  )
})
