/** What is told of a stream while it runs, held against the page that lists it. */
import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { metricsPage, metricsPath } from "../../../../scripts/metricsPage.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import type { StreamState } from "../../src/stream/StreamState.ts"

const page = Fs.readFileSync(new URL("../../../../docs/watching.md", import.meta.url), "utf8")

/** The rows of the table below a heading, as their cells. */
const rowsBelow = (heading: string): ReadonlyArray<ReadonlyArray<string>> => {
  const lines = page.slice(page.indexOf(`\n## ${heading}\n`)).split("\n")
  const begin = lines.findIndex((line) => line.startsWith("|---")) + 1
  return lines
    .slice(
      begin,
      lines.findIndex((line, index) => index >= begin && !line.startsWith("|"))
    )
    .map((line) => line.split("|").map((cell) => cell.trim().replaceAll("`", "")))
}

/** Every state there is: one that is missing here, or too many, does not compile. */
const states: { readonly [Tag in StreamState["_tag"]]: true } = {
  Idle: true,
  Connecting: true,
  Copying: true,
  WaitingForSlot: true,
  WaitingForGap: true,
  Streaming: true,
  Stalled: true,
  Reconnecting: true,
  Stopped: true
}

describe("docs/metrics.md", () => {
  it("is what the table of metrics says: npm run api writes it anew", () =>
    assert.strictEqual(Fs.readFileSync(metricsPath, "utf8"), metricsPage(Metrics.table)))

  it("has a unit in each name, and a total in that of each counter", () => {
    const suffixes = {
      By: /_bytes(_total)?$/,
      "By/s": /_bytes_per_second$/,
      s: /_seconds$/,
      lsn: /_lsn$/,
      "rows/s": /_rows_per_second$/,
      "1": /./
    }
    for (const [id, { kind, says, unit }] of Metrics.table) {
      assert.match(id, suffixes[unit])
      assert.strictEqual(id.endsWith("_total"), kind === "Counter", id)
      assert.isAbove(says.length, 20, id)
    }
  })

  it("is the only place that names one: what watching.md names is in it", () => {
    const named = [...page.matchAll(/\breplicant_[a-z_]+/g)].map(([id]) => id)
    assert.isAbove(named.length, 5)
    for (const id of named) assert.isTrue(Metrics.table.has(id), id)
  })
})

describe("docs/watching.md", () => {
  it("lists every state of a stream, in its order, and no other", () =>
    assert.deepStrictEqual(
      rowsBelow("The state").map(([, tag]) => tag),
      Object.keys(states)
    ))
})

describe("the pictures of docs/watching.md", () => {
  it("are there, each with words for who does not see it, and small", () => {
    const pictures = [...page.matchAll(/!\[([^\]]*)\]\((images\/[^)]+\.png)\)/g)]
    assert.lengthOf(pictures, 4)
    for (const [, words, path] of pictures) {
      const picture = Fs.readFileSync(new URL(`../../../../docs/${path}`, import.meta.url))
      assert.deepStrictEqual([...picture.subarray(1, 4)], [...new TextEncoder().encode("PNG")], path)
      assert.isBelow(picture.length, 150_000, path)
      assert.isAbove(words!.length, 10, path)
    }
  })
})
