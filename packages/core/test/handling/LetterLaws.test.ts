/** Stores of dead letters keep the laws; and what changes are made of comes back as it was. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import * as DeadLetters from "../../src/handling/DeadLetters.ts"
import { LetterBook, Walk } from "../../src/handling/LetterBook.ts"
import { LetterLaws } from "../../src/testing/index.ts"
import { sqliteClient } from "../support/sqliteClient.ts"

/** The service of a layer, for as long as the scope lives. */
const built = <E, R>(layer: Layer.Layer<DeadLetters.DeadLetters, E, R>) =>
  Effect.map(Layer.build(layer), (context) => Context.get(context, DeadLetters.DeadLetters))

const table = { table: "letters", createTable: "ifMissing" } as const

const sqlite = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-letters-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true }))
  )
  const client = () => Layer.fresh(sqliteClient(join(directory, "letters.db")))
  const rename = (from: string, to: string) =>
    Effect.scoped(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`ALTER TABLE ${sql(from)} RENAME TO ${sql(to)}`
      }).pipe(Effect.provide(client()))
    )
  return {
    connect: built(Layer.provide(DeadLetters.sql(table), client())),
    fail: rename("letters", "elsewhere"),
    mend: rename("elsewhere", "letters")
  } satisfies LetterLaws.Subject
})

describe("DeadLetters.sql, of SQLite", () => {
  for (const { holds, name } of LetterLaws.laws) {
    it.effect(name, () => Effect.scoped(Effect.flatMap(sqlite, (subject: LetterLaws.Subject) => holds(subject))))
  }
})

describe("DeadLetters.memory", () => {
  /** Of one process alone: whoever connects is the same. */
  const memory = Effect.map(built(DeadLetters.memory), (store) => ({ connect: Effect.succeed(store) }))
  for (const { holds, name, needs } of LetterLaws.laws) {
    // It keeps what it is given, and nothing as text.
    if (needs.length > 0 || name.includes("no text can hold")) continue
    it.effect(name, () => Effect.scoped(Effect.flatMap(memory, holds)))
  }
})

describe("the kit", () => {
  const planted: ReadonlyArray<
    readonly [
      mistake: string,
      law: RegExp,
      alter: (store: DeadLetters.DeadLettersShape) => Partial<DeadLetters.DeadLettersShape>
    ]
  > = [
    [
      "forgets who was parked before",
      /there once/,
      (store) => ({ park: (letter) => Effect.andThen(store.drop([letter]), store.park(letter)) })
    ],
    [
      "holds what came before",
      /held from its letter on/,
      (store) => ({ holds: (change, keys) => store.holds({ ...change, id: "z" }, keys) })
    ],
    ["does not look", /obeyed/, () => ({ refresh: Effect.void, list: Effect.succeed([]) })],
    [
      "writes anew what was dropped",
      /written anew/,
      (store) => ({ failed: (letter) => store.park({ ...letter, change: {} }) })
    ],
    [
      "lets go amid a trial",
      /while its letter is tried/,
      (store) => ({
        whileTried: (name, use) => Effect.flatMap(store.known("laws"), ([letter]) => use({ ...letter!, ...name }))
      })
    ]
  ]
  for (const [mistake, law, alter] of planted) {
    it.effect(`finds a store that ${mistake}`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { connect } = yield* sqlite
          const subject = { connect: Effect.map(connect, (store) => ({ ...store, ...alter(store) })) }
          const found = LetterLaws.laws.find(({ name }) => law.test(name))!
          const error = yield* Effect.flip(found.holds(subject))
          assert.include(String(error), found.name)
        })
      )
    )
  }
})

describe("a change as text", () => {
  const round = (change: unknown) =>
    Result.getOrThrow(DeadLetters.decode(Result.getOrThrow(DeadLetters.encode(change))))

  it.prop("comes back as it was, whatever it holds", { value: Schema.Json }, ({ value }) => {
    const change = { _tag: "Insert", row: { value }, unchanged: [] }
    assert.deepStrictEqual(round(change), change)
  })

  it("keeps a column named __proto__, and an absent one absent", () => {
    const row = Object.defineProperty({ a: 1 }, "__proto__", {
      value: 2n,
      enumerable: true,
      configurable: true,
      writable: true
    })
    const back = round({ row }) as { readonly row: object }
    assert.deepStrictEqual(Object.entries(back.row), [
      ["a", 1],
      ["__proto__", 2n]
    ])
    assert.notProperty(back.row, "b")
  })
})

describe("LetterBook", () => {
  it("gives order by row, over letters with moved keys that fail, succeed and are dropped at random", () => {
    let state = 7
    const next = (limit: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return Math.floor((state / 0x1_0000_0000) * limit)
    }
    const book = new LetterBook()
    const done = new Map<string, Array<string>>()
    let [number, tried] = [0, 0]
    for (let step = 0; step < 20_000; step++) {
      const kind = next(20)
      if (kind < 10) {
        const keys = [...new Set(Array.from({ length: 1 + next(2) }, () => `${next(20)}`))]
        const change = LetterLaws.letter(++number, "", { keys })
        // As a handler does it: held it waits, else it is handled, or fails.
        if (book.holds(change, keys)) book.set({ ...change, state: "waiting" })
        else if (next(3) === 0) book.set(change)
        else for (const key of keys) done.set(key, [...(done.get(key) ?? []), change.id])
      } else if (kind < 14) {
        for (const letter of book.all)
          if (letter.state === "failed" && next(2) === 0) book.set({ ...letter, state: "marked" })
      } else if (kind === 14) {
        const letter = book.all[next(Math.max(1, book.all.length))]
        if (letter !== undefined) book.delete(letter)
      } else {
        const walk = new Walk()
        for (const letter of book.of("laws")) {
          if (!walk.may(letter)) {
            walk.leave(letter)
            continue
          }
          tried++
          if (next(4) === 0) {
            book.set({ ...letter, state: "failed" })
            walk.leave(letter)
            continue
          }
          book.delete(letter)
          for (const key of letter.keys) done.set(key, [...(done.get(key) ?? []), letter.id])
        }
        assert.strictEqual(book.census("laws").letters, book.all.length)
      }
    }
    assert.isAbove(tried, 1000)
    for (const [key, ids] of done) assert.deepStrictEqual(ids, [...ids].sort(), key)
  })
})
