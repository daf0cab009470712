import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { Change } from "../../src/change/Change.ts"
import type { ChangeOf, Operation } from "../../src/keeping/Operation.ts"
import * as Table from "../../src/keeping/Table.ts"
import * as Lsn from "../../src/Lsn.ts"
import type * as Snapshot from "../../src/stream/Snapshot.ts"
import { readerOf } from "../../src/stream/TypedSnapshot.ts"
import { Random } from "../support/Random.ts"
import { sqliteClient } from "../support/sqliteClient.ts"
import * as shop from "../table/shop.ts"

const Pages = Table.make(
  "public.pages",
  Schema.Struct({ site: Schema.String, at: Schema.Number, hits: Schema.Number, body: Schema.NullOr(Schema.String) }),
  { key: ["site", "at"], columns: { at: "place" } }
)
type Page = Table.Row<typeof Pages>

const pages = shop.relation("public", "pages", ["site", "place", "hits", "body"], ["site", "place"])

const columns = ({ at, ...row }: Partial<Page>) => ({ ...row, ...(at === undefined ? {} : { place: at }) })
const key = ({ at, site }: Page) => ({ site, place: at })

const insert = (row: Page): Change => shop.insert(pages, columns(row))

/** How rows are identified (under `full` every update tells all of the row, before and after), and what befalls them. */
interface Life {
  readonly identity: "default" | "full"
  readonly moves: boolean
  readonly repeats: boolean
}

/** As PostgreSQL tells it: the key before where it has changed, and no value that is stored out of line and was left alone. */
const update = (before: Page, after: Page, identity: Life["identity"] = "default"): Change => {
  if (identity === "full") return shop.update(pages, columns(after), [], { _tag: "Full", row: columns(before) })
  const isLeft = before.body === after.body && (before.body?.length ?? 0) > 3
  const { body, ...sent } = after
  const isMoved = Table.idOf(Pages, before) !== Table.idOf(Pages, after)
  const old = isMoved ? ({ _tag: "Key", row: key(before) } as const) : undefined
  return isLeft
    ? shop.update(pages, columns(sent), ["body"], old)
    : shop.update(pages, columns({ ...sent, body }), [], old)
}

const remove = (row: Page): Change => shop.deleted(pages, { _tag: "Key", row: key(row) })

const typed = (changes: ReadonlyArray<Snapshot.ChangeAfterSnapshot>): ReadonlyArray<ChangeOf<typeof Pages>> => {
  const out: Array<ChangeOf<typeof Pages>> = []
  const failure = readerOf<Snapshot.ChangeAfterSnapshot, typeof Pages, "fail">([Pages], undefined)().append(
    changes,
    out
  )
  assert.isUndefined(failure)
  return out
}

const started: Snapshot.ChangeAfterSnapshot = {
  _tag: "SnapshotStarted",
  attempt: 1,
  consistentPoint: Lsn.fromString("0/50")!,
  tables: []
}

/** A table that lives at random, all that is told of it, and what it held behind each. */
const makeHistory = (random: Random, length: number, { identity, moves }: Life) => {
  const rows = new Map<string, Page>()
  const history: Array<Snapshot.ChangeAfterSnapshot> = [started]
  const states: Array<ReadonlyArray<Page>> = [[]]
  const bodies = [null, "ab", "a long one", "another long one", "a third long one"]
  const anyKey = () => ({ site: random.pick(["a", "b"]), at: random.below(4) })
  const put = (row: Page) => rows.set(Table.idOf(Pages, row), row)
  while (history.length < length) {
    const place = anyKey()
    const there = rows.get(Table.idOf(Pages, place))
    const draw = random.below(60)
    if (there === undefined) {
      const row: Page = { ...place, hits: random.below(100), body: random.pick(bodies) }
      put(row)
      history.push(insert(row))
    } else if (draw === 0) {
      rows.clear()
      history.push(shop.truncate(pages))
    } else if (draw < 10) {
      rows.delete(Table.idOf(Pages, there))
      history.push(remove(there))
    } else {
      const to = moves && draw < 40 ? anyKey() : place
      const isFree = !rows.has(Table.idOf(Pages, to)) || Table.idOf(Pages, to) === Table.idOf(Pages, there)
      const after: Page = {
        ...(isFree ? to : place),
        hits: random.below(100),
        body: draw % 2 === 0 ? there.body : random.pick(bodies)
      }
      rows.delete(Table.idOf(Pages, there))
      put(after)
      history.push(update(there, after, identity))
    }
    states.push([...rows.values()])
  }
  return { history, states, rows }
}

