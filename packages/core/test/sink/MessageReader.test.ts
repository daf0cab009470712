/** Changes become messages: where they stand, whose they are, and what is in them. */
import { assert, describe, it } from "@effect/vitest"
import type { Begin, Change, Message as Emitted } from "../../src/change/Change.ts"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Debezium from "../../src/sink/Debezium.ts"
import * as Envelope from "../../src/sink/Envelope.ts"
import type { Message, Source } from "../../src/sink/Message.ts"
import { MessageReader, type ReaderOptions } from "../../src/sink/MessageReader.ts"
import * as Place from "../../src/sink/Place.ts"
import * as Route from "../../src/sink/Route.ts"
import type { ChangeAfterSnapshot, SnapshotStarted } from "../../src/snapshot/SnapshotChange.ts"
import { item, items, moved, Transactions } from "../handling/delivering.ts"
import * as shop from "../table/shop.ts"

const source: Source = { system: { systemId: "7", timeline: 2, database: "shop" }, slot: "orders" }

const readerOf = (more: Partial<ReaderOptions> = {}) =>
  new MessageReader({
    source,
    route: Route.patterns({ rows: "shop.{schema}.{table}", messages: "outbox.{prefix}", control: "control" }),
    encode: Envelope.encode,
    tombstones: false,
    ends: false,
    holds: () => false,
    ...more
  })

const read = (changes: ReadonlyArray<ChangeAfterSnapshot>, more?: Partial<ReaderOptions>) =>
  readerOf(more).read(changes)

const value = (message: Message | undefined) => JSON.parse(message!.value!)

const deleted =
  (id: number) =>
  (begin: Begin, ordinal: number): Change => ({
    _tag: "Delete",
    relation: items,
    old: { _tag: "Key", row: { id } },
    begin,
    ordinal
  })

