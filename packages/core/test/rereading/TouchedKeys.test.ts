import { assert, describe, it } from "@effect/vitest"
import type { Begin, Change, Row } from "../../src/change/Change.ts"
import type * as Relation from "../../src/change/Relation.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import { TouchedKeys } from "../../src/rereading/TouchedKeys.ts"
import type { TransactionSnapshot } from "../../src/snapshot/TransactionSnapshot.ts"
import { Random } from "../support/Random.ts"

const relation: Relation.Relation = {
  oid: 1,
  schema: "public",
  name: "t",
  replicaIdentity: "default",
  columns: ["id", "note", "big"].map((name) => ({
    name,
    isKey: name === "id",
    typeOid: 25,
    typeName: "text",
    typeModifier: -1
  }))
}

const beginOf = (xid: number): Begin => ({
  _tag: "Begin",
  xid,
  commitLsn: Lsn.zero,
  commitTime: PgTimestamp.make(0)
})

/** What a transaction does to one table, and how the walsender tells it. */
type Operation = { readonly change: Change; readonly run: (table: Map<string, Row>) => void }

const insert = (xid: number, row: Row): Operation => ({
  change: { _tag: "Insert", begin: beginOf(xid), ordinal: 0, relation, row, unchanged: [] },
  run: (table) => void table.set(String(row.id), row)
})

const update = (xid: number, id: string, { big, ...row }: Row): Operation => ({
  change: {
    _tag: "Update",
    begin: beginOf(xid),
    ordinal: 0,
    relation,
    row: big === undefined ? row : { ...row, big },
    unchanged: big === undefined ? ["big"] : [],
    old: row.id === id ? undefined : { _tag: "Key", row: { id } }
  },
  run: (table) => {
    const before = table.get(id)!
    table.delete(id)
    table.set(String(row.id), { ...before, ...row, ...(big === undefined ? {} : { big }) })
  }
})

const remove = (xid: number, id: string): Operation => ({
  change: { _tag: "Delete", begin: beginOf(xid), ordinal: 0, relation, old: { _tag: "Key", row: { id } } },
  run: (table) => void table.delete(id)
})

const truncate = (xid: number): Operation => ({
  change: {
    _tag: "Truncate",
    begin: beginOf(xid),
    ordinal: 0,
    relations: [relation],
    cascade: false,
    restartIdentity: false
  },
  run: (table) => table.clear()
})

const makeKeys = (maxBytes = 1_000_000) => {
  const keys = new TouchedKeys({ oid: 1, keyColumns: ["id"], maxBytes })
  keys.follow()
  keys.expect(relation)
  return keys
}

const deliver = (keys: TouchedKeys, xid: number, operations: ReadonlyArray<Operation>) => {
  keys.deliver(beginOf(xid))
  for (const { change } of operations) keys.deliver(change)
}

/** Sees everything below `xmax` but these. */
const snapshot = (xmax: number, ...running: ReadonlyArray<number>): TransactionSnapshot => ({
  xmin: BigInt(Math.min(xmax, ...running)),
  xmax: BigInt(xmax),
  running: new Set(running.map(BigInt))
})

const row = (id: string, note: string, big = `big ${id}`): Row => ({ id, note, big })
const chunk = (...rows: ReadonlyArray<Row>) => new Map(rows.map((one) => [String(one.id), one]))

