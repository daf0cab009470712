import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { ConnectionError, type ReplicationError } from "@replicant/core"
import type { CopyBoth } from "@replicant/core/driver"
import { Effect, Fiber, type Scope } from "effect"
import { maxPullBytes, maxReadAheadBytes, readOnDemand } from "../../src/pg/ReadOnDemand.ts"

const toError = (thrown: unknown): ConnectionError =>
  new ConnectionError({
    reason: thrown instanceof Error && "code" in thrown && thrown.code === "ECONNRESET" ? "Reset" : "Closed",
    detail: String(thrown)
  })

interface Pair {
  readonly copy: CopyBoth
  /** Our end, and the peer's. */
  readonly socket: Net.Socket
  readonly peer: Net.Socket
}

/** Two ends of a TCP connection, one of them read on demand. */
const pair: Effect.Effect<Pair, never, Scope.Scope> = Effect.acquireRelease(
  Effect.callback<Pair & { readonly server: Net.Server }>((resume) => {
    const server = Net.createServer((peer) => {
      peer.on("error", () => undefined)
      resume(Effect.succeed({ copy: readOnDemand(socket, toError), socket, peer, server }))
    })
    const socket = new Net.Socket()
    server.listen(0, "127.0.0.1", () => socket.connect((server.address() as Net.AddressInfo).port, "127.0.0.1"))
  }),
  ({ peer, server, socket }) =>
    Effect.sync(() => {
      socket.destroy()
      peer.destroy()
      server.close()
    })
)

const write = (peer: Net.Socket, bytes: Uint8Array | string): Effect.Effect<void> =>
  Effect.callback((resume) => void peer.write(bytes, () => resume(Effect.void)))

/** Waits for a condition on a socket, not for time. */
const until = (condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => (condition() ? Effect.void : Effect.delay(until(condition), "5 millis")))

const turns = (count: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const turn = (left: number): void => void setImmediate(() => (left === 0 ? resume(Effect.void) : turn(left - 1)))
    turn(count)
  })

/** Why it failed, as a `ConnectionError` tells. */
const reasonOf = (effect: Effect.Effect<unknown, ReplicationError>) =>
  Effect.map(Effect.flip(effect), (error) => (error._tag === "ConnectionError" ? error.reason : error._tag))

const pullBytes = Effect.fnUntraced(function* (copy: CopyBoth, count: number) {
  const reads: Array<Uint8Array> = []
  let pulled = 0
  while (pulled < count) {
    const bytes = yield* copy.pull
    assert.isAbove(bytes.length, 0)
    reads.push(bytes)
    pulled += bytes.length
  }
  return reads
})

/** Bytes in which each position can be told from its neighbours. */
const pattern = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 0xff)