const sorted = (rows: Iterable<Page>): ReadonlyArray<Page> =>
  [...rows].sort((left, right) => (Table.idOf(Pages, left) < Table.idOf(Pages, right) ? -1 : 1))

/**
 * In reads of any length, which may go back now and then, as after a crash: what is not acknowledged comes again. Whenever
 * all that came before has come again, `kept` has to be what the table held there.
 */
const deliver = Effect.fnUntraced(function* <E>(
  random: Random,
  life: Life,
  give: (changes: ReadonlyArray<ChangeOf<typeof Pages>>) => Effect.Effect<unknown, E>,
  kept: Effect.Effect<Iterable<Page>, E>
) {
  const { history, states } = makeHistory(random, 200, life)
  const all = typed(history)
  let [at, furthest] = [0, 0]
  while (at < all.length) {
    const end = Math.min(all.length, at + 1 + random.below(6))
    yield* give(all.slice(at, end))
    furthest = Math.max(furthest, end)
    if (end === furthest) assert.deepStrictEqual(sorted(yield* kept), sorted(states[end - 1]!), `behind ${end}`)
    at = life.repeats && random.below(4) === 0 ? Math.max(0, end - random.below(20)) : end
  }
})

/** The law of a write: of one id one operation, and nothing before what clears. */
const isLawful = (operations: ReadonlyArray<Operation<typeof Pages>>): boolean => {
  const ids = operations.flatMap((operation) =>
    operation._tag === "Clear" ? [] : operation._tag === "Move" ? [operation.id, operation.from.id] : [operation.id]
  )
  const clears = operations.map(({ _tag }) => _tag === "Clear")
  return new Set(ids).size === ids.length && clears.lastIndexOf(true) <= 0
}

/** Rows of a driver have prototypes of its own. */
const plain = (rows: ReadonlyArray<Page>): ReadonlyArray<Page> => rows.map((row) => ({ ...row }))

const seeds = Array.from({ length: 60 }, (_, seed) => seed + 1)

const lives: ReadonlyArray<readonly [string, Life]> = [
  ["whose rows change in part", { identity: "default", moves: false, repeats: true }],
  ["whose rows move in part, and nothing comes again", { identity: "default", moves: true, repeats: false }],
  ["whose rows move, told in full", { identity: "full", moves: true, repeats: true }]
]

