import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import type { Health } from "@replicant/core/operations"
import { Effect, Exit, Logger, Option, Scope } from "effect"
import { listening, parseAddress } from "../../src/cli/Listen.ts"
import { failureOf } from "../../src/cli/Report.ts"

const failing: Health.Health = {
  status: "failing",
  since: 0,
  reasons: [{ code: "HandlerStuck", status: "failing", since: 0, says: "the handler has not ended what it was given" }]
}
const stream = { options: { slot: "orders" }, health: Effect.succeed(failing) }

/** Listens on a port that is free, in a scope of its own. */
const started = Effect.gen(function* () {
  const lines: Array<string> = []
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  yield* listening(Option.some({ host: "127.0.0.1", port: 0 }), stream).pipe(
    Scope.provide(scope),
    Effect.provide(Logger.layer([Logger.make(({ message }) => lines.push(String(message)))]))
  )
  const [line = ""] = lines
  assert.match(line, /^listening on http:\/\/127\.0\.0\.1:\d+$/)
  return {
    url: line.slice("listening on ".length),
    port: Number(/\d+$/.exec(line)?.[0]),
    end: Scope.close(scope, Exit.void)
  }
})

describe("the address of --listen", () => {
  it("is the loopback unless a host is said", () => {
    assert.deepStrictEqual(parseAddress("9090"), { host: "127.0.0.1", port: 9090 })
    assert.deepStrictEqual(parseAddress("0.0.0.0:9090"), { host: "0.0.0.0", port: 9090 })
    assert.deepStrictEqual(parseAddress("localhost:0"), { host: "localhost", port: 0 })
    assert.deepStrictEqual(parseAddress("[::1]:9090"), { host: "::1", port: 9090 })
  })

  it("is refused where it is none, or could be taken for another", () => {
    for (const text of ["", ":9090", "host", "host:", "65536", "::1:9090", "[::1]", "[host]:1", "-1", "1.5", "a b:1"]) {
      assert.isUndefined(parseAddress(text), text)
    }
    assert.isUndefined(parseAddress("http://localhost:9090"))
  })
})

describe("listening", () => {
  it.live("answers probes, and opens nothing where no address is given", () =>
    Effect.gen(function* () {
      yield* listening(Option.none(), stream)
      const { url } = yield* started
      const get = (path: string) => Effect.promise(() => fetch(`${url}${path}`))
      const alive = yield* get("/livez")
      assert.strictEqual(alive.status, 200)
      assert.strictEqual(yield* Effect.promise(() => alive.text()), "ok\n")
      const ready = yield* get("/readyz")
      assert.strictEqual(ready.status, 503)
      assert.deepStrictEqual(yield* Effect.promise(() => ready.json()), {
        status: "failing",
        streams: [{ slot: "orders", ...failing }]
      })
      assert.strictEqual((yield* get("/metrics")).status, 200)
      assert.strictEqual((yield* get("/etc/passwd")).status, 404)
      assert.strictEqual((yield* Effect.promise(() => fetch(`${url}/readyz`, { method: "POST" }))).status, 404)
    }).pipe(Effect.scoped)
  )

  it.live("ends though a connection is open that has asked nothing", () =>
    Effect.gen(function* () {
      const { end, port } = yield* started
      const socket = Net.connect(port, "127.0.0.1")
      const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()).on("error", () => {}))
      yield* Effect.promise(() => new Promise((resolve) => socket.on("connect", resolve)))
      // Node itself would wait for its request for a minute.
      yield* Effect.timeout(end, "20 seconds")
      yield* Effect.promise(() => closed)
      const again = yield* Effect.exit(Effect.tryPromise(() => fetch(`http://127.0.0.1:${port}/livez`)))
      assert.isTrue(Exit.isFailure(again))
    }).pipe(Effect.scoped)
  )

  it.live("says where somebody else listens", () =>
    Effect.gen(function* () {
      const { port } = yield* started
      const error = yield* Effect.flip(listening(Option.some({ host: "127.0.0.1", port }), stream))
      assert.deepStrictEqual(failureOf(error), {
        tag: "ListenFailed",
        message: `cannot listen on 127.0.0.1:${port}: EADDRINUSE`,
        cure: "choose another port, or end who listens there"
      })
    }).pipe(Effect.scoped)
  )
})
