/** All that a doctor looks for, held against the page that lists it and the tests that provoke it. */
import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Doctor } from "@replicant/core/operations"
import * as Copy from "../../src/copy/Copy.ts"

const root = new URL("../../../../", import.meta.url)

const read = (path: string): string => Fs.readFileSync(new URL(path, root), "utf8")

const checks = [...Doctor.checks, ...Copy.checks]

/** The anchors of a page's headings, as GitHub makes them. */
const anchors = (page: string): ReadonlyArray<string> =>
  [...page.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-")
  )

describe("docs/doctor.md", () => {
  it("lists every check that there is, in their order and in their words, and no other", () => {
    const page = read("docs/doctor.md")
    const rows = page
      .slice(page.indexOf("\n## What it looks for\n"))
      .matchAll(/^\| `([^`]+)` \| (.*) \| \[[^\]]*\]\(([^)]*)\) \|$/gm)
    assert.deepStrictEqual(
      Array.from(rows, ([, id, about, link]) => [id, about, link]),
      checks.map(({ about, atStart, id, page }) => [id, atStart ? `${about} *` : about, page.replace("docs/", "")])
    )
  })

  it("bears each id once, and leads to a section that is there", () => {
    assert.strictEqual(new Set(checks.map(({ id }) => id)).size, checks.length)
    for (const { id, page } of checks) {
      const [file = "", anchor] = page.split("#")
      if (anchor !== undefined) assert.include(anchors(read(file)), anchor, id)
      else assert.isTrue(Fs.existsSync(new URL(file, root)), id)
    }
  })

  it("has at least forty, each provoked by a test on a server", () => {
    assert.isAbove(checks.length, 40)
    const tests = Fs.readdirSync(new URL("test/", root))
      .filter((name) => /^Doctor.*\.test\.ts$/.test(name))
      .map((name) => read(`test/${name}`))
      .join("\n")
    assert.deepStrictEqual(
      checks.map(({ id }) => id).filter((id) => !tests.includes(`"${id}"`)),
      []
    )
  })
})
