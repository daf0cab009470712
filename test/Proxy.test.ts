import * as Fs from "node:fs"
import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy } from "@replicant/node/testing"
import { Clock, Effect, Exit, Layer, Queue, type Scope } from "effect"
import { eventually } from "./support/eventually.ts"

/** Where a server listens that does this with each connection. */
const listen = (serve: (socket: Net.Socket) => unknown) =>
  Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((socket) => void serve(socket.on("error", () => undefined)))
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  ).pipe(Effect.map((server) => ({ host: "127.0.0.1", port: (server.address() as Net.AddressInfo).port })))

/** Sends back what it gets. */
const echoServer = listen((socket) => socket.pipe(socket))

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

/** Why no connection comes about. */
const refusal = (port: number): Effect.Effect<string> =>
  Effect.callback((resume) => {
    const socket = Net.connect(port, "127.0.0.1")
    socket.once("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code ?? "")))
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed("connected"))
    })
  })

const setup = Effect.gen(function* () {
  const proxy = yield* FaultProxy.make(yield* echoServer)
  const client = yield* connect(proxy.port)
  yield* client.send("hello")
  yield* eventually(Effect.map(client.received, (text) => text === "hello"))
  return { client, proxy }
})

/** A client whose answer is held back on the way to it; let through, it receives the whole. */
const answerIsHeldBack = Effect.fnUntraced(function* (rules: (proxy: FaultProxy["Service"]) => Effect.Effect<unknown>) {
  const { client, proxy } = yield* setup
  yield* rules(proxy)
  yield* client.send(" you")
  yield* eventually(Effect.map(proxy.passed("toServer"), (bytes) => bytes === 9))
  assert.strictEqual(yield* client.received, "hello")
  yield* proxy.pass
  yield* receives(client, "hello you")
})

const receives = (client: Client, text: string) =>
  eventually(
    Effect.map(client.received, (received) => received === text),
    { what: `the client receives ${text}` }
  )

