/** What of a sink of files is on the disk, and when; and what a crash of the machine may have left there. */
import * as Fs from "node:fs"
import * as FsPromises from "node:fs/promises"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Sink } from "@replicant/core/sink"
import { FileSink } from "@replicant/node"
import { Context, Effect, Layer, Option, type Scope, Stream } from "effect"
import { messages, numberOf } from "./numbered.ts"

const makeDirectory = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "replicant-segments-"))),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

const connect = (options: FileSink.Options) =>
  Effect.map(Layer.build(FileSink.layer(options)), (context) => Context.get(context, Sink.Sink))

const numbers = (directory: string) =>
  Effect.map(Stream.runCollect(FileSink.read({ directory })), (lines) => lines.map(({ id }) => numberOf(id)))

const activeOf = (directory: string) =>
  Path.join(directory, Fs.readdirSync(directory).find((name) => name.startsWith("active-"))!)

/** Within the scope `onSync` stands before each `fsync` of a directory, by its number in the file system. */
const watchingDirectories = (onSync: (inode: number) => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const handle = await FsPromises.open(tmpdir(), "r")
      const prototype = Object.getPrototypeOf(handle) as { sync: () => Promise<void> }
      await handle.close()
      const { sync } = prototype
      prototype.sync = async function (this: FsPromises.FileHandle) {
        const stat = await this.stat()
        if (stat.isDirectory()) onSync(stat.ino)
        return sync.call(this)
      }
      return { prototype, sync }
    }),
    ({ prototype, sync }) =>
      Effect.sync(() => {
        prototype.sync = sync
      })
  ).pipe(Effect.asVoid)

const inodeOf = (path: string) => Fs.statSync(path).ino

describe("a directory of segments", () => {
  it.live("has the name of each new segment on the disk before anything in it is acknowledged", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      const seen = new Set<string>()
      yield* watchingDirectories(() => {
        // A name without its directory is gone after a power cut: so is a segment that is not seen here.
        for (const name of Fs.readdirSync(directory)) seen.add(`${name} ${inodeOf(Path.join(directory, name))}`)
      })
      const writer = yield* (yield* connect({ directory, segment: { bytes: 200 } })).open()
      for (let n = 0; n < 10; n++) {
        yield* writer.append(messages(n, n + 1))
        const active = activeOf(directory)
        assert.include([...seen], `${Path.basename(active)} ${inodeOf(active)}`)
      }
    })
  )

  it.live("acknowledges nothing where the disk fails beneath the directory", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      const writer = yield* (yield* connect({ directory, segment: { bytes: 1 } })).open()
      yield* watchingDirectories(() => {
        throw Object.assign(new Error("EIO: i/o error, fsync"), { code: "EIO" })
      })
      const error = yield* Effect.flip(writer.append(messages(0, 1)))
      assert.deepInclude(error, { _tag: "SinkUnavailable", detail: "EIO: i/o error, fsync" })
    })
  )

  it.live("goes on where the file system cannot make a directory durable at all", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      yield* watchingDirectories(() => {
        throw Object.assign(new Error("EINVAL: invalid argument, fsync"), { code: "EINVAL" })
      })
      const writer = yield* (yield* connect({ directory })).open()
      yield* writer.append(messages(0, 1))
      assert.deepStrictEqual(yield* numbers(directory), [0])
    })
  )

  it.live("is on the disk itself, with all directories above it that were made", () =>
    Effect.gen(function* () {
      const root = yield* makeDirectory
      const directory = Path.join(root, "a", "b", "c")
      const synced = new Set<number>()
      yield* watchingDirectories((inode) => synced.add(inode))
      yield* (yield* connect({ directory })).open()
      const above = [root, Path.join(root, "a"), Path.join(root, "a", "b"), directory]
      assert.deepStrictEqual(
        above.filter((path) => !synced.has(inodeOf(path))),
        []
      )
    })
  )

  for (const [what, tail] of [
    ["zeros", Buffer.alloc(4096)],
    ["zeros with lines behind them", Buffer.concat([Buffer.alloc(100), Buffer.from('{"id":"0"}\n{"id":"1"}\n')])]
  ] as const) {
    it.live(`goes on from the last whole line where a crash has left ${what}`, () =>
      Effect.gen(function* () {
        const directory = yield* makeDirectory
        const sink = yield* connect({ directory })
        yield* Effect.scoped(Effect.flatMap(sink.open(), (writer) => writer.append(messages(0, 3))))
        Fs.appendFileSync(activeOf(directory), tail)
        assert.deepStrictEqual(yield* numbers(directory), [0, 1, 2])
        const writer = yield* sink.open()
        assert.strictEqual(Option.getOrThrow(writer.mark).id, messages(2, 3)[0].id)
        yield* writer.append(messages(3, 4))
        assert.deepStrictEqual(yield* numbers(directory), [0, 1, 2, 3])
      })
    )
  }

  it.live("takes an open segment behind full ones over as it is, byte by byte", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      const sink = yield* connect({ directory, segment: { bytes: 300 } })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const writer = yield* sink.open()
          for (let n = 0; n < 10; n++) yield* writer.append(messages(n, n + 1))
        })
      )
      assert.isTrue(Fs.readdirSync(directory).some((name) => name.includes("_")))
      // Bytes that are no text would not outlive being read as such.
      const last = messages(20, 21)[0]
      const line = Buffer.concat([
        Buffer.from(`{"id":"${last.id}","op":"c","to":"x","key":null,"value":"`),
        Buffer.from([0xff]),
        Buffer.from('"}\n')
      ])
      Fs.writeFileSync(activeOf(directory), line)
      const { mark } = yield* Effect.scoped(sink.open())
      assert.strictEqual(Option.getOrThrow(mark).id, last.id)
      assert.deepStrictEqual(Fs.readFileSync(activeOf(directory)), line)
    })
  )
})
