/**
 * Pictures of the page of `Operations` for docs/watching.md: a stream of a PostgreSQL of its own, well and then not, as Debian's Chromium
 * shows it. `node scripts/screenshots.ts [--minutes 4]` writes docs/images/page-*.png.
 */
import * as Fs from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { NodeHttpServer } from "@effect/platform-node"
import { Handler, LogicalStream, nextLsn, Pgoutput } from "@replicant/core"
import { Operations } from "@replicant/core/operations"
import { PgWalSender } from "@replicant/node"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Effect, Latch, Layer, Redacted } from "effect"
import { HttpRouter } from "effect/http"
import { chromium, type Page } from "playwright-core"

const { values: flags } = parseArgs({ options: { minutes: { type: "string", default: "4" } } })
const directory = fileURLToPath(new URL("../docs/images/", import.meta.url))

const desktop = { width: 960, height: 560 }
const phone = { width: 390, height: 760 }

interface Look {
  readonly name: string
  readonly colorScheme: "light" | "dark"
  readonly size: { readonly width: number; readonly height: number }
}

const shoot = (page: Page, { colorScheme, name, size }: Look) =>
  Effect.promise(async () => {
    await page.setViewportSize(size)
    await page.emulateMedia({ colorScheme })
    await page.screenshot({ path: `${directory}page-${name}.png` })
    console.log(
      `docs/images/page-${name}.png: ${Math.round(Fs.statSync(`${directory}page-${name}.png`).size / 1000)} kB`
    )
  })

const program = Effect.gen(function* () {
  const server = yield* PgServer
  for (const statement of [
    "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)",
    "CREATE PUBLICATION orders FOR TABLE orders"
  ]) {
    yield* server.query(statement)
  }
  const proxy = yield* FaultProxy.make(server)
  const { password, user } = server
  const walSender = PgWalSender.layer({
    host: proxy.host,
    port: proxy.port,
    user,
    database: "postgres",
    password: Redacted.make(password),
    sslmode: "disable"
  })
  const gate = yield* Latch.make(true)
  const stream = yield* LogicalStream.make({
    slot: "orders",
    plugin: Pgoutput.make({ publications: ["orders"] }),
    createSlot: "permanent",
    health: { handlerStuck: { degraded: 5, failing: 20 }, notStreaming: { degraded: 0, failing: 10 } }
  })
  const watched = yield* Effect.provide(Operations.examined(stream, { publications: ["orders"] }), walSender)
  const http = createServer()
  yield* Layer.build(
    HttpRouter.serve(Operations.layer({ streams: [watched] }), { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provide(
        NodeHttpServer.layer(() => http, { host: "127.0.0.1", port: 0, gracefulShutdownTimeout: "10 millis" })
      )
    )
  )
  // A handler that takes its time, so that there is something to be behind.
  yield* stream
    .run(
      Handler.arrays((changes) =>
        gate.whenOpen(
          Effect.as(
            Effect.sleep(Math.min(400, changes.length)),
            changes.map(nextLsn).findLast((next) => next !== undefined)
          )
        )
      )
    )
    .pipe(Effect.provide(walSender), Effect.forkScoped)
  const browser = yield* Effect.acquireRelease(
    Effect.promise(() => chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] })),
    (launched) => Effect.promise(() => launched.close())
  )
  const page = yield* Effect.promise(() => browser.newPage({ viewport: desktop }))
  yield* Effect.promise(() => page.goto(`http://127.0.0.1:${(http.address() as AddressInfo).port}/`))

  // A day in small: now more, now less, and once a great deal.
  const seconds = Number(flags.minutes) * 60
  for (let second = 0; second < seconds; second++) {
    const wave = 200 + 150 * Math.sin(second / 15) + (second % 97 < 4 ? 4000 : 0)
    yield* server.query(
      `INSERT INTO orders (note) SELECT repeat('x', 200) FROM generate_series(1, ${Math.round(wave)})`
    )
    yield* Effect.sleep("1 second")
  }
  yield* shoot(page, { name: "light", colorScheme: "light", size: desktop })
  yield* shoot(page, { name: "dark", colorScheme: "dark", size: desktop })
  yield* shoot(page, { name: "phone", colorScheme: "light", size: phone })

  const badge = page.locator("section .badge")
  const isRed = Effect.promise(() => badge.filter({ hasText: /^failing/ }).waitFor({ timeout: 120_000 }))
  yield* proxy.refuse
  yield* proxy.cut("rst")
  yield* isRed
  // What it failed with, the cure, and a chart that rises.
  yield* Effect.sleep("15 seconds")
  yield* shoot(page, { name: "failing", colorScheme: "light", size: { width: 960, height: 760 } })
})

Fs.mkdirSync(directory, { recursive: true })
await Effect.runPromise(program.pipe(Effect.provide(PgServer.layer()), Effect.scoped))
