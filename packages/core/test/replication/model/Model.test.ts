/**
 * The laws of docs/delivery.md over every order in which things can happen: a slot, its server, the network, the client's
 * real `WalProgress`, and a handler that is honest but slow, concurrent, repetitive and late.
 */
import { assert, describe, it } from "@effect/vitest"
import * as WalProgress from "../../../src/replication/WalProgress.ts"
import { format, search, walk } from "./Checker.ts"
import { mistakes } from "./Mistakes.ts"
import type { Faults } from "./World.ts"

const faults = (reconnects: number, clientCrashes: number, serverCrashes: number): Faults => ({
  reconnects,
  clientCrashes,
  serverCrashes
})

/** What the WAL holds, and how many reconnections, crashes of the client and crashes of the server may happen. */
const scenarios: ReadonlyArray<readonly [what: string, wal: string, faults: Faults]> = [
  ["adjacent commits", "TT", faults(2, 1, 1)],
  ["adjacent commits with unpublished work behind", "TT-", faults(1, 1, 1)],
  ["unpublished work between commits", "-T-T-", faults(1, 1, 0)],
  ["messages outside transactions, one of equal LSN", "TEM", faults(1, 0, 1)],
  ["a transaction streamed while it is in progress", "[T[S", faults(1, 0, 1)],
  ["a message that cannot be decoded", "TMXT", faults(2, 1, 1)]
]

describe("the laws, over every interleaving", () => {
  for (const [what, wal, faults] of scenarios) {
    it(`lose nothing and end with all confirmed: ${what}`, () => {
      const { finding, states } = search({ wal, client: WalProgress, faults })
      if (finding !== undefined) assert.fail(format(finding, wal))
      assert.isAbove(states, 4000, "a model that has shrunk proves less")
    })
  }

  it("lose nothing on random walks over longer WAL, with faults without end", () => {
    const { finding } = walk({ client: WalProgress, seed: 20260, walks: 2500, steps: 120, records: 12 })
    if (finding !== undefined) assert.fail(format(finding, ""))
  })
})

describe("the checker", () => {
  for (const { client, property, wal, what } of mistakes) {
    it(`finds ${what}`, () => {
      const { finding } = search({ wal, client, faults: faults(1, 1, 1), properties: [property] })
      assert.isDefined(finding, "found nothing")
      assert.strictEqual(finding.property, property)
      // Breadth first: a trace that could be shorter would be told as such.
      assert.isAtMost(finding.trace.length, 8, format(finding, wal))
    })
  }

  it("finds mistakes on random walks too", () => {
    for (const { client, what } of mistakes) {
      const { finding } = walk({ client, seed: 7, walks: 2000, steps: 60, records: 8 })
      assert.isDefined(finding, what)
    }
  })

  it("tells the shortest way to a loss, step by step", () => {
    const { client, wal } = mistakes[0]!
    const { finding } = search({ wal, client, faults: faults(1, 1, 1), properties: ["loss"] })
    assert.isDefined(finding)
    assert.match(
      format(finding, wal),
      /^loss: T1 at 20 was never handled, and all is confirmed 21 \(WAL TT\)\n1\. read/
    )
    assert.lengthOf(finding.trace, 5)
  })
})