describe("TouchedKeys", () => {
  it("leaves rows as they are which nothing has touched that the snapshot does not see", () => {
    const keys = makeKeys()
    deliver(keys, 10, [update(10, "a", { id: "a", note: "old" }), remove(10, "b")])
    const rows = chunk(row("a", "1"), row("b", "2"))
    assert.deepStrictEqual(keys.resolve(snapshot(11), rows), rows)
  })

  it("lays an update over the row, and keeps the value that the update did not send", () => {
    const keys = makeKeys()
    deliver(keys, 10, [update(10, "a", { id: "a", note: "new" })])
    assert.deepStrictEqual(keys.resolve(snapshot(10), chunk(row("a", "1"))), chunk(row("a", "new")))
  })

  it("drops what was deleted, also where it was inserted again, which the stream has brought", () => {
    const keys = makeKeys()
    deliver(keys, 10, [remove(10, "a"), remove(10, "b"), insert(10, row("b", "again"))])
    assert.deepStrictEqual(keys.resolve(snapshot(10), chunk(row("a", "1"), row("b", "2"))), chunk())
  })

  it("drops every row that a TRUNCATE has taken", () => {
    const keys = makeKeys()
    deliver(keys, 10, [truncate(10)])
    assert.strictEqual(keys.resolve(snapshot(10), chunk(row("a", "1"))).size, 0)
  })

  it("moves a row with its key, and what it had", () => {
    const keys = makeKeys()
    deliver(keys, 10, [update(10, "a", { id: "z", note: "moved" })])
    assert.deepStrictEqual(
      keys.resolve(snapshot(10), chunk(row("a", "1"))),
      chunk({ ...row("z", "moved"), big: "big a" })
    )
    assert.strictEqual(keys.rereads.size, 0)
  })

  it("asks for a key once more that a row moved to from where no chunk has been, until a snapshot sees it", () => {
    const keys = makeKeys()
    deliver(keys, 10, [update(10, "z", { id: "a", note: "moved" })])
    keys.resolve(snapshot(10), chunk(row("b", "1")))
    assert.deepStrictEqual(Array.from(keys.rereads.values()), [{ xid: 10, values: ["a"] }])
    keys.resolve(snapshot(10), chunk(), ["a"])
    assert.strictEqual(keys.rereads.size, 1)
    keys.resolve(snapshot(11), chunk(row("a", "moved")), ["a"])
    assert.strictEqual(keys.rereads.size, 0)
  })

  it("does not take a row for whole that came to a key after another had left it", () => {
    const keys = makeKeys()
    deliver(keys, 10, [update(10, "a", { id: "b", note: "first" })])
    deliver(keys, 11, [remove(11, "b"), update(11, "z", { id: "b", note: "second" })])
    assert.strictEqual(keys.resolve(snapshot(10), chunk(row("a", "1"))).size, 0)
    assert.deepStrictEqual(Array.from(keys.rereads.keys()), ["b"])
  })

  it("takes a transaction anew that is delivered anew, in its place", () => {
    const keys = makeKeys()
    deliver(keys, 10, [update(10, "a", { id: "a", note: "cut off" })])
    deliver(keys, 10, [update(10, "a", { id: "a", note: "10" })])
    deliver(keys, 11, [update(11, "a", { id: "a", note: "11" })])
    deliver(keys, 10, [update(10, "a", { id: "a", note: "10" })])
    assert.deepStrictEqual(keys.resolve(snapshot(10), chunk(row("a", "1"))), chunk(row("a", "11")))
  })

  it("keeps nothing of what a snapshot has seen, of the past and of what comes of it later", () => {
    const keys = makeKeys(500)
    for (let xid = 10; xid < 1000; xid++) {
      deliver(keys, xid, [update(xid, "a", { id: "a", note: "note" })])
      keys.read(snapshot(xid + 1))
    }
    keys.read(snapshot(2000))
    for (let xid = 1000; xid < 2000; xid++) deliver(keys, xid, [update(xid, "a", { id: "a", note: "note" })])
    assert.isFalse(keys.isLost)
  })

  it("is lost beyond its budget, and follows again when it is told to", () => {
    const keys = makeKeys(500)
    for (let xid = 10; xid < 20; xid++) deliver(keys, xid, [update(xid, "a", { id: "a", note: "note" })])
    assert.isTrue(keys.isLost)
    keys.follow()
    deliver(keys, 20, [remove(20, "a")])
    assert.isFalse(keys.isLost)
    assert.strictEqual(keys.resolve(snapshot(20), chunk(row("a", "1"))).size, 0)
  })

  it("goes on noting keys to be read again while it is lost", () => {
    const keys = makeKeys()
    keys.lose()
    deliver(keys, 10, [update(10, "z", { id: "a", note: "moved" }), update(10, "b", { id: "b", note: "kept" })])
    assert.deepStrictEqual(Array.from(keys.rereads.keys()), ["a"])
  })

  it("is void when a change describes the table otherwise, and for a key that cannot be told", () => {
    const altered = makeKeys()
    const other = { ...relation, columns: relation.columns.slice(0, 2) }
    altered.deliver({ ...insert(10, { id: "a", note: "n" }).change, relation: other } as Change)
    assert.isTrue(altered.isVoid)
    const strange = makeKeys()
    deliver(strange, 10, [insert(10, { id: new Date(0), note: "n" })])
    assert.isTrue(strange.isVoid)
  })

  it("heeds no other relation", () => {
    const keys = makeKeys()
    keys.deliver({ ...remove(10, "a").change, relation: { ...relation, oid: 2 } } as Change)
    assert.strictEqual(keys.resolve(snapshot(10), chunk(row("a", "1"))).size, 1)
  })
})

/**
 * A table, writers whose transactions are committed in one order and become visible in another, and a reader that takes
 * chunks of it in the order of the keys, each handed over some transactions later. The target begins with nothing, so it
 * has no value that the stream does not send and no chunk has brought.
 */
