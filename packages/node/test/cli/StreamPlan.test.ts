import { assert, describe, it } from "@effect/vitest"
import { Lsn } from "@replicant/core"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { type StreamFlags, streamPlan } from "../../src/cli/StreamPlan.ts"

const flags = (given: Partial<StreamFlags>): StreamFlags => ({
  slot: Option.none(),
  publication: [],
  table: [],
  plugin: "pgoutput",
  create: false,
  temporary: false,
  failover: false,
  withoutIdentity: false,
  untilLsn: Option.none(),
  limit: Option.none(),
  pretty: false,
  boundaries: false,
  streaming: Option.none(),
  twoPhase: false,
  snapshot: Option.none(),
  connections: Option.none(),
  checkpoint: Option.none(),
  rateLimit: Option.none(),
  lease: false,
  listen: Option.none(),
  walDirectory: Option.none(),
  ...given
})

const slot = Option.some("orders")
const plan = (given: Partial<StreamFlags>) => Result.getOrThrow(streamPlan(flags(given), "generated"))
const refusal = (given: Partial<StreamFlags>): string =>
  Result.match(streamPlan(flags(given), "generated"), {
    onFailure: (error) => `${error.message}; ${error.remedy}`,
    onSuccess: () => "accepted"
  })

describe("streamPlan", () => {
  it("asks pgoutput for transactions in progress and prepared ones, and never wal2json", () => {
    const asked = { slot, publication: ["a"], streaming: Option.some("parallel" as const), twoPhase: true }
    const { plugin } = plan(asked)
    const names = Result.getOrThrow(plugin.options(180_000)).map(([name, value]) => `${name} ${value}`)
    assert.includeMembers(names, ["proto_version 4", "streaming parallel", "two_phase true"])
    assert.include(refusal({ ...asked, publication: [], plugin: "wal2json" }), "options of pgoutput")
  })

  it("reads a slot and publications that are there", () => {
    const { createSlot, plugin, publication, slot: name } = plan({ slot, publication: ["a", "b"] })
    assert.strictEqual(name, "orders")
    assert.isUndefined(createSlot)
    assert.isUndefined(publication)
    assert.deepStrictEqual(plugin.tells.publications, ["a", "b"])
  })

  it("refuses a lease of a slot that is gone with the command", () => {
    assert.strictEqual(plan({ slot, publication: ["a"], lease: true }).slot, "orders")
    for (const given of [
      { slot, temporary: true },
      { slot, snapshot: Option.some("only" as const) },
      { temporary: true }
    ]) {
      assert.include(refusal({ publication: ["a"], lease: true, ...given }), "--lease is of a slot that outlives")
    }
  })

  it("names the publication it makes after the slot, unless told otherwise", () => {
    assert.deepStrictEqual(plan({ slot, create: true, table: ["orders", "crm.people"] }).publication, {
      name: "orders",
      target: { _tag: "Tables", tables: ["orders", "crm.people"] }
    })
    assert.strictEqual(plan({ slot, create: true, table: ["t"], publication: ["p"] }).publication?.name, "p")
  })

  it("makes a slot only when asked to, and a name for a temporary one", () => {
    assert.strictEqual(plan({ slot, create: true, publication: ["p"] }).createSlot, "permanent")
    assert.deepInclude(plan({ temporary: true, publication: ["p"] }), { slot: "generated", createSlot: "temporary" })
    assert.strictEqual(plan({ temporary: true, create: true, publication: ["p"] }).createSlot, "temporary")
  })

  it("gives wal2json its tables, and no publications", () => {
    const { plugin, publication } = plan({ slot, plugin: "wal2json", table: ["orders", "crm.people"] })
    assert.isUndefined(publication)
    const options = Result.getOrThrow(plugin.options(150_000))
    assert.deepInclude(options, ["add-tables", "public.orders,crm.people"])
  })

  it("begins with a snapshot where that is asked for, by itself without a slot's name", () => {
    const publication = ["p"]
    assert.isUndefined(plan({ slot, publication }).snapshot)
    assert.isUndefined(plan({ slot, publication, snapshot: Option.some("never") }).snapshot)
    assert.strictEqual(plan({ slot, publication, snapshot: Option.some("initial") }).snapshot, "initial")
    assert.deepInclude(plan({ publication, snapshot: Option.some("only") }), { slot: "generated", snapshot: "only" })
  })

  it("refuses flags that make no sense together, each with its cure", () => {
    assert.match(refusal({}), /no slot is named; give --slot NAME, or --temporary/)
    assert.match(refusal({ slot }), /no publication is named; give --publication/)
    assert.match(refusal({ slot, table: ["t"] }), /needs --create; add --create/)
    assert.match(refusal({ slot, create: true, table: ["t"], publication: ["a", "b"] }), /one publication/)
    assert.match(refusal({ slot, plugin: "wal2json", publication: ["p"] }), /knows no publications/)
    const initial = Option.some("initial" as const)
    assert.match(refusal({ slot, plugin: "wal2json", snapshot: initial }), /a snapshot is of publications/)
    assert.match(refusal({ publication: ["p"], snapshot: initial }), /no slot is named/)
    assert.match(refusal({ slot, publication: ["p"], connections: Option.some(2) }), /--connections is of a snapshot/)
    assert.match(refusal({ slot, publication: ["p"], rateLimit: Option.some(9) }), /--rate-limit is of a snapshot/)
    const checkpoint = Option.some("/var/lib/audit")
    assert.match(refusal({ slot, publication: ["p"], checkpoint }), /--checkpoint is of a snapshot/)
    const nameless = { publication: ["p"], checkpoint, snapshot: initial }
    assert.match(refusal({ ...nameless, slot, temporary: true }), /under the slot's name/)
    assert.match(refusal({ failover: true, temporary: true, publication: ["p"] }), /leave out --failover/)
    const only = Option.some("only" as const)
    assert.match(refusal({ slot, publication: ["p"], checkpoint, snapshot: only }), /of --snapshot initial/)
    assert.match(
      refusal({ publication: ["p"], snapshot: only, untilLsn: Option.some(Lsn.zero) }),
      /before any LSN; leave out --until-lsn/
    )
  })
})
