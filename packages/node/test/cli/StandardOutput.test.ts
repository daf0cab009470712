import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { OutputClosed, OutputFailed, toFile, toStream } from "../../src/cli/StandardOutput.ts"

/** Both ends of a connection within this process. */
const socketPair = Effect.acquireRelease(
  Effect.callback<{ readonly ours: Net.Socket; readonly theirs: Net.Socket; readonly server: Net.Server }>((resume) => {
    const server = Net.createServer({ pauseOnConnect: true })
    server.listen(0, "127.0.0.1", () => {
      const ours = Net.connect((server.address() as Net.AddressInfo).port, "127.0.0.1")
      server.once("connection", (theirs) => {
        const pair = Effect.succeed({ ours, theirs, server })
        if (ours.connecting) ours.once("connect", () => resume(pair))
        else resume(pair)
      })
    })
  }),
  ({ ours, server, theirs }) =>
    Effect.sync(() => {
      ours.destroy()
      theirs.destroy()
      server.close()
    })
)

const temporaryFile = Effect.acquireRelease(
  Effect.sync(() => Path.join(Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-output-")), "lines")),
  (path) => Effect.sync(() => Fs.rmSync(Path.dirname(path), { recursive: true }))
)

describe("StandardOutput", () => {
  it.live("a write ends when the reader's side has it, and not before", () =>
    Effect.gen(function* () {
      const { ours, theirs } = yield* socketPair
      const large = "x".repeat(64 * 1024 * 1024)
      const fiber = yield* Effect.forkChild(toStream(ours).write(large), { startImmediately: true })
      yield* Effect.sleep("100 millis")
      assert.isUndefined(fiber.pollUnsafe(), "nobody reads, so the write waits")
      theirs.resume()
      yield* Fiber.join(fiber)
    })
  )

  it.live("a reader that goes away is told apart from a failure", () =>
    Effect.gen(function* () {
      const { ours, theirs } = yield* socketPair
      const output = toStream(ours)
      theirs.resetAndDestroy()
      const error = yield* output.write("x".repeat(1024)).pipe(Effect.repeat({ times: 1000 }), Effect.flip)
      assert.deepStrictEqual(error, new OutputClosed())
      assert.deepStrictEqual(yield* Effect.flip(output.write("more")), new OutputClosed())
    })
  )

  it.live("a file gets all of each write, in order", () =>
    Effect.gen(function* () {
      const path = yield* temporaryFile
      const descriptor = Fs.openSync(path, "w")
      const output = toFile(descriptor)
      yield* output.write("é\n")
      yield* output.append("x".repeat(1_000_000))
      yield* output.write("\n")
      Fs.closeSync(descriptor)
      assert.strictEqual(Fs.readFileSync(path, "utf8"), `é\n${"x".repeat(1_000_000)}\n`)
      assert.isFalse(output.isTerminal)
    })
  )

  it.live.skipIf(!Fs.existsSync("/dev/full"))("a full disk is a failure with a code", () =>
    Effect.gen(function* () {
      const descriptor = Fs.openSync("/dev/full", "w")
      const error = yield* Effect.flip(toFile(descriptor).write("x\n"))
      Fs.closeSync(descriptor)
      assert.deepStrictEqual(error, new OutputFailed({ code: "ENOSPC" }))
    })
  )
})
