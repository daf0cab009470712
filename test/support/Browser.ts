/** A real browser of a test's own: Debian's Chromium, without a window. */
import { existsSync } from "node:fs"
import { Duration, Effect } from "effect"
import { chromium, type Page } from "playwright-core"
import { patience } from "./eventually.ts"

const program = "/usr/bin/chromium"

/** Whether this machine has it: Debian's package `chromium`. */
export const hasBrowser = existsSync(program)

export interface Opened {
  readonly page: Page
  /** What the page has complained of so far, uncaught failures and refusals of its policy included. */
  readonly complaints: ReadonlyArray<string>
}

/** Milliseconds, as {@link patience}. */
const timeout = Duration.toMillis(patience)

/** Opens a page; the scope closes the browser. */
export const openPage = Effect.fnUntraced(function* (url: string) {
  const browser = yield* Effect.acquireRelease(
    // Without the sandbox it runs as root, too, as in a container; it sees nothing but our own page.
    Effect.promise(() => chromium.launch({ executablePath: program, args: ["--no-sandbox"], timeout })),
    (launched) => Effect.promise(() => launched.close())
  )
  const complaints: Array<string> = []
  const page = yield* Effect.promise(() => browser.newPage())
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text())
  })
  page.on("pageerror", (error) => complaints.push(String(error)))
  yield* Effect.promise(() => page.goto(url, { waitUntil: "domcontentloaded", timeout }))
  return { page, complaints } satisfies Opened
})
