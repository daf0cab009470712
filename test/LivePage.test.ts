/** examples/live-page.ts in a real browser: what others write is there at once, and a lost connection hides nothing. */
import { type ChildProcess, spawn } from "node:child_process"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import type { Page } from "playwright-core"
import { hasBrowser, openPage } from "./support/Browser.ts"
import { eventually, patience } from "./support/eventually.ts"
import { once, onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** A port that is free: another program may take it, but then this one says so. */
const freePort = Effect.callback<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = address !== null && typeof address === "object" ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

const gone = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

const start = (environment: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["examples/live-page.ts"], {
        cwd: root,
        env: { ...process.env, ...environment },
        stdio: ["ignore", "inherit", "inherit"]
      })
    ),
    gone
  )

const items = (page: Page) => Effect.promise(() => page.locator("#tickets li").allInnerTexts())

const shows = (page: Page, what: string, isThere: (texts: ReadonlyArray<string>) => boolean) =>
  eventually(Effect.map(items(page), isThere), { what })

/** When it was there, by the page's own clock: milliseconds since the epoch. */
const seenAt = (page: Page, text: string) =>
  Effect.promise(() =>
    page.evaluate<number>(`new Promise((resolve) => {
      const look = () => document.body.innerText.includes(${JSON.stringify(text)}) && (resolve(Date.now()), observer.disconnect())
      const observer = new MutationObserver(look)
      observer.observe(document.body, { childList: true, subtree: true })
      look()
    })`)
  )

const test: typeof onServer = (name, title, body, options) => {
  if (hasBrowser || process.env.CI !== undefined) onServer(name, title, body, options)
  else it.skip(`${title} (no Chromium on this machine: Debian's chromium)`, () => undefined)
}

describe("live-page.ts", () => {
  test(
    "postgres",
    "shows what another session writes, also after its connection was lost",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE TABLE tickets (id int PRIMARY KEY, title text, status text);
            INSERT INTO tickets VALUES (1, 'the door squeaks', 'open'); CREATE PUBLICATION tickets FOR TABLE tickets`
        })
        const port = yield* freePort
        yield* start({ DATABASE_URL: workspace.url(), PORT: String(port) })
        const url = `http://127.0.0.1:${port}`
        yield* eventually(
          Effect.tryPromise(() => fetch(url)).pipe(
            Effect.map(({ ok }) => ok),
            Effect.orElseSucceed(() => false)
          ),
          { what: "the page is served" }
        )
        const { complaints, page } = yield* openPage(url)
        yield* shows(page, "it shows what is there", (texts) => texts.join() === "#1 the door squeaks (open)")
        yield* eventually(workspace.isStreaming("live_page"), { what: "it streams" })

        const delays: Array<number> = []
        for (let id = 2; id <= 21; id++) {
          const seen = yield* Effect.forkChild(seenAt(page, `#${id} `), { startImmediately: true })
          yield* workspace.sql(`INSERT INTO tickets VALUES (${id}, 'noise', 'open')`)
          const written = yield* Clock.currentTimeMillis
          delays.push((yield* Effect.timeout(Fiber.join(seen), patience)) - written)
        }
        delays.sort((one, other) => one - other)
        yield* Effect.logInfo(`a write is seen after ${delays[10]} ms in the median`)

        yield* workspace.sql("UPDATE tickets SET status = 'done' WHERE id > 1")
        yield* shows(page, "what is done is gone", (texts) => texts.length === 1)
        yield* workspace.sql("TRUNCATE tickets")
        yield* shows(page, "the empty table is", (texts) => texts.length === 0)

        yield* workspace.sql(
          `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'live_page'`
        )
        yield* workspace.sql("INSERT INTO tickets VALUES (99, 'written meanwhile', 'open')")
        yield* shows(page, "what was written meanwhile is there", (texts) => texts.join().includes("#99"))
        assert.deepStrictEqual(complaints, [])
      }),
    once
  )
})
