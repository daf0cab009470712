/** The page of `Operations`, in a real browser, of streams on a real server. */
import { assert, describe, it } from "@effect/vitest"
import { LogicalStream, nextLsn, Pgoutput } from "@replicant/core"
import { Operations } from "@replicant/core/operations"
import { FaultProxy } from "@replicant/node/testing"
import { Effect, Exit, Latch, Scope } from "effect"
import type { Page } from "playwright-core"
import { hasBrowser, openPage } from "./support/Browser.ts"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { served } from "./support/Listening.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const secret = "whatever a row may hold"

/** What is not there yet, or is being drawn anew, is a failure like others: it is looked again. */
const text = (page: Page, selector: string) => Effect.tryPromise(() => page.locator(selector).innerText())

const shows = (page: Page, selector: string, pattern: RegExp, what: string) =>
  eventually(
    Effect.map(text(page, selector), (found) => pattern.test(found)),
    { what }
  )

const badge = "section .badge"
/** What an expression comes to there: a browser's names are not known here. */
const evaluated = (page: Page, expression: string) => Effect.tryPromise(() => page.evaluate<unknown>(expression))
const colour = (page: Page) => evaluated(page, `getComputedStyle(document.querySelector("${badge}")).color`)
const ground = (page: Page) => evaluated(page, "getComputedStyle(document.body).backgroundColor")

const test: typeof onServer = (name, title, body, options) => {
  if (hasBrowser || process.env.CI !== undefined) onServer(name, title, body, options)
  else it.skip(`${title} (no Chromium on this machine: Debian's chromium)`, () => undefined)
}

describe("the page of Operations", () => {
  test("postgres", "turns red with a stuck handler and a lost server, and recovers, without a complaint", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE items (id int PRIMARY KEY, note text)" })
      const proxy = yield* FaultProxy.make(server)
      const gate = yield* Latch.make(true)
      const throughProxy = walSender(workspace, { host: proxy.host, port: proxy.port })
      const stream = yield* LogicalStream.make({
        ...logicalOptions(workspace),
        health: { handlerStuck: { degraded: 1, failing: 3 }, notStreaming: { degraded: 0, failing: 3 } }
      })
      const watched = yield* Effect.provide(
        Operations.examined(stream, { publications: [workspace.publication] }),
        throughProxy
      )
      const scope = yield* Effect.acquireRelease(Scope.make(), (made) => Scope.close(made, Exit.void))
      const url = yield* Scope.provide(served(watched), scope)
      const { complaints, page } = yield* openPage(url)
      yield* stream
        .run((change) => gate.whenOpen(Effect.sync(() => nextLsn(change))))
        .pipe(Effect.provide(throughProxy), Effect.forkScoped)
      yield* shows(page, badge, /^ok: Streaming$/, "it is well")
      const wellColour = yield* colour(page)

      yield* gate.close
      yield* workspace.sql(`INSERT INTO items VALUES (1, '${secret}')`)
      yield* shows(page, badge, /^failing: Streaming$/, "the handler is stuck")
      assert.notStrictEqual(yield* colour(page), wellColour)
      yield* shows(page, ".reasons", /failing: the handler has not ended what it was given/, "it says why")
      yield* shows(page, "body > header .badge", /^failing$/, "the whole is no better")
      assert.notInclude(yield* text(page, "body"), secret)
      yield* gate.open
      yield* shows(page, badge, /^ok: Streaming$/, "the handler has ended")
      yield* shows(page, "section", /What the server keeps/, "its budget has come")

      yield* proxy.refuse
      yield* proxy.cut("rst")
      yield* shows(page, badge, /^failing: (Reconnecting|Connecting)$/, "the server is lost")
      yield* shows(page, ".failures", /ConnectionError: /, "it says by what")
      // What it is at moves once it is back: else it would not count as getting on.
      yield* workspace.sql("INSERT INTO items VALUES (2, NULL)")
      yield* proxy.pass
      yield* shows(page, badge, /^ok: Streaming$/, "the server is back")
      yield* shows(page, ".failures", /ConnectionError: /, "what it was is still told")

      // By keyboard alone: to the button, and to what it brings.
      yield* Effect.promise(() => page.locator("body").press("Tab"))
      const focused = yield* evaluated(page, "document.activeElement.textContent")
      assert.strictEqual(focused, "Ask the doctor")
      yield* Effect.promise(() => page.keyboard.press("Enter"))
      yield* shows(page, "section", /All is well: \d+ checks|(error|warning|note): /, "the doctor has looked")

      // A phone, and both kinds of light.
      yield* Effect.promise(() => page.setViewportSize({ width: 360, height: 740 }))
      assert.strictEqual(yield* evaluated(page, "document.body.scrollWidth > window.innerWidth"), false)
      yield* Effect.promise(() => page.emulateMedia({ colorScheme: "dark" }))
      const dark = yield* ground(page)
      yield* Effect.promise(() => page.emulateMedia({ colorScheme: "light" }))
      assert.notStrictEqual(yield* ground(page), dark)
      assert.deepStrictEqual(complaints, [])

      // From here on it complains, as it should: nobody answers.
      yield* Scope.close(scope, Exit.void)
      yield* shows(page, badge, /^no word from the process$/, "what is old does not pass for the present")
    })
  )

  test("postgres", "shows how far a first copy is, and that it moves", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE items (id int PRIMARY KEY, note text);
          INSERT INTO items SELECT n, '${secret}' FROM generate_series(1, 100000) n; ANALYZE items`
      })
      const stream = yield* LogicalStream.make({
        slot: workspace.slot,
        plugin: Pgoutput.make({ publications: [workspace.publication] }),
        snapshot: "initial",
        // It goes on for longer than anybody waits: however seldom a browser draws, it sees it move.
        copy: { rateLimit: { rows: 400 } }
      })
      const { complaints, page } = yield* openPage(yield* served(stream))
      yield* stream.run(() => Effect.succeed(undefined)).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      const bar = Effect.map(
        evaluated(
          page,
          "(({ hidden, max, value }) => ({ hidden, max, value }))(document.querySelector('progress') ?? {})"
        ),
        (found) => found as { readonly hidden?: boolean; readonly max?: number; readonly value?: number }
      )
      const seen = new Set<number>()
      yield* eventually(
        Effect.map(bar, ({ hidden = true, max = 0, value = 0 }) => {
          if (!hidden && max > 1 && value > 0 && value <= max) seen.add(value)
          return seen.size >= 3
        }),
        { what: "the bar moves" }
      )
      const values = [...seen]
      assert.deepStrictEqual(
        values,
        values.toSorted((one, other) => one - other)
      )
      assert.notInclude(yield* text(page, "body"), secret)
      assert.deepStrictEqual(complaints, [])
    })
  )
})
