/**
 * The list of scenarios that Replicant conforms to, against the titles of the tests in test/conformance: none may be
 * forgotten, and no title may bear an id that nobody listed. Reads their text, and runs none of them.
 */
import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"

const scenarios = {
  "Identity and rows": [
    ...["ri-default", "ri-full", "ri-full-with-pk", "ri-missing", "ri-switch", "composite-key", "update-no-change"],
    ...["one-row-many-changes", "upsert-merge-cte", "cascade-trigger", "bulk-copy"]
  ],
  "Columns, filters, publications": [
    ...["dropped-column", "fast-default", "generated-none", "column-list", "row-filter", "publish-ops"],
    ...["publications-union", "table-joins-later", "all-tables", "schema-publication", "publication-missing"],
    ...["publication-names"]
  ],
  "Partitions, inheritance, truncate": ["partition-leaf", "partition-root", "inheritance", "truncate"],
  TOAST: ["toast-unchanged", "toast-full"],
  Transactions: ["subtransactions", "commit-order", "empty-transactions", "spill"],
  "DDL under way": ["ddl-in-transaction", "ddl-by-another", "rewrite-silent", "drop-recreate"],
  "Types, text, names": ["type-edges", "identifiers", "encodings", "session-formats"],
  "Messages and origins": ["messages"],
  "Protocol 2 to 4": ["stream-large", "stream-abort-sub", "two-phase-off", "two-phase-on", "option-errors"],
  "Rolled back": ["aborted-truncated"],
  "Slots and the walsender": [
    ...["slot-names", "slot-errors", "resume", "start-position", "ack-limits", "wal-position-zero", "permissions"],
    ...["snapshot-export", "fast-shutdown", "walsender-timeout", "invalidated"]
  ]
}

/** Listed, and without a test as yet: to be emptied. */
const toCome: ReadonlyArray<string> = []

const directory = new URL("../../../test/conformance/", import.meta.url)

/** The first argument of every call of `scenario` in every file. */
const tested = new Set(
  readdirSync(directory)
    .filter((file) => file.endsWith(".test.ts"))
    .flatMap((file) => [...readFileSync(new URL(file, directory), "utf8").matchAll(/\bscenario\(\s*"([^"]+)"/g)])
    .map((match) => match[1]!)
)

describe("the scenarios of conformance", () => {
  const listed = Object.values(scenarios).flat()

  it("are listed once each", () => {
    assert.deepStrictEqual([...new Set(listed)], listed)
  })

  it("each have a test that bears their id, or are known to be missing", () => {
    assert.deepStrictEqual(
      listed.filter((id) => !tested.has(id)),
      toCome
    )
  })

  it("are listed when a test bears their id", () => {
    assert.deepStrictEqual(
      [...tested].filter((id) => !listed.includes(id)),
      []
    )
  })
})