describe("MessageReader", () => {
  it("tells an insert by place, key and destination, with its row and where it comes from", () => {
    const { ends, messages } = read(new Transactions().of(item(1, 7)))
    assert.lengthOf(messages, 1)
    const [message] = messages
    assert.deepInclude(message, {
      id: "0000000000000100-00000000",
      systemId: "7",
      op: "c",
      to: "shop.public.items",
      key: '["1"]'
    })
    assert.deepStrictEqual(value(message), {
      op: "c",
      key: { id: 1 },
      after: { id: 1, at: 7 },
      before: null,
      source: {
        system: "7",
        timeline: 2,
        database: "shop",
        slot: "orders",
        schema: "public",
        table: "items",
        lsn: "0/100",
        xid: 2,
        time: "2000-01-01T00:00:00.000000Z",
        ordinal: 0,
        last: true
      }
    })
    assert.deepStrictEqual(
      ends.map(({ behind, nextLsn }) => [behind, nextLsn.lsn]),
      [[1, 0x130n]]
    )
  })

  it("says of a transaction's last change that it is, also where reads part it", () => {
    const reader = readerOf()
    const changes = new Transactions().of(item(1), item(2), item(3))
    const outputs = changes.map((change) => reader.read([change]))
    const messages = outputs.flatMap((output) => output.messages)
    assert.deepStrictEqual(
      messages.map((message) => value(message).source.last),
      [false, false, true]
    )
    assert.lengthOf(outputs.at(-1)!.messages, 1, "the last one comes with the commit")
  })

  it("tells a row that moves as deleted under its old key and created under the new one", () => {
    const { messages } = read(new Transactions().of(moved(1, 2)))
    assert.deepStrictEqual(
      messages.map(({ id, key, op }) => [id, op, key]),
      [
        ["0000000000000100-00000000", "d", '["1"]'],
        ["0000000000000100-00000000.0001", "c", '["2"]']
      ]
    )
    assert.deepInclude(value(messages[1]), { op: "c", key: { id: 2 }, after: { id: 2, at: 0 } })
  })

  it("puts a tombstone behind each deletion, if asked to", () => {
    const { messages } = read(new Transactions().of(deleted(1), moved(2, 3)), { tombstones: true })
    assert.deepStrictEqual(
      messages.map(({ id, key, value }) => [id.slice(17), key, value === undefined]),
      [
        ["00000000", '["1"]', false],
        ["00000000.0001", '["1"]', true],
        ["00000001", '["2"]', false],
        ["00000001.0001", '["2"]', true],
        ["00000001.0002", '["3"]', false]
      ]
    )
  })

  it("leaves out what was not sent, and names it", () => {
    const update = (begin: Begin, ordinal: number): Change => ({
      ...shop.update(items, { id: 1 }, ["at"], undefined),
      begin,
      ordinal
    })
    const told = value(read(new Transactions().of(update)).messages[0])
    assert.deepStrictEqual([told.op, told.after, told.unchanged, told.before], ["u", { id: 1 }, ["at"], null])
  })

  it("tells the whole row before where the server does, and no key where rows may be alike", () => {
    const logs = shop.relation("public", "logs", ["a", "b"], ["a", "b"], "full")
    const update = (begin: Begin, ordinal: number): Change => ({
      ...shop.update(logs, { a: 1, b: 2 }, [], { _tag: "Full", row: { a: 0, b: 2 } }),
      begin,
      ordinal
    })
    const [message] = read(new Transactions().of(update)).messages
    assert.isUndefined(message!.key)
    assert.deepInclude(value(message), { op: "u", key: null, before: { a: 0, b: 2 }, after: { a: 1, b: 2 } })
  })

  it("tells each table of a truncate by itself", () => {
    const truncate = (begin: Begin, ordinal: number): Change => ({
      _tag: "Truncate",
      relations: [items, shop.others],
      cascade: true,
      restartIdentity: false,
      begin,
      ordinal
    })
    const { messages } = read(new Transactions().of(truncate))
    assert.deepStrictEqual(
      messages.map(({ id, to }) => [id.slice(17), to]),
      [
        ["00000000", "shop.public.items"],
        ["00000000.0001", "shop.public.others"]
      ]
    )
    assert.deepInclude(value(messages[0]), { op: "t", cascade: true, restartIdentity: false })
  })

  it("sends what is emitted by its prefix, within a transaction and outside of any", () => {
    const content = new TextEncoder().encode('{"n":1}')
    const told = { _tag: "Message" as const, prefix: "orders placed.v1", content, lsn: Lsn.fromString("0/900")! }
    const within = (begin: Begin, ordinal: number): Change =>
      ({ ...told, transactional: true, begin, ordinal, nextLsn: undefined }) satisfies Emitted
    const nextLsn = NextLsn.deliver(told.lsn, new Run())
    const alone: Emitted = { ...told, transactional: false, begin: undefined, ordinal: 0, nextLsn }
    const { ends, messages } = read([...new Transactions().of(within), alone])
    assert.deepStrictEqual(
      messages.map(({ id, op, to }) => [id, op, to]),
      [
        ["0000000000000100-00000000", "m", "outbox.orders%20placed%2Ev1"],
        ["0000000000000900", "m", "outbox.orders%20placed%2Ev1"]
      ]
    )
    assert.deepInclude(value(messages[0]), { prefix: "orders placed.v1", content: '{"n":1}' })
    assert.deepStrictEqual(
      ends.map(({ behind }) => behind),
      [1, 2]
    )
  })

  it("ends a transaction with a message of its own, if asked to, unless nothing is in it", () => {
    const of = new Transactions()
    const { messages } = read([...of.of(item(1), item(2)), ...of.of()], { ends: true })
    assert.deepStrictEqual(
      messages.map(({ id, op, to }) => [id, op, to]),
      [
        ["0000000000000100-00000000", "c", "shop.public.items"],
        ["0000000000000100-00000001", "c", "shop.public.items"],
        ["0000000000000130", "e", "control"]
      ]
    )
    assert.strictEqual(value(messages[2]).count, 2)
  })

  it("puts the rows of a first copy before their seam, and those of a later attempt behind them", () => {
    const started = (seam: string, attempt: number): SnapshotStarted => ({
      _tag: "SnapshotStarted",
      attempt,
      consistentPoint: Lsn.fromString(seam)!,
      tables: [{ relation: items, estimatedRows: 2 }]
    })
    const row = (snapshot: SnapshotStarted, id: number): ChangeAfterSnapshot => ({
      _tag: "SnapshotRow",
      snapshot,
      relation: items,
      row: { id, at: 0 }
    })
    const [first, second] = [started("0/F0", 1), started("0/100", 2)]
    const messages = [
      ...read([first, row(first, 1), second, row(second, 1), row(second, 2)]).messages,
      ...read(new Transactions().of(item(3))).messages
    ]
    assert.deepStrictEqual(
      messages.map(({ op }) => op),
      ["s", "r", "s", "r", "r", "c"]
    )
    const ids = messages.map(({ id }) => id)
    assert.deepStrictEqual(ids, [...new Set(ids)].sort(), "each later than the one before")
    assert.deepInclude(value(messages[0]).snapshot, { state: "started", attempt: 1, consistentPoint: "0/F0" })
  })

  it("makes nothing of what the engine has, and still tells what acknowledges it", () => {
    const of = new Transactions()
    const changes = [...of.of(item(1), item(2)), ...of.of(item(3))]
    const held = "0000000000000100-00000000"
    const { ends, messages } = read(changes, { holds: (id) => id <= held })
    assert.deepStrictEqual(
      messages.map(({ key }) => key),
      ['["2"]', '["3"]']
    )
    assert.deepStrictEqual(
      ends.map(({ behind }) => behind),
      [1, 2]
    )
  })

  it("leaves out what has no route", () => {
    const { ends, messages } = read(new Transactions().of(item(1)), { route: Route.patterns({ messages: "m" }) })
    assert.deepStrictEqual([messages.length, ends.length], [0, 1])
  })
})

describe("Place", () => {
  it("is taken apart and put together again", () => {
    for (const id of ["0000000000000130", "0000000001946FA8-0000002A", "FFFFFFFFFFFFFFF8-00000000.0002"])
      assert.strictEqual(Place.format(Place.parse(id)!), id)
    for (const id of ["", "1-1", "0000000000000130-1", "0000000000000130.00001"]) assert.isUndefined(Place.parse(id))
  })
})

describe("Debezium", () => {
  it("is the envelope that its consumers know", () => {
    const { messages } = read(new Transactions().of(item(1), deleted(2)), {
      encode: Debezium.encoder({ name: "shop" })
    })
    const [created, gone] = messages.map(value)
    assert.deepInclude(created, { op: "c", before: null, after: { id: 1, at: 0 }, ts_ms: 946_684_800_000 })
    assert.deepInclude(created.source, {
      connector: "postgresql",
      db: "shop",
      schema: "public",
      table: "items",
      lsn: 256
    })
    assert.deepInclude(gone, { op: "d", before: { id: 2 }, after: null })
  })
})
