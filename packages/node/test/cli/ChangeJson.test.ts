import { assert, describe, it } from "@effect/vitest"
import type { Change, Snapshot } from "@replicant/core"
import { ValueJson } from "@replicant/core/sink"
import { encodeChange } from "../../src/cli/ChangeJson.ts"
import { begin, commit, insert, lsn, message, orders, relation, snapshot } from "../support/Changes.ts"

const parse = (change: Change): Record<string, unknown> => JSON.parse(encodeChange(change))

const of = begin("0/1A2B3C8")

describe("encodeChange", () => {
  it("tells where an insert stands, and its row", () => {
    assert.deepStrictEqual(parse(insert(of, 3, { id: 1n, note: "x" })), {
      kind: "insert",
      schema: "public",
      table: "orders",
      lsn: "0/1A2B3C8",
      xid: 742,
      time: "2000-01-01T00:00:00.000001Z",
      ordinal: 3,
      row: { id: "1", note: "x" }
    })
  })

  it("tells JSON's null from NULL, wherever it is in the line", () => {
    const [json] = ValueJson.types.byName!.values()
    const rowOf = (data: unknown) => encodeChange(insert(of, 0, { id: 1n, data }))
    assert.notStrictEqual(rowOf(json!("null")), rowOf(null))
    assert.notInclude(rowOf(null), "jsonNull")
    assert.notInclude(rowOf(json!('{"a":null}')), "jsonNull")
    const change: Change = {
      _tag: "Update",
      begin: of,
      ordinal: 0,
      relation: orders,
      row: { "a/~b": json!(" null\n"), list: [null, [json!("null")], json!("0")] },
      unchanged: [],
      old: { _tag: "Full", row: { a: json!("null"), b: null } }
    }
    const line = parse(change)
    assert.deepStrictEqual(line.jsonNull, ["/row/a~1~0b", "/row/list/1/0", "/old/a"])
    assert.deepStrictEqual(line.row, { "a/~b": null, list: [null, [null], 0] })
  })

  it("tells a key that changed, and the columns that were not sent", () => {
    const change: Change = {
      _tag: "Update",
      begin: of,
      ordinal: 0,
      relation: orders,
      row: { id: 2 },
      unchanged: ["note"],
      old: { _tag: "Key", row: { id: 1 } }
    }
    assert.deepInclude(parse(change), { kind: "update", row: { id: 2 }, unchanged: ["note"], key: { id: 1 } })
  })

  it("leaves out what an update does not have", () => {
    const change: Change = {
      _tag: "Update",
      begin: of,
      ordinal: 0,
      relation: orders,
      row: { id: 2 },
      unchanged: [],
      old: undefined
    }
    assert.deepStrictEqual(Object.keys(parse(change)).slice(-2), ["ordinal", "row"])
  })

  it("tells a whole old row as old, and a key as key", () => {
    const deleted = (_tag: "Key" | "Full"): Change => ({
      _tag: "Delete",
      begin: of,
      ordinal: 0,
      relation: orders,
      old: { _tag, row: { id: 1 } }
    })
    assert.deepInclude(parse(deleted("Full")), { kind: "delete", old: { id: 1 } })
    assert.deepInclude(parse(deleted("Key")), { kind: "delete", key: { id: 1 } })
  })

  it("tells all tables of a truncate in one line", () => {
    const relations = [orders, relation('we"ird', ["id"], [])]
    const change: Change = { _tag: "Truncate", begin: of, ordinal: 0, relations, cascade: true, restartIdentity: false }
    assert.deepInclude(parse(change), {
      kind: "truncate",
      cascade: true,
      restartIdentity: false,
      tables: [
        { schema: "public", table: "orders" },
        { schema: "public", table: 'we"ird' }
      ]
    })
  })

  it("writes a message as text where it is text, else as bytes", () => {
    assert.deepStrictEqual(parse(message("0/20", new TextEncoder().encode("hé"))), {
      kind: "message",
      lsn: "0/20",
      ordinal: 0,
      transactional: false,
      prefix: "audit",
      content: "hé"
    })
    assert.deepInclude(parse(message("0/20", new Uint8Array([255]))), { bytes: "\\xff" })
  })

  it("tells of a transactional message which transaction it belongs to", () => {
    const change = { ...message("0/20", new Uint8Array(0)), transactional: true, begin: of, nextLsn: undefined }
    assert.deepInclude(parse(change), { lsn: "0/1A2B3C8", xid: 742, transactional: true })
  })

  it("frames a transaction by begin and commit", () => {
    assert.deepInclude(parse(of), { kind: "begin", lsn: "0/1A2B3C8", xid: 742 })
    assert.deepInclude(parse(commit(of, "0/1A2B400")), { kind: "commit", lsn: "0/1A2B3C8", endLsn: "0/1A2B400" })
  })

  it("tells an origin, and a new shape of a table", () => {
    const origin: Change = { _tag: "Origin", begin: of, ordinal: 0, name: "berlin", originLsn: lsn("0/9") }
    assert.deepInclude(parse(origin), { kind: "origin", name: "berlin", originLsn: "0/9" })
    const altered: Change = { _tag: "RelationChanged", begin: of, ordinal: 0, before: orders, relation: orders }
    assert.deepInclude(parse(altered), {
      kind: "relation",
      table: "orders",
      columns: [
        { name: "id", type: "text", key: true },
        { name: "note", type: "text", key: false }
      ]
    })
  })

  it("tells a snapshot: where it stands, its rows as of there, its ends", () => {
    const lines = snapshot("0/1A2B3C8", [{ id: 9_007_199_254_740_993n, note: null }], 2).map((change) =>
      JSON.parse(encodeChange(change))
    )
    const at = { lsn: "0/1A2B3C8" }
    const table = { schema: "public", table: "orders" }
    assert.deepStrictEqual(lines, [
      { kind: "snapshotStarted", ...at, attempt: 2, tables: [{ ...table, estimatedRows: null }] },
      { kind: "snapshotRow", ...table, ...at, row: { id: "9007199254740993", note: null } },
      { kind: "snapshotTableCompleted", ...table, ...at, rows: 1, bytes: 20 },
      { kind: "snapshotCompleted", ...at, rows: 1, bytes: 20 }
    ])
  })

  it("tells a snapshot that goes on: what stays, what is void, what is gone", () => {
    const [started] = snapshot("0/90", [])
    assert(started?._tag === "SnapshotStarted")
    const [{ relation: of } = { relation: orders }] = started.tables
    const resumed: Snapshot.Resumed = {
      ...started,
      _tag: "SnapshotResumed",
      tables: [{ relation: of, estimatedRows: 7, state: "partial" }],
      unpublished: [{ schema: "s", name: "gone" }],
      checkpoint: "SECRET"
    }
    const table = { schema: "public", table: "orders" }
    const elements: ReadonlyArray<Snapshot.Change> = [
      resumed,
      { _tag: "SnapshotTableRestarted", snapshot: resumed, relation: of },
      { _tag: "SnapshotRowDeleted", snapshot: resumed, relation: of, old: { _tag: "Key", row: { id: 1 } } },
      { _tag: "SnapshotRangeCompleted", snapshot: resumed, relation: of, checkpoint: "SECRET" }
    ]
    assert.deepStrictEqual(
      elements.map((change) => JSON.parse(encodeChange(change))),
      [
        {
          kind: "snapshotResumed",
          lsn: "0/90",
          attempt: 1,
          tables: [{ ...table, estimatedRows: 7, state: "partial" }],
          unpublished: [{ schema: "s", table: "gone" }]
        },
        { kind: "snapshotTableRestarted", ...table, lsn: "0/90" },
        { kind: "snapshotRowDeleted", ...table, lsn: "0/90", key: { id: 1 } },
        { kind: "snapshotRangeCompleted", ...table, lsn: "0/90" }
      ]
    )
  })
})
