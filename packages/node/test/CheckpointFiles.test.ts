/** Checkpoints in real files: what is there after a process was killed while it wrote. */
import { spawn } from "node:child_process"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { CheckpointStore } from "@replicant/core"
import { Effect, FileSystem, Option, type Path, type Scope } from "effect"

const inDirectory = <A, E>(
  body: (directory: string) => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | Scope.Scope>
) =>
  Effect.gen(function* () {
    const fileSystem = yield* FileSystem.FileSystem
    return yield* body(yield* fileSystem.makeTempDirectoryScoped())
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const open = (directory: string) =>
  CheckpointStore.CheckpointStore.pipe(Effect.provide(CheckpointStore.file({ directory })))

/** Saves texts of one letter each, as fast as it can, and tells when it has begun. */
const writer = (directory: string) => `
  import * as NodeServices from "@effect/platform-node/NodeServices"
  import { CheckpointStore } from "@replicant/core"
  import { Effect } from "effect"
  const write = Effect.gen(function* () {
    const store = yield* CheckpointStore.CheckpointStore
    for (let round = 0; ; round++) {
      yield* store.save("k", String.fromCharCode(97 + (round % 26)).repeat(100000))
      if (round === 3) console.log("writing")
    }
  })
  Effect.runPromise(write.pipe(
    Effect.provide(CheckpointStore.file({ directory: ${JSON.stringify(directory)} })),
    Effect.provide(NodeServices.layer)
  ))`

const killWhileWriting = (directory: string, afterMillis: number) =>
  Effect.callback<void>((resume) => {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", writer(directory)], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    child.stdout.once("data", () => setTimeout(() => child.kill("SIGKILL"), afterMillis))
    child.once("exit", () => resume(Effect.void))
  })

describe("CheckpointStore.file", () => {
  it.live("gives back what was saved last, by any key, and nothing where nothing was", () =>
    inDirectory(
      Effect.fnUntraced(function* (directory) {
        const store = yield* open(`${directory}/deep/er`)
        const keys = ["snapshot/orders", "snapshot/ORDERS", "../../etc", "", ".", "ö*?"]
        for (const key of keys) assert.isTrue(Option.isNone(yield* store.load(key)))
        for (const key of keys) yield* store.save(key, `first of ${key}`)
        for (const key of keys) yield* store.save(key, `second of ${key}`)
        const again = yield* open(`${directory}/deep/er`)
        for (const key of keys) assert.deepStrictEqual(yield* again.load(key), Option.some(`second of ${key}`))
        const fileSystem = yield* FileSystem.FileSystem
        const files = yield* fileSystem.readDirectory(`${directory}/deep/er`)
        assert.strictEqual(new Set(files.map((file) => file.toLowerCase())).size, keys.length)
        for (const key of keys) yield* store.remove(key)
        yield* store.remove("never")
        assert.lengthOf(yield* fileSystem.readDirectory(`${directory}/deep/er`), 0)
      })
    )
  )

  it.live(
    "has a whole text, the last or the one before, when its process was killed in the middle of writing",
    () =>
      inDirectory(
        Effect.fnUntraced(function* (directory) {
          for (const millis of [0, 1, 3, 7]) {
            yield* killWhileWriting(directory, millis)
            const text = Option.getOrThrow(yield* (yield* open(directory)).load("k"))
            assert.strictEqual(text, text.charAt(0).repeat(100_000))
          }
        })
      ),
    30_000
  )

  it.live("says which file it could not write", () =>
    inDirectory(
      Effect.fnUntraced(function* (directory) {
        const store = yield* open(`${directory}/store`)
        const fileSystem = yield* FileSystem.FileSystem
        yield* fileSystem.remove(`${directory}/store`, { recursive: true })
        const error = yield* Effect.flip(store.save("k", "text"))
        assert.deepStrictEqual([error._tag, error.during, error.key], ["CheckpointError", "save", "k"])
        assert.notInclude(error.message, "text")
      })
    )
  )
})
