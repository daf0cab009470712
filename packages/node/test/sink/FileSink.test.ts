/** A sink of files: the laws of sinks, segments, torn writes, and kills at any moment. */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Sink } from "@replicant/core/sink"
import { SinkLaws } from "@replicant/core/testing"
import { FileSink } from "@replicant/node"
import { Context, Effect, Layer, Option, Stream } from "effect"
import { messages, numberOf } from "./numbered.ts"

const makeDirectory = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "replicant-files-"))),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

const connect = (options: FileSink.Options) =>
  Effect.map(Layer.build(FileSink.layer(options)), (context) => Context.get(context, Sink.Sink))

const ids = (directory: string) =>
  Effect.map(Stream.runCollect(FileSink.read({ directory })), (lines) => lines.map(({ id }) => id))

const activeOf = (directory: string) =>
  Path.join(directory, Fs.readdirSync(directory).find((name) => name.startsWith("active-"))!)

/** Small segments, so that laws meet full ones. */
const subject = (segment: FileSink.Options["segment"]) =>
  Effect.map(
    makeDirectory,
    (directory): SinkLaws.Subject => ({
      connect: connect({ directory, segment, compression: "gzip" }),
      read: ids(directory),
      loseTail: (kept) =>
        Effect.sync(() => {
          const lines = Fs.readFileSync(activeOf(directory), "utf8").split("\n")
          Fs.writeFileSync(
            activeOf(directory),
            lines
              .slice(0, kept)
              .map((line) => `${line}\n`)
              .join("")
          )
        })
    })
  )

describe("the laws of sinks, of files", () => {
  for (const [what, segment] of [
    ["in one segment", undefined],
    ["in many", { bytes: 2000 }]
  ] as const) {
    for (const law of SinkLaws.laws) {
      const title = `${law.name}, ${what}`
      const isApt = law.needs.every((need) => need === "loseTail" && segment === undefined)
      if (isApt) it.live(title, () => Effect.flatMap(subject(segment), law.holds))
    }
  }
})

describe("FileSink", () => {
  it.live("cuts a torn line off, and it comes again", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      const sink = yield* connect({ directory })
      yield* Effect.scoped(Effect.flatMap(sink.open(), (writer) => writer.append(messages(0, 3))))
      Fs.appendFileSync(activeOf(directory), `{"id":"00000000000001`)
      assert.lengthOf(yield* ids(directory), 3)
      const writer = yield* sink.open()
      assert.strictEqual(Option.getOrThrow(writer.mark).id, messages(2, 3)[0].id)
      yield* writer.append(messages(3, 4))
      assert.deepStrictEqual((yield* ids(directory)).map(numberOf), [0, 1, 2, 3])
    })
  )

  for (const compression of ["none", "gzip", "zstd"] as const) {
    it.live(`closes what is full, and names it for what is in it (${compression})`, () =>
      Effect.gen(function* () {
        const directory = yield* makeDirectory
        const sink = yield* connect({ directory, compression, segment: { bytes: 500 } })
        const writer = yield* sink.open()
        for (let n = 0; n < 40; n++) yield* writer.append(messages(n, n + 1))
        const full = Fs.readdirSync(directory).filter((name) => name.includes("_"))
        assert.isAbove(full.length, 3)
        const ending = { none: /\.jsonl$/, gzip: /\.jsonl\.gz$/, zstd: /\.jsonl\.zst$/ }[compression]
        for (const name of full) assert.match(name, ending)
        assert.include(full.sort()[0], `${messages(0, 1)[0].id}_`)
        assert.deepStrictEqual(
          (yield* ids(directory)).map(numberOf),
          Array.from({ length: 40 }, (_, n) => n)
        )
        const [first] = yield* Stream.runCollect(FileSink.read({ directory }))
        assert.deepInclude(first, { op: "c", to: "public.items", key: ["0"], value: { op: "c", after: { n: 0 } } })
      })
    )
  }

  it.live("closes what is old, though nothing comes any more", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      const sink = yield* connect({ directory, segment: { within: "50 millis" } })
      const writer = yield* sink.open()
      yield* writer.append(messages(0, 1))
      const full = Effect.sync(() => Fs.readdirSync(directory).some((name) => name.includes("_")))
      while (!(yield* full)) yield* Effect.sleep("10 millis")
      yield* Effect.scoped(
        Effect.flatMap(sink.open(), ({ mark }) =>
          Effect.sync(() => assert.deepInclude(Option.getOrThrow(mark), { id: messages(0, 1)[0].id, systemId: "7" }))
        )
      )
    })
  )

  it.live("says what stands in its way", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      Fs.writeFileSync(Path.join(directory, "file"), "")
      const sink = yield* connect({ directory: Path.join(directory, "file") })
      const error = yield* Effect.flip(sink.open())
      assert.deepInclude(error, { _tag: "SinkRefused", reason: "Setup" })
      assert.include(error.message, "files in ")
    })
  )

  it.live("has each message once and in order, whenever its writer is killed", () =>
    Effect.gen(function* () {
      const directory = yield* makeDirectory
      const program = fileURLToPath(new URL("runFileSink.ts", import.meta.url))
      let durable = -1
      /** Appends until there are so many, or until it is killed: so many later, at whatever it does then. */
      const run = (options: { readonly until: number; readonly killedAfter?: number | undefined }) =>
        Effect.callback<number | null>((resume) => {
          const end = durable + (options.killedAfter ?? Number.POSITIVE_INFINITY)
          const child = spawn(process.execPath, [program, directory, String(options.until)], {
            stdio: ["ignore", "pipe", "inherit"]
          })
          child.stdout.setEncoding("utf8").on("data", (text: string) => {
            for (const line of text.split("\n")) if (/^\d+$/.test(line)) durable = Math.max(durable, Number(line))
            if (durable >= end) child.kill("SIGKILL")
          })
          child.on("close", (code) => resume(Effect.succeed(code)))
        })
      const stored = Effect.gen(function* () {
        const numbers = (yield* ids(directory)).map(numberOf)
        assert.deepStrictEqual(
          numbers,
          Array.from({ length: numbers.length }, (_, n) => n)
        )
        assert.isAbove(numbers.length, durable, "what was said to be durable is there")
        return numbers.length
      })
      for (let kills = 0; kills < 4; kills++) {
        assert.isNull(yield* run({ until: Number.POSITIVE_INFINITY, killedAfter: 500 }))
        yield* stored
      }
      const count = (yield* stored) + 500
      assert.strictEqual(yield* run({ until: count }), 0)
      assert.strictEqual(yield* stored, count)
    })
  )
})
