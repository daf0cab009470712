/** Dead letters in a file: the laws of a store, torn lines, two owners, and kills at any moment. */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { DeadLetters } from "@replicant/core"
import { LetterLaws } from "@replicant/core/testing"
import { DeadLetterFile } from "@replicant/node"
import { Context, Effect, Layer } from "effect"

const makeDirectory = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "replicant-letters-"))),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

const makePath = Effect.map(makeDirectory, (directory) => Path.join(directory, "of orders", "letters.jsonl"))

const connect = (path: string) =>
  Effect.map(Layer.build(DeadLetterFile.layer({ path })), (context) => Context.get(context, DeadLetters.DeadLetters))

const subject = Effect.map(makePath, (path): LetterLaws.Subject => {
  const directory = Path.dirname(path)
  return {
    connect: connect(path),
    decide: Effect.sync(() => DeadLetterFile.open({ path })),
    fail: Effect.sync(() => Fs.renameSync(directory, `${directory}.away`)),
    mend: Effect.sync(() => Fs.renameSync(`${directory}.away`, directory))
  }
})

const idsOf = (letters: ReadonlyArray<DeadLetters.Letter>) => letters.map(({ id }) => id)

describe("the laws of stores of dead letters, of a file", () => {
  for (const { holds, name } of LetterLaws.laws) it.live(name, () => Effect.scoped(Effect.flatMap(subject, holds)))
})