const readTable = (
  seed: number
): { readonly table: Map<string, Row>; readonly target: Map<string, Row>; chunks: number } => {
  const random = new Random(seed)
  const ids = Array.from({ length: 12 }, (_, index) => String.fromCharCode(97 + index))
  const table = new Map<string, Row>()
  for (const id of ids) if (random.chance(60)) table.set(id, row(id, "0"))
  /** The table as of each set of transactions: a snapshot is its start with those that it sees laid over, in commit order. */
  const start = new Map(table)
  const committed: Array<{ readonly xid: number; readonly operations: ReadonlyArray<Operation> }> = []
  const invisible = new Set<number>()
  const target = new Map<string, Row>()
  const keys = makeKeys()
  let xid = 100

  const apply = (change: Change) => {
    if (change._tag === "Truncate") target.clear()
    if (change._tag === "Insert") target.set(String(change.row.id), change.row)
    if (change._tag === "Delete") target.delete(String(change.old.row.id))
    if (change._tag === "Update") {
      const from = String(change.old?.row.id ?? change.row.id)
      const before = target.get(from)
      target.delete(from)
      target.set(String(change.row.id), { ...before, ...change.row })
    }
  }
  const commit = () => {
    const own = xid++
    const operations: Array<Operation> = []
    const count = 1 + random.below(3)
    for (let index = 0; index < count; index++) {
      const id = random.pick(ids)
      const to = random.pick(ids)
      const note = `${own}.${index}`
      // Rows that an invisible transaction wrote are locked for others, and so are their keys.
      const touched = committed
        .filter((other) => invisible.has(other.xid))
        .flatMap(({ operations: others }) => others.flatMap(({ change }) => touchedBy(change)))
      if (touched.includes("*") || touched.includes(id) || touched.includes(to)) continue
      const operation = !table.has(id)
        ? insert(own, row(id, note, `big ${note}`))
        : random.chance(3) && touched.length === 0
          ? truncate(own)
          : random.chance(25)
            ? remove(own, id)
            : random.chance(40) && !table.has(to)
              ? update(own, id, { id: to, note, ...(random.chance(70) ? {} : { big: `big ${note}` }) })
              : update(own, id, { id, note, ...(random.chance(70) ? {} : { big: `big ${note}` }) })
      operation.run(table)
      operations.push(operation)
    }
    committed.push({ xid: own, operations })
    if (random.chance(35)) invisible.add(own)
    keys.deliver(beginOf(own))
    for (const { change } of operations) {
      keys.deliver(change)
      apply(change)
    }
  }
  const show = () => {
    for (const one of invisible) if (random.chance(40)) invisible.delete(one)
  }

  let after = ""
  let isDone = false
  let chunks = 0
  while (!isDone && chunks < 500) {
    for (let count = random.below(3); count > 0; count--) commit()
    show()
    const seen = new Map(start)
    for (const one of committed)
      if (!invisible.has(one.xid)) for (const operation of one.operations) operation.run(seen)
    const taken = snapshot(xid, ...invisible)
    keys.read(taken)
    const asked = Array.from(keys.rereads.keys()).filter(() => random.chance(80))
    const inOrder = Array.from(seen.keys())
      .sort()
      .filter((id) => id > after)
    const part = inOrder.slice(0, 1 + random.below(4))
    const rows = new Map(part.map((id) => [id, seen.get(id)!]))
    const visible = asked.filter((id) => !taken.running.has(BigInt(keys.rereads.get(id)!.xid)))
    for (const id of visible) if (seen.has(id)) rows.set(id, seen.get(id)!)
    for (let count = random.below(3); count > 0; count--) commit()
    show()
    for (const [id, one] of keys.resolve(taken, rows, visible)) target.set(id, one)
    after = part.at(-1) ?? after
    isDone = part.length === 0 && keys.rereads.size === 0
    chunks += 1
  }
  for (let count = random.below(4); count > 0; count--) commit()
  return { table, target, chunks }
}

/** Keys that a change writes to; `*` for all. */
const touchedBy = (change: Change): ReadonlyArray<string> => {
  switch (change._tag) {
    case "Insert":
      return [String(change.row.id)]
    case "Update":
      return [String(change.row.id), String(change.old?.row.id ?? change.row.id)]
    case "Delete":
      return [String(change.old.row.id)]
    case "Truncate":
      return ["*"]
    default:
      return []
  }
}

describe("rows read by chunks, with what the stream says laid over them", () => {
  const rounds = Number(process.env.SNAPSHOT_ROUNDS ?? 3000)

  it(`are the table, whatever is committed, seen and delivered when (${rounds} rounds)`, () => {
    for (let seed = 1; seed <= rounds; seed++) {
      const { chunks, table, target } = readTable(seed)
      const sorted = (rows: Map<string, Row>) => Array.from(rows).sort(([self], [that]) => (self < that ? -1 : 1))
      assert.isBelow(chunks, 500, `seed ${seed}`)
      assert.deepStrictEqual(sorted(target), sorted(table), `seed ${seed}`)
    }
  }, 120_000)
})
