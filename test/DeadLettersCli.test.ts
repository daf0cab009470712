/** `replicant dead-letters` beside a program that parks, on a real server: in a table and in a file. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe } from "@effect/vitest"
import { type Change, DeadLetters, Handler, withLogicalStream } from "@replicant/core"
import { DeadLetterFile } from "@replicant/node"
import { Data, Effect, Fiber, Layer } from "effect"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { replicant } from "./support/Replicant.ts"
import { onServer } from "./support/Servers.ts"
import { sqlClient } from "./support/sqlClient.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

const items = `CREATE TABLE items (id int PRIMARY KEY, at int NOT NULL, body text, price numeric, data bytea);
  ALTER TABLE items ALTER body SET STORAGE EXTERNAL`

/** Parks what is of the rows 2 and 3 until they are mended; tells what it has handled. */
const park = (isMended: () => boolean) => {
  const handled: Array<string> = []
  const rows: Array<Readonly<Record<string, unknown>>> = []
  const parked = Handler.park({ isPoison: (_: Refused) => true }, (change: Handler.HandedOf<Change>) =>
    Effect.suspend(() => {
      if (change._tag !== "Insert" && change._tag !== "Update") return Effect.void
      const { at, id } = change.row
      if (!isMended() && Number(id) > 1) return new Refused({ message: `row ${id} has a secret` })
      handled.push(`${id}@${at}`)
      rows.push(change.row)
      return Effect.void
    })
  )
  const handler = Handler.retryParked(
    parked,
    Handler.byKey<Change, unknown, DeadLetters.DeadLetters>({ concurrency: 4 }, parked),
    { every: "50 millis" }
  )
  return { handled, handler, rows }
}

const decides = Effect.fnUntraced(function* (
  workspace: Workspace,
  store: Layer.Layer<DeadLetters.DeadLetters, unknown>,
  flags: ReadonlyArray<string>
) {
  let isMended = false
  const { handled, handler, rows } = park(() => isMended)
  const environment = { DATABASE_URL: workspace.url() }
  const letters = (...args: ReadonlyArray<string>) =>
    replicant(["dead-letters", args[0]!, ...flags, ...args.slice(1)], environment)
  const listed = Effect.map(letters("list", "--json"), ({ code, stderr, stdout }) => {
    assert.strictEqual(code, 0, stderr)
    return JSON.parse(stdout) as ReadonlyArray<{ readonly id: string; readonly state: string; readonly cause: string }>
  })
  const fiber = yield* withLogicalStream(logicalOptions(workspace), handler).pipe(
    Effect.provide([walSender(workspace), store]),
    Effect.forkChild
  )
  yield* eventually(workspace.isStreaming(), { what: "it streams" })
  yield* workspace.sql(
    `INSERT INTO items SELECT id, 1, repeat('secret', 1000), 1.50, '\\x00ff' FROM generate_series(1, 3) id`
  )
  yield* workspace.sql("UPDATE items SET at = 2")
  yield* eventually(
    Effect.map(listed, (found) => found.length === 4),
    { what: "four changes are parked" }
  )
  const found = yield* listed
  assert.deepStrictEqual(
    found.map(({ cause, state }) => [cause, state]),
    [
      ["Refused", "failed"],
      ["Refused", "failed"],
      ["Follows", "waiting"],
      ["Follows", "waiting"]
    ]
  )
  const table = yield* letters("list")
  assert.match(table.stdout, /^ID +SLOT +STATE +KIND +TABLE +FAILED OF +ATTEMPTS +LAST\n/)
  assert.notInclude(table.stdout + JSON.stringify(found), "secret")
  const [first, second, third] = found as [(typeof found)[0], (typeof found)[0], (typeof found)[0]]
  const shown = yield* letters("show", third.id, "--json")
  const letter = JSON.parse(shown.stdout)
  // What TOAST has and an update left alone is not null.
  assert.deepStrictEqual(letter.change.unchanged, ["body"])
  assert.deepInclude(letter.change.row, { id: 2, at: 2, price: "1.50", data: "\\x00ff" })
  assert.match((yield* letters("show", first.id)).stdout, /failed of +Refused: row 2 has a secret\n/)

  for (const [args, code, error] of [
    [["show", "nobodys"], 1, /there is no dead letter nobodys/],
    [["drop", "--all"], 2, /4 letters would be dropped/],
    [["drop"], 2, /no dead letter is named/],
    [["retry", first.id, "--all"], 2, /exclude each other/]
  ] as const) {
    const ended = yield* letters(...args)
    assert.strictEqual(ended.code, code, ended.stderr)
    assert.match(ended.stderr, error)
    assert.strictEqual(ended.stdout, "")
  }
  // Nothing comes of that by itself: nobody has decided.
  isMended = true
  const dropped = yield* letters("drop", second.id)
  assert.strictEqual(dropped.stdout, "1 letter dropped; what waited behind is handled by the program\n", dropped.stderr)
  isMended = true
  yield* eventually(
    Effect.sync(() => handled.includes("3@2")),
    { what: "what waited behind is handled" }
  )
  assert.notInclude(handled, "2@1")
  const marked = yield* letters("retry", "--all", "--slot", workspace.slot)
  assert.match(marked.stdout, /^1 letter marked/)
  yield* eventually(
    Effect.map(listed, (left) => left.length === 0),
    { what: "all letters are handled" }
  )
  assert.deepStrictEqual(handled, ["1@1", "1@2", "3@2", "2@1", "2@2"])
  assert.deepInclude(rows.at(-2)!, { price: "1.50", data: new Uint8Array([0, 255]) })
  yield* workspace.sql("UPDATE items SET at = 3 WHERE id = 2")
  yield* eventually(
    Effect.sync(() => handled.at(-1) === "2@3"),
    { what: "the row is let go" }
  )
  yield* Fiber.interrupt(fiber)
})

describe("replicant dead-letters", () => {
  onServer("postgres", "lists, shows, drops and marks what is parked in a table, and the program acts", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items, publication: "FOR TABLE items" })
      const store = Layer.provide(
        DeadLetters.sql({ table: "dead letters", createTable: "ifMissing" }),
        sqlClient(workspace.url())
      )
      const early = yield* replicant(["dead-letters", "list", "--table", "dead letters"], {
        DATABASE_URL: workspace.url()
      })
      assert.strictEqual(early.code, 1)
      assert.match(early.stderr, /does not exist \(42P01\)\ncure: name the store/)
      yield* decides(workspace, store, ["--table", "dead letters"])
    })
  )

  onServer("postgres", "lists, shows, drops and marks what is parked in a file, and the program acts", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items, publication: "FOR TABLE items" })
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-letters-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      )
      const path = join(directory, "letters.jsonl")
      const early = yield* replicant(["dead-letters", "list", "--file", path])
      assert.strictEqual(early.code, 1)
      assert.match(early.stderr, /letters\.jsonl: ENOENT\ncure: name the store/)
      yield* decides(workspace, DeadLetterFile.layer({ path }), ["--file", path])
    })
  )
})
