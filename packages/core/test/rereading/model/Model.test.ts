/**
 * Which rows a target ends with whose table is read anew, over every order in which things can happen: writers, commits that
 * are streamed before they are seen, the reader, the stream, the store, and faults anywhere between. The law: where the table is
 * completed the target has it as it was there, and in the end as it is.
 */
import { assert, describe, it } from "@effect/vitest"
import { format, search, walk } from "./Checker.ts"
import { real } from "./Client.ts"
import { mistakes } from "./Mistakes.ts"
import type { Scenario } from "./World.ts"

/** How many states there are at least: a model that has shrunk proves less. */
const scenarios: ReadonlyArray<readonly [what: string, states: number, scenario: Scenario]> = [
  ["writers and a row that moves behind the reader", 2000, { rows: "bc", script: "mc>a ub" }],
  ["a transaction that had begun before", 900, { rows: "ab", script: "!ua mb>c" }],
  ["a row that is deleted and inserted again, and a TRUNCATE", 1000, { rows: "a", script: "da ia t" }],
  ["a pause", 1000, { rows: "ab", script: "ua", faults: ["Pause"] }],
  ["more told than is kept", 1000, { rows: "ab", script: "ua+ub ub", maxBytes: 150 }],
  ["a reader that is cut off", 800, { rows: "a", script: "da", faults: ["CutReader"] }],
  ["a stream that is cut off", 1500, { rows: "a", script: "ua", faults: ["Disconnect"] }],
  ["a restart", 3000, { rows: "a", script: "ua", faults: ["Crash"] }],
  ["a restart while a row moves", 2000, { rows: "bc", script: "mc>a", faults: ["Crash"], isPrompt: true }],
  ["another run in the same process", 300, { rows: "ab", script: "", faults: ["Rerun"] }],
  ["a gap and a restart", 1500, { rows: "a", script: "ua", faults: ["Gap", "Crash"], isPrompt: true }],
  ["an ALTER and a restart", 1000, { rows: "ab", script: "", faults: ["Alter", "Crash"], isPrompt: true }],
  ["a cancellation and a restart", 500, { rows: "a", script: "ua", faults: ["Cancel", "Crash"], isPrompt: true }]
]

describe("a table read anew, over every interleaving", () => {
  for (const [what, least, scenario] of scenarios) {
    it(`ends as the server has it: ${what}`, () => {
      const { finding, states } = search(scenario, real)
      if (finding !== undefined) assert.fail(format(finding))
      assert.isAtLeast(states, least)
    }, 60_000)
  }

  const walks = Number(process.env.SNAPSHOT_WALKS ?? 2000)

  it(`ends as the server has it on random walks, with up to four faults of any kind (${walks} walks)`, () => {
    const { finding } = walk({ seed: 1, walks, steps: 80 }, real)
    if (finding !== undefined) assert.fail(format(finding))
  }, 120_000)
})

describe("the checker", () => {
  for (const { client, law, scenario, what } of mistakes) {
    it(`finds ${what}`, () => {
      const { finding } = search(scenario, client)
      assert.isDefined(finding, "found nothing")
      assert.strictEqual(finding.law, law, format(finding))
    }, 60_000)
  }

  it("tells the shortest way to a wrong row, step by step", () => {
    const { client, scenario } = mistakes[0]!
    const { finding } = search(scenario, client)
    assert.isDefined(finding)
    assert.match(format(finding), /^completed: the target has a:.*, and the table was a:.*\n1\. /)
    assert.isAtMost(finding.trace.length, 12)
  })
})