describe("DeadLetterFile", () => {
  it.live("cuts off a line that is torn, wherever that is, and goes on behind it", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        yield* Effect.scoped(
          Effect.gen(function* () {
            const store = yield* connect(path)
            yield* store.park(LetterLaws.letter(1, "a"))
            yield* store.park(LetterLaws.letter(2, "b"))
          })
        )
        const whole = Fs.readFileSync(path)
        const begin = whole.indexOf(0x0a) + 1
        for (let length = begin; length < whole.length; length += 7) {
          Fs.writeFileSync(path, whole.subarray(0, length))
          yield* Effect.scoped(
            Effect.gen(function* () {
              const store = yield* connect(path)
              assert.deepStrictEqual(idsOf(yield* store.list), [LetterLaws.letter(1, "").id])
              yield* store.park(LetterLaws.letter(3, "c"))
            })
          )
          const { list } = DeadLetterFile.open({ path })
          assert.deepStrictEqual(
            idsOf(yield* list),
            [1, 3].map((n) => LetterLaws.letter(n, "").id)
          )
        }
      })
    )
  )

  it.live("refuses a file with a line that is none of its own, and leaves it as it is", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        Fs.mkdirSync(Path.dirname(path), { recursive: true })
        Fs.writeFileSync(path, '{"a":1}\n{"b"')
        const error = yield* Effect.flip(Effect.scoped(connect(path)))
        assert.strictEqual(error.during, "open")
        assert.include(error.message, "line 1 is no dead letter")
        assert.strictEqual(Fs.readFileSync(path, "utf8"), '{"a":1}\n{"b"')
      })
    )
  )

  it.live("is of one program: another takes it over with all that is parked, and the first parks nothing more", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        const first = yield* connect(path)
        yield* first.park(LetterLaws.letter(1, "a"))
        const second = yield* connect(path)
        const error = yield* Effect.flip(first.park(LetterLaws.letter(2, "b")))
        assert.deepStrictEqual([error.during, error.isRetryable], ["own", false])
        assert.strictEqual((yield* Effect.flip(first.handled(LetterLaws.letter(1, "a")))).during, "own")
        yield* second.park(LetterLaws.letter(3, "c"))
        const expected = [1, 3].map((n) => LetterLaws.letter(n, "").id)
        assert.deepStrictEqual(idsOf(yield* second.list), expected)
        assert.deepStrictEqual(idsOf(yield* (yield* connect(path)).list), expected)
      })
    )
  )

  it.live("does not say that a letter is parked where another has claimed the file while it was written", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        const store = yield* connect(path)
        // What the other one does first, before it has put its copy in place.
        Fs.writeFileSync(`${path}.owner`, "another")
        assert.strictEqual((yield* Effect.flip(store.park(LetterLaws.letter(1, "a")))).during, "own")
      })
    )
  )

  it.live("puts its own in place again, where one that had lost the file has written over it at the last moment", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        yield* Effect.scoped(Effect.flatMap(connect(path), ({ park }) => park(LetterLaws.letter(1, "a"))))
        const old = Fs.readFileSync(path)
        const store = yield* connect(path)
        yield* store.park(LetterLaws.letter(2, "b"))
        Fs.writeFileSync(`${path}.late`, old)
        Fs.renameSync(`${path}.late`, path)
        yield* store.park(LetterLaws.letter(3, "c"))
        const expected = [1, 2, 3].map((n) => LetterLaws.letter(n, "").id)
        assert.deepStrictEqual(idsOf(yield* (yield* connect(path)).list), expected)
      })
    )
  )

  it.live("leaves nothing of a row that somebody has dropped, is closed to others, and stays small", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        const store = yield* connect(path)
        const row = { name: "a customer's name" }
        yield* store.park(LetterLaws.letter(1, "a", { change: { _tag: "Insert", row } }))
        yield* store.park(LetterLaws.letter(2, "b"))
        assert.include(Fs.readFileSync(path, "utf8"), row.name)
        assert.strictEqual(Fs.statSync(path).mode & 0o077, 0)
        yield* DeadLetterFile.open({ path }).drop([LetterLaws.letter(1, "a")])
        // Nobody has looked yet: the program does within seconds, and whoever lists them is told already.
        assert.lengthOf(yield* DeadLetterFile.open({ path }).list, 1)
        yield* store.refresh
        for (const name of Fs.readdirSync(Path.dirname(path)))
          assert.notInclude(Fs.readFileSync(Path.join(Path.dirname(path), name), "utf8"), row.name)
        assert.lengthOf(Fs.readdirSync(Path.dirname(path)), 2)
        for (let n = 3; n < 500; n++) {
          yield* store.park(LetterLaws.letter(n, "c"))
          yield* store.handled(LetterLaws.letter(n, "c"))
        }
        assert.isBelow(Fs.readFileSync(path, "utf8").split("\n").length, 100)
      })
    )
  )

  it.live("obeys what was decided while no program ran, and what it was killed amid", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        yield* Effect.scoped(
          Effect.gen(function* () {
            const store = yield* connect(path)
            for (const n of [1, 2, 3]) yield* store.park(LetterLaws.letter(n, `${n}`))
          })
        )
        const decider = DeadLetterFile.open({ path })
        assert.strictEqual(yield* decider.retry([LetterLaws.letter(1, ""), LetterLaws.letter(9, "")]), 1)
        const kept = Fs.readdirSync(Path.dirname(path)).find((name) => name.includes(".request-"))!
        const request = Fs.readFileSync(Path.join(Path.dirname(path), kept))
        assert.strictEqual(yield* decider.drop([LetterLaws.letter(2, "")]), 1)
        yield* Effect.scoped(connect(path))
        Fs.writeFileSync(Path.join(Path.dirname(path), kept), request)
        const store = yield* connect(path)
        assert.deepStrictEqual(
          (yield* store.list).map(({ id, state }) => [id, state]),
          [
            [LetterLaws.letter(1, "").id, "marked"],
            [LetterLaws.letter(3, "").id, "failed"]
          ]
        )
      })
    )
  )

  it.live("has every letter that was said to be parked, killed at any moment", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const path = yield* makePath
        const program = fileURLToPath(new URL("runDeadLetters.ts", import.meta.url))
        const parked = new Set<number>()
        let [next, rounds] = [0, 0]
        for (; rounds < 6; rounds++) {
          const text = yield* Effect.callback<string>((resume) => {
            const child = spawn(process.execPath, [program, path, `${next}`], { stdio: ["ignore", "pipe", "inherit"] })
            const most = 20 + Math.floor(Math.random() * 200)
            let told = ""
            child.stdout.on("data", (chunk) => {
              told += chunk
              if (told.split("\n").length > most) child.kill("SIGKILL")
            })
            child.once("close", () => resume(Effect.succeed(told)))
          })
          const lines = text.slice(0, text.lastIndexOf("\n")).split("\n")
          for (const line of lines) {
            // The last may have been handled though that was not told any more.
            if (line.startsWith("-")) parked.delete(-Number(line))
            else parked.add(Number(line))
            next = Math.max(next, Math.abs(Number(line)) + 1)
          }
          const found = new Set(idsOf(yield* DeadLetterFile.open({ path }).list))
          const lost = [...parked].filter((n) => !found.has(LetterLaws.letter(n, "").id))
          const mayBeHandled = next - 1
          assert.deepStrictEqual(
            lost.filter((n) => n !== mayBeHandled || n % 3 !== 0),
            []
          )
          for (const n of lost) parked.delete(n)
          assert.isAtMost(found.size - parked.size, 1, "one that was not told, at most")
          next++
          for (const id of found) parked.add(Number.parseInt(id.slice(0, 16), 16))
        }
        assert.isAbove(parked.size, 50)
      })
    )
  )
})
