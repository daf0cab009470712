/** What is told of a stream while it runs, held against the page that lists it. */
import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { parked } from "../../src/handling/Retry.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import * as CopyProgress from "../../src/snapshot/CopyProgress.ts"
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

describe("docs/watching.md", () => {
  it("lists every metric that there is, as the kind that it is, and no other", () => {
    const metrics = [...Object.values(Metrics), ...Object.values(CopyProgress), parked]
    assert.deepStrictEqual(
      rowsBelow("Metrics")
        .map(([, id, kind]) => `${id} ${kind}`)
        .toSorted(),
      metrics.map(({ id, type }) => `${id} ${type.toLowerCase()}`).toSorted()
    )
  })

  it("gives each metric a unit and a meaning", () => {
    for (const [, id, , unit, says] of rowsBelow("Metrics")) assert.isTrue(unit !== "" && says !== "", id)
  })

  it("lists every state of a stream, in its order, and no other", () =>
    assert.deepStrictEqual(
      rowsBelow("The state").map(([, tag]) => tag),
      Object.keys(states)
    ))
})