for (const [what, life] of lives) {
  describe(`a store of a table ${what} is what the table is`, () => {
    it.effect("a Map, which meets no row twice in a request", () =>
      Effect.gen(function* () {
        let requests = 0
        for (const seed of seeds) {
          const map = new Map<string, Page>()
          const write = Table.inMap<typeof Pages>(map)
          const keep = Table.applyTo(Pages, (operations) => {
            requests++
            assert.isTrue(isLawful(operations), `seed ${seed}`)
            return write(operations)
          })
          const held = Effect.sync(() => map.values())
          yield* deliver(new Random(seed), life, keep, held)
          for (const row of map.values()) assert.strictEqual(map.get(Table.idOf(Pages, row)), row)
        }
        assert.isAbove(requests, 1000)
      })
    )

    it.effect("a KeyValueStore, which keeps what others have in it", () =>
      Effect.gen(function* () {
        const store = yield* KeyValueStore.KeyValueStore
        yield* store.set("settings", "kept")
        const kept = yield* Table.inKeyValueStore(Pages)
        const prefix = "public.pages/"
        const held = Effect.flatMap(store.keys, (keys) =>
          Effect.forEach(
            keys.filter((id) => id.startsWith(prefix)),
            (id) => {
              const [site, at] = JSON.parse(id.slice(prefix.length)) as [string, number]
              return Effect.map(kept.get({ site, at }), Option.getOrThrow)
            }
          )
        )
        for (const seed of seeds.slice(0, 20)) {
          yield* deliver(new Random(seed), life, Table.applyTo(Pages, kept.write), held)
        }
        assert.strictEqual(yield* store.get("settings"), "kept")
      }).pipe(Effect.provide(KeyValueStore.layerMemory))
    )

    it.effect("a table of SQLite", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE kept (site text, place int, hits int, body text, PRIMARY KEY (site, place))`
        const write = yield* Table.inSql(Pages, { table: "kept" })
        const held = Effect.map(sql<Page>`SELECT site, place AS at, hits, body FROM kept`, plain)
        for (const seed of seeds.slice(0, 20)) {
          yield* deliver(new Random(seed), life, Table.applyTo(Pages, write), held)
        }
      }).pipe(Effect.provide(sqliteClient(":memory:")))
    )
  })
}

describe("a store that is kept in step", () => {
  const operationsOf = Effect.fnUntraced(function* (...changes: ReadonlyArray<Snapshot.ChangeAfterSnapshot>) {
    const told: Array<Operation<typeof Pages>> = []
    const keep = Table.applyTo(Pages, (operations) => Effect.sync(() => told.push(...operations)))
    yield* keep(typed(changes))
    return told
  })

  const row: Page = { site: "a", at: 1, hits: 1, body: null }

  it.effect("what was void before is not carried out", () =>
    Effect.gen(function* () {
      const told = yield* operationsOf(insert(row), update(row, { ...row, at: 2 }), shop.truncate(pages), insert(row))
      assert.deepStrictEqual(
        told.map(({ _tag }) => _tag),
        ["Clear", "Put"]
      )
    })
  )

  it.effect("what is said of other tables leaves it alone", () =>
    Effect.gen(function* () {
      const snapshot = { ...started, _tag: "SnapshotResumed", tables: [], checkpoint: "", unpublished: [] } as const
      const read = { id: "1", attempt: 1, where: undefined, consistentPoint: Lsn.zero, estimatedRows: undefined }
      const told = yield* operationsOf(
        shop.truncate(shop.others),
        { ...snapshot, unpublished: [{ schema: "public", name: "others" }] },
        { _tag: "SnapshotTableRestarted", snapshot, relation: shop.others },
        { _tag: "TableSnapshotStarted", ...read, relation: shop.others }
      )
      assert.deepStrictEqual(told, [])
    })
  )

  it.effect("a table that is read anew is void, and one that is read under a condition is not", () =>
    Effect.gen(function* () {
      const read = { id: "1", attempt: 1, consistentPoint: Lsn.zero, estimatedRows: undefined, relation: pages }
      const of = (where: string | undefined) =>
        operationsOf({ _tag: "TableSnapshotStarted", ...read, where }, insert(row))
      assert.deepStrictEqual(
        (yield* of(undefined)).map(({ _tag }) => _tag),
        ["Clear", "Put"]
      )
      assert.deepStrictEqual(
        (yield* of("site = 'a'")).map(({ _tag }) => _tag),
        ["Put"]
      )
    })
  )

  it.effect("a part of a row that is not there is of one that is gone, and a row of a class stays one", () =>
    Effect.gen(function* () {
      const keep = new Map<string, shop.Customer>()
      const People = Table.make({ schema: "crm.eu", name: "customers" }, shop.Customer, { key: ["email"] })
      const write = Table.inMap<typeof People>(keep)
      const place = { id: "a@b.c", key: { email: "a@b.c" } }
      yield* write([{ _tag: "Patch", ...place, row: { tags: ["new"] } }])
      assert.strictEqual(keep.size, 0)
      yield* write([{ _tag: "Put", ...place, row: new shop.Customer({ email: "a@b.c", tags: [] }) }])
      yield* write([{ _tag: "Patch", ...place, row: { tags: ["new"] } }])
      assert.strictEqual(keep.get("a@b.c")?.domain, "b.c")
      assert.deepStrictEqual(keep.get("a@b.c")?.tags, ["new"])
    })
  )

  it.effect("a move that comes again, whole or half done, leaves what it made", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE kept (site text, place int, hits int, body text, PRIMARY KEY (site, place))`
      const map = new Map<string, Page>()
      const kept = yield* Table.inKeyValueStore(Pages)
      const writes = [Table.inMap<typeof Pages>(map), kept.write, yield* Table.inSql(Pages, { table: "kept" })]
      const long = { ...row, body: "a long one" }
      const { body, ...there } = { ...long, at: 2, hits: 2 }
      const placeOf = ({ at, site }: Page) => ({ id: Table.idOf(Pages, { site, at }), key: { site, at } })
      const from = placeOf(row)
      const to = placeOf({ ...row, at: 2 })
      const put = { _tag: "Put", ...from, row: long } as const
      const move = { _tag: "Move", ...to, from, row: there } as const
      for (const write of writes) {
        for (const operation of [put, move, move, { ...put, row }, move]) yield* write([operation])
      }
      const moved = { ...there, body: "a long one" }
      assert.deepStrictEqual([...map.values()], [moved])
      assert.deepStrictEqual(yield* kept.get(moved), Option.some(moved))
      assert.deepStrictEqual(yield* kept.get(row), Option.none())
      assert.deepStrictEqual(plain(yield* sql<Page>`SELECT site, place AS at, hits, body FROM kept`), [moved])
    }).pipe(Effect.provide([KeyValueStore.layerMemory, sqliteClient(":memory:")]))
  )

  const gap = {
    _tag: "Gap",
    slot: "pages",
    reason: "missing",
    lastLsn: undefined,
    consistentPoint: Lsn.fromString("0/900")!,
    nextLsn: shop.commit.nextLsn
  } as const

  it.effect("behind a gap it fails, with what came before carried out, unless it is a cache that may be emptied", () =>
    Effect.gen(function* () {
      const map = new Map<string, Page>()
      const changes = typed([insert(row), gap])
      const error = yield* Effect.flip(Table.applyTo(Pages, Table.inMap<typeof Pages>(map))(changes))
      assert.instanceOf(error, Table.TableGap)
      assert.match(error.message, /"pages" was lost.*public\.pages before 0\/900/)
      assert.strictEqual(map.size, 1)
      yield* Table.applyTo(Pages, Table.inMap<typeof Pages>(map), { gap: "clear" })(changes)
      assert.strictEqual(map.size, 0)
    })
  )

  it.effect("what is only prepared is refused, and so is a table without a key", () =>
    Effect.gen(function* () {
      const write = () => assert.fail("nothing is to be written")
      const prepared = typed([{ ...shop.begin, gid: "later" }])
      const error = yield* Effect.flip(Table.applyTo(Pages, write)(prepared))
      assert.match(error.message, /twoPhase/)
      const Keyless = Table.make("public.pages", Pages.rowSchema)
      assert.match((yield* Effect.flip(Table.applyTo(Keyless, write)([]))).message, /key.*public\.pages/)
    })
  )

  it.effect("what is stored under another Schema is told without its values", () =>
    Effect.gen(function* () {
      const store = yield* KeyValueStore.KeyValueStore
      const kept = yield* Table.inKeyValueStore(Pages)
      yield* store.set(`public.pages/${Table.idOf(Pages, row)}`, '{"secret":1}')
      const error = yield* Effect.flip(kept.get(row))
      assert.instanceOf(error, Table.StoredRowMismatch)
      assert.notInclude(JSON.stringify(error), "secret")
      assert.notInclude(String(error.cause), "secret")
    }).pipe(Effect.provide(KeyValueStore.layerMemory))
  )
})

describe("an id", () => {
  it("is the value of a plain key, and tells composite ones apart", () => {
    assert.strictEqual(Table.idOf(shop.Orders, { id: 42 }), "42")
    assert.strictEqual(Table.idOf(Pages, { site: "a", at: 1 }), '["a",1]')
    assert.notStrictEqual(Table.idOf(Pages, { site: 'a",1', at: 2 }), Table.idOf(Pages, { site: "a", at: 12 }))
  })
})