describe("readOnDemand", () => {
  it.live("gives what was there already, and what comes while it waits", () =>
    Effect.gen(function* () {
      const { copy, peer } = yield* pair
      yield* write(peer, "first")
      assert.strictEqual(String(yield* copy.pull), "first")
      const pulling = yield* Effect.forkChild(copy.pull, { startImmediately: true })
      yield* turns(5)
      yield* write(peer, "second")
      assert.strictEqual(String(yield* Fiber.join(pulling)), "second")
    })
  )

  it.live("gathers what came in many packets into one pull", () =>
    Effect.gen(function* () {
      const { copy, peer } = yield* pair
      peer.setNoDelay(true)
      for (let packet = 0; packet < 100; packet++) yield* write(peer, `packet ${packet};`)
      const reads = yield* pullBytes(copy, 990)
      // The first may hold what was read as the socket was taken over.
      assert.isAtMost(reads.length, 2)
    })
  )

  it.live("loses and reorders nothing of a large transfer, and bounds a pull", () =>
    Effect.gen(function* () {
      const { copy, peer } = yield* pair
      const sent = pattern(20 * 1024 * 1024)
      const writing = yield* Effect.forkChild(write(peer, sent))
      const reads = yield* pullBytes(copy, sent.length)
      yield* Fiber.join(writing)
      assert.isAtMost(Math.max(...reads.map((read) => read.length)), maxPullBytes + 65_536)
      // Only now, after all later reads: what was pulled first has not been written to again.
      assert.strictEqual(Buffer.compare(Buffer.concat(reads), sent), 0)
    })
  )

  it.live("reads ahead on live traffic, so far and no further, and loses nothing of it", () =>
    Effect.gen(function* () {
      const { copy, peer, socket } = yield* pair
      yield* write(peer, "little")
      assert.strictEqual(String(yield* copy.pull), "little")
      const before = socket.bytesRead
      const sent = pattern(4 * 1024 * 1024)
      const writing = yield* Effect.forkChild(write(peer, sent))
      yield* until(() => socket.bytesRead > before)
      yield* turns(50)
      assert.isAtMost(socket.bytesRead - before, maxReadAheadBytes + 65_536)
      const reads = yield* pullBytes(copy, sent.length)
      yield* Fiber.join(writing)
      assert.strictEqual(Buffer.compare(Buffer.concat(reads), sent), 0)
    })
  )

  it.live("reads nothing more while nobody pulls", () =>
    Effect.gen(function* () {
      const { copy, peer, socket } = yield* pair
      yield* write(peer, "begin")
      yield* copy.pull
      peer.write(Buffer.alloc(50 * 1024 * 1024))
      yield* turns(200)
      const { bytesRead } = socket
      // One read was under way when the pull ended.
      assert.isAtMost(bytesRead, 5 + 65_536)
      yield* turns(200)
      assert.strictEqual(socket.bytesRead, bytesRead)
      assert.isAbove(peer.writableLength, 0)
    })
  )

  it.live("loses no byte to pulls that are interrupted", () =>
    Effect.gen(function* () {
      const { copy, peer } = yield* pair
      const sent = pattern(100_000)
      const reads: Array<Uint8Array> = []
      const pullOnce = Effect.map(copy.pull, (bytes) => void reads.push(bytes))
      for (let at = 0; at < sent.length; at += 500) {
        const pulling = yield* Effect.forkChild(pullOnce, { startImmediately: true })
        yield* write(peer, sent.subarray(at, at + 500))
        yield* turns(at % 4)
        yield* Fiber.interrupt(pulling)
      }
      const left = sent.length - reads.reduce((sum, read) => sum + read.length, 0)
      reads.push(...(yield* pullBytes(copy, left)))
      assert.strictEqual(Buffer.compare(Buffer.concat(reads), sent), 0)
    })
  )

  it.live("gives the last bytes before it tells of the end, and then tells it again and again", () =>
    Effect.gen(function* () {
      const { copy, peer, socket } = yield* pair
      peer.end("last")
      yield* turns(20)
      assert.strictEqual(String(yield* copy.pull), "last")
      assert.strictEqual(yield* reasonOf(copy.pull), "Closed")
      yield* until(() => socket.closed)
      assert.strictEqual(yield* reasonOf(copy.pull), "Closed")
    })
  )

  it.live("fails a waiting pull when the peer breaks the connection", () =>
    Effect.gen(function* () {
      const { copy, peer } = yield* pair
      const pulling = yield* Effect.forkChild(reasonOf(copy.pull), { startImmediately: true })
      yield* turns(5)
      peer.resetAndDestroy()
      assert.strictEqual(yield* Fiber.join(pulling), "Reset")
    })
  )

  it.live("fails a waiting pull when we close the socket ourselves", () =>
    Effect.gen(function* () {
      const { copy, socket } = yield* pair
      const pulling = yield* Effect.forkChild(reasonOf(copy.pull), { startImmediately: true })
      yield* turns(2)
      socket.destroy()
      assert.strictEqual(yield* Fiber.join(pulling), "Closed")
      assert.strictEqual(yield* reasonOf(copy.send(Uint8Array.of(1))), "Closed")
    })
  )

  it.live("waits with sending until the socket takes the bytes", () =>
    Effect.gen(function* () {
      const { copy, peer, socket } = yield* pair
      peer.pause()
      const sent = Buffer.alloc(50 * 1024 * 1024)
      const sending = yield* Effect.forkChild(copy.send(sent), { startImmediately: true })
      yield* turns(200)
      assert.isUndefined(sending.pollUnsafe())
      assert.isAbove(socket.writableLength, 0)
      peer.resume()
      yield* Fiber.join(sending)
    })
  )

  it.live("fails a send at once that comes after the peer's end, which the socket would take", () =>
    Effect.gen(function* () {
      const { copy, peer, socket } = yield* pair
      socket.allowHalfOpen = true
      peer.end()
      assert.strictEqual(yield* reasonOf(copy.pull), "Closed")
      assert.strictEqual(yield* reasonOf(copy.send(Uint8Array.of(1))), "Closed")
    })
  )

  it.live("fails a send to a peer that has gone", () =>
    Effect.gen(function* () {
      const { copy, peer } = yield* pair
      peer.resetAndDestroy()
      const error = yield* Effect.flip(Effect.forever(Effect.andThen(copy.send(Uint8Array.of(1)), turns(1))))
      assert.strictEqual(error._tag, "ConnectionError")
    })
  )
})