describe("FaultProxy", () => {
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

  it.live("stalls one direction without losing a byte", () => answerIsHeldBack((proxy) => proxy.stall("toClient")))

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
      const closed = yield* Effect.scoped(echoServer)
      const proxy = yield* FaultProxy.make(closed)
      assert.strictEqual(yield* (yield* connect(proxy.port)).ending, "ECONNRESET")
    })
  )

  it.live("cuts after so many bytes of the client's", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.cutAfter(2, "rst", "toServer")
      yield* client.send(" you")
      assert.strictEqual(yield* client.ending, "ECONNRESET")
      assert.strictEqual(yield* proxy.passed("toServer"), 7)
    })
  )

  it.live("cuts each new connection where its plan says, and spares those it does not name", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.cutEach({ after: (ordinal) => [0, 4, undefined][ordinal - 1], ending: "fin" })
      const [first, second, third] = yield* Effect.all([connect(proxy.port), connect(proxy.port), connect(proxy.port)])
      assert.strictEqual(yield* first.ending, "end")
      for (const each of [client, second, third]) yield* each.send(" again")
      assert.strictEqual(yield* second.ending, "end")
      assert.strictEqual(yield* second.received, " aga")
      yield* receives(third, " again")
      yield* receives(client, "hello again")
    })
  )

  it.live("forgets, once it passes again, the cuts of connections that are open", () =>
    Effect.gen(function* () {
      const { proxy } = yield* setup
      yield* proxy.cutEach({ after: () => 4, ending: "fin" })
      const next = yield* connect(proxy.port)
      yield* eventually(Effect.map(proxy.open, (count) => count === 2))
      yield* proxy.pass
      yield* next.send("longer than four")
      yield* receives(next, "longer than four")
    })
  )

  it.live("falls silent after exactly so many bytes, and both sides stay open", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.cutAfter(3, "silence")
      yield* client.send(" you and many more")
      yield* receives(client, "hello yo")
      yield* client.send("!")
      const more = eventually(Effect.map(client.received, (text) => text !== "hello yo"))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.raceFirst(Effect.timeout(more, 200), client.ending))))
      assert.strictEqual(yield* proxy.open, 1)
    })
  )

  for (const direction of ["toServer", "toClient"] as const) {
    it.live(`swallows what goes ${direction} for good, and lets new connections be once it passes again`, () =>
      Effect.gen(function* () {
        const { client, proxy } = yield* setup
        yield* proxy.blackHole(direction)
        const next = yield* connect(proxy.port)
        for (const each of [client, next]) yield* each.send(" you")
        yield* eventually(Effect.map(proxy.open, (count) => count === 2))
        yield* proxy.pass
        const fresh = yield* connect(proxy.port)
        for (const each of [client, next, fresh]) yield* each.send(" there")
        yield* receives(fresh, " there")
        const arriving = direction === "toClient" ? 5 + 2 * 10 + 6 : 5 + 6
        yield* eventually(Effect.map(proxy.passed("toServer"), (bytes) => bytes === arriving))
        assert.strictEqual(yield* client.received, "hello")
        assert.strictEqual(yield* next.received, "")
      })
    )
  }

  it.live("tells nobody in a black hole that the other has left", () =>
    Effect.gen(function* () {
      const gone: Array<string> = []
      const server = yield* listen((socket) => socket.resume().on("close", () => gone.push("gone")))
      const proxy = yield* FaultProxy.make(server)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* connect(proxy.port)
          yield* eventually(Effect.map(proxy.open, (count) => count === 1))
          yield* proxy.cut("silence")
        })
      )
      yield* eventually(Effect.map(proxy.open, (count) => count === 0))
      assert.deepStrictEqual(gone, [])
      yield* proxy.cut("rst")
      yield* eventually(Effect.sync(() => gone.length === 1))
    })
  )

  it.live("holds back the end of a stalled connection, too", () =>
    answerIsHeldBack((proxy) => Effect.andThen(proxy.cutAfter(4, "fin"), proxy.stall("toClient")))
  )

  it.live("delays what is sent each way, however much it is", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.latency("1 second")
      const text = "x".repeat(5_000_000)
      const before = yield* Clock.currentTimeMillis
      yield* client.send(text)
      yield* receives(client, `hello${text}`)
      const took = (yield* Clock.currentTimeMillis) - before
      // As reads of 64 KiB one after the other it would be 76 times that, for which nobody has the patience.
      assert.isAtLeast(took, 2000)
    })
  )

  it.live("lets so many bytes a second through", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.throttle(100_000)
      const before = yield* Clock.currentTimeMillis
      yield* client.send("x".repeat(20_000))
      yield* receives(client, `hello${"x".repeat(20_000)}`)
      assert.isAtLeast((yield* Clock.currentTimeMillis) - before, 200)
    })
  )

  it.live("refuses connections on the same port until it passes again, and lets open ones be", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* setup
      yield* proxy.refuse
      for (let times = 0; times < 3; times++) assert.strictEqual(yield* refusal(proxy.port), "ECONNREFUSED")
      yield* client.send(" you")
      yield* receives(client, "hello you")
      yield* proxy.pass
      const next = yield* connect(proxy.port)
      yield* next.send("again")
      yield* receives(next, "again")
      assert.strictEqual(yield* proxy.accepted, 2)
      assert.strictEqual(yield* proxy.mostOpen, 2)
    })
  )

  it.live("is a layer, and closes all it has when its scope does", () =>
    Effect.gen(function* () {
      const target = yield* echoServer
      const { client, port } = yield* Effect.gen(function* () {
        const proxy = yield* FaultProxy
        const client = yield* connect(proxy.port)
        yield* client.send("hello")
        yield* receives(client, "hello")
        yield* proxy.stall()
        return { client, port: proxy.port }
      }).pipe(Effect.provide(Layer.fresh(FaultProxy.layer(target))))
      assert.include(["end", "ECONNRESET"], yield* client.ending)
      assert.strictEqual(yield* refusal(port), "ECONNREFUSED")
    })
  )
})

describe("docs/testing.md", () => {
  const read = (path: string) => Fs.readFileSync(new URL(`../${path}`, import.meta.url), "utf8")

  it("shows the proxy's example that runs, to the letter", () => {
    const blocks = [...read("docs/testing.md").matchAll(/^```ts\n([\s\S]*?)^```/gm)].map((match) => match[1])
    assert.include(blocks, read("test/FaultProxyExample.test.ts"))
  })

  it.live("names everything that the proxy can do, and nothing else", () =>
    Effect.gen(function* () {
      const { proxy } = yield* setup
      const text = read("docs/testing.md")
      const named = [...text.matchAll(/\bproxy\.(\w+)/g)].map((match) => match[1])
      assert.includeMembers(Object.keys(proxy), named)
      for (const name of Object.keys(proxy)) assert.match(text, new RegExp(`\\b${name}\\b`), name)
    })
  )
})
