import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import type { Begin, Change, Commit, Message } from "../../src/change/Change.ts"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import { memory } from "../../src/checkpoint/CheckpointService.ts"
import * as CheckpointStore from "../../src/checkpoint/CheckpointStore.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as SnapshotControl from "../../src/rereading/Control.ts"
import { SnapshotLedger } from "../../src/rereading/Ledger.ts"
import { type Lost, next } from "../../src/rereading/Phase.ts"
import type { SnapshotJob, SnapshotRequestOptions } from "../../src/rereading/Request.ts"
import { TouchedKeys } from "../../src/rereading/TouchedKeys.ts"
import type { TableSnapshotStarted } from "../../src/snapshot/TableSnapshotChange.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { withRequests } from "../../src/stream/Requests.ts"
import { session, taking } from "../support/taking.ts"

const run = new Run()
const lsn = (value: number) => Lsn.make(BigInt(value))!

const begin = (at: number): Begin => ({ _tag: "Begin", xid: at, commitLsn: lsn(at), commitTime: PgTimestamp.make(0) })

const commit = (at: number): Commit => ({
  _tag: "Commit",
  begin: begin(at),
  commitLsn: lsn(at),
  endLsn: lsn(at + 1),
  nextLsn: NextLsn.deliver(lsn(at + 1), run)
})

const message = (at: number, content: string, prefix = "replicant.snapshot"): Message => ({
  _tag: "Message",
  transactional: true,
  begin: begin(at),
  ordinal: 0,
  lsn: lsn(at),
  prefix,
  content: new TextEncoder().encode(content),
  nextLsn: undefined
})

const started: TableSnapshotStarted = {
  _tag: "TableSnapshotStarted",
  id: "1",
  relation: { oid: 1, schema: "public", name: "t", replicaIdentity: "default", columns: [] },
  where: undefined,
  consistentPoint: lsn(1),
  estimatedRows: undefined,
  attempt: 1
}

/** A table of which a part was read. */
const begun = (maxBytes: number): Lost => ({
  _tag: "Lost",
  tally: { attempt: 1, disturbed: 0, chunks: 0 },
  touched: new TouchedKeys({ oid: 1, keyColumns: ["id"], maxBytes }),
  shape: "shape",
  reached: { after: undefined, rows: 0, bytes: 0 },
  reading: undefined as never,
  snapshot: started
})

const setUp = Effect.gen(function* () {
  const state = new SnapshotControl.ControlState("1")
  const control = {
    request: (options: SnapshotRequestOptions) => SnapshotControl.request(state, options),
    requests: SnapshotControl.requestsOf(state)
  }
  const seen: Array<string> = []
  const request = yield* control.request({ table: "t", id: "mine" })
  const arrived = yield* Deferred.make<"handled" | "lost">()
  state.expect("a mark", { take: () => [[started], [started, started]], arrived })
  return { control, state, seen, request, arrived }
})

const stream: readonly [Change, ...ReadonlyArray<Change>] = [
  begin(10),
  message(10, "x", "mine"),
  commit(10),
  begin(20),
  message(20, "a mark"),
  commit(20),
  begin(30),
  message(30, "of another process"),
  commit(30)
]

describe("a handler with a control", () => {
  it.effect("is given what stands at a mark in place of the message, change by change", () =>
    Effect.gen(function* () {
      const { arrived, seen, state } = yield* setUp
      const handle = yield* taking(
        withRequests(
          state,
          Handler.each((change: { readonly _tag: string }) =>
            Effect.sync(() => {
              seen.push(change._tag)
              return change._tag === "Commit" ? (change as Commit).nextLsn : undefined
            })
          )
        )
      )
      const done = yield* Effect.forEach(stream, (change) => handle(change))
      assert.deepStrictEqual(seen, [
        ...[
          "Begin",
          "Message",
          "Commit",
          "Begin",
          "TableSnapshotStarted",
          "TableSnapshotStarted",
          "TableSnapshotStarted"
        ],
        ...["Commit", "Begin", "Commit"]
      ])
      assert.deepStrictEqual(
        done.map((one) => one?.lsn),
        [undefined, undefined, lsn(11), undefined, undefined, lsn(21), undefined, undefined, lsn(31)]
      )
      assert.strictEqual(yield* Deferred.await(arrived), "handled")
    })
  )

  it.effect("is given arrays cut at the mark, and answers with the last that was acknowledged", () =>
    Effect.gen(function* () {
      const { seen, state } = yield* setUp
      const handle = yield* taking(
        withRequests(
          state,
          Handler.durable((changes) =>
            Effect.sync(() => seen.push(changes.map(({ _tag }: { readonly _tag: string }) => _tag).join(" ")))
          )
        )
      )
      const done = yield* handle(...stream)
      assert.deepStrictEqual(seen, [
        "Begin Message Commit Begin",
        "TableSnapshotStarted",
        "TableSnapshotStarted TableSnapshotStarted",
        "Commit Begin",
        "Commit"
      ])
      assert.strictEqual(done?.lsn, lsn(31))
    })
  )

  it.effect(
    "is given again what stood at a mark that comes again, until it is acknowledged, and nothing after that",
    () =>
      Effect.gen(function* () {
        const { state } = yield* setUp
        const seen: Array<string> = []
        const rows = Handler.durable((changes: ReadonlyArray<{ readonly _tag: string }>) =>
          Effect.sync(() => void seen.push(...changes.map(({ _tag }) => _tag)))
        )
        const transaction = [begin(20), message(20, "a mark")] as const
        const lost = yield* taking(withRequests(state, rows))
        yield* lost(...transaction)
        // The connection is lost before the commit, and what was taken of the transaction with it.
        seen.length = 0
        const next = yield* taking(withRequests(state, rows))
        yield* next(...transaction, commit(20))
        const started = "TableSnapshotStarted"
        assert.deepStrictEqual(seen, ["Begin", started, started, started, "Commit"])
        seen.length = 0
        yield* next(...transaction)
        assert.deepStrictEqual(seen, ["Begin"])
      })
  )

  it.effect("is given the very arrays of the stream while nothing is requested", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const consume = yield* withRequests(
        new SnapshotControl.ControlState("1"),
        Handler.durable((changes) => Effect.sync(() => seen.push(changes)))
      ).make(session([]))
      yield* consume({ changes: stream, bytes: 0 })
      assert.strictEqual(seen[0], stream)
    })
  )

  it.effect("has every table begin anew at a gap, and does not wait for marks that may lie in it", () =>
    Effect.gen(function* () {
      const { arrived, state } = yield* setUp
      const [job] = state.jobs
      job!.phase = begun(1)
      const gap: Change = {
        _tag: "Gap",
        slot: "s",
        reason: "missing",
        lastLsn: undefined,
        consistentPoint: lsn(5),
        nextLsn: NextLsn.deliver(lsn(5), run)
      }
      const handle = yield* taking(
        withRequests(
          state,
          Handler.each(() => Effect.succeed(undefined))
        )
      )
      yield* handle(gap)
      assert.strictEqual(job!.phase._tag, "Idle")
      assert.strictEqual(yield* Deferred.await(arrived), "lost")
    })
  )
})

describe("requests", () => {
  it.effect("of one id are one, and end once", () =>
    Effect.gen(function* () {
      const { control, request } = yield* setUp
      assert.strictEqual(yield* control.request({ table: "other", id: "mine" }), request)
      yield* request.cancel
      yield* request.cancel
      assert.deepInclude(yield* Effect.flip(request.await), { _tag: "SnapshotCancelled", id: "mine" })
      assert.lengthOf(yield* control.requests, 0)
    })
  )

  it.effect("of nothing are refused", () =>
    Effect.gen(function* () {
      const { control } = yield* setUp
      for (const options of [{ table: "" }, { table: "t", where: " " }, { table: "t", where: "a\0" }]) {
        assert.deepInclude(yield* Effect.flip(control.request(options)), { _tag: "InvalidOption" })
      }
    })
  )
})

describe("the ledger of requests", () => {
  const kept = (ledger: SnapshotLedger) => Effect.map(ledger.load, (requests) => requests.map(({ reading }) => reading))

  const withLedger = Effect.gen(function* () {
    const { state } = yield* setUp
    const store = yield* CheckpointStore.CheckpointStore
    const ledger = new SnapshotLedger(store, "slot")
    const job = state.jobs[0] as SnapshotJob
    const phase = begun(1000)
    job.phase = phase
    ledger.add(job)
    yield* ledger.save
    return { ledger, job, phase, store }
  })

  it.effect("counts a chunk once a position behind it was acknowledged", () =>
    Effect.gen(function* () {
      const { job, ledger, store } = yield* withLedger
      ledger.begin(job, lsn(10))
      const reached = { after: ["7"], rows: 7, bytes: 70 }
      const reread = { xid: 5, values: ["3"] }
      ledger.handedOver({ job, commitLsn: lsn(20), reached, settled: [reread], isLast: false })
      yield* ledger.save
      assert.deepStrictEqual(yield* kept(ledger), [undefined])
      ledger.acknowledged(lsn(11))
      yield* ledger.save
      // What the chunk settled counts as unsettled until then.
      assert.deepInclude((yield* kept(ledger))[0], { rows: 0, rereads: [reread] })
      ledger.acknowledged(lsn(20))
      yield* ledger.save
      assert.deepInclude((yield* kept(ledger))[0], { rows: 0 })
      ledger.acknowledged(lsn(21))
      yield* ledger.save
      assert.deepInclude((yield* kept(ledger))[0], { rows: 7, after: ["7"], rereads: [] })
      ledger.handedOver({ job, commitLsn: lsn(30), reached, settled: [], isLast: true })
      ledger.acknowledged(lsn(31))
      yield* ledger.save
      assert.strictEqual((yield* store.load("tables/slot"))._tag, "None")
    }).pipe(Effect.provide(memory))
  )

  it.effect("writes down a key that is to be read again, though nothing else has changed", () =>
    Effect.gen(function* () {
      const { job, ledger, phase } = yield* withLedger
      ledger.begin(job, lsn(10))
      ledger.acknowledged(lsn(11))
      yield* ledger.save
      phase.touched.moves += 1
      phase.touched.rereads.set("3", { xid: 5, values: ["3"] })
      yield* ledger.save
      assert.deepInclude((yield* kept(ledger))[0], { rereads: [{ xid: 5, values: ["3"] }] })
    }).pipe(Effect.provide(memory))
  )

  it.effect("holds no more that a part was read, before a gap in which changes were missed is acknowledged", () =>
    Effect.gen(function* () {
      const { job, ledger } = yield* withLedger
      ledger.begin(job, lsn(10))
      ledger.handedOver({
        job,
        commitLsn: lsn(20),
        reached: { after: ["7"], rows: 7, bytes: 70 },
        settled: [],
        isLast: false
      })
      ledger.acknowledged(lsn(21))
      yield* ledger.save
      assert.deepInclude((yield* kept(ledger))[0], { after: ["7"] })
      job.phase = next(job.phase, { _tag: "Voided" })
      yield* ledger.save
      assert.deepStrictEqual(yield* kept(ledger), [undefined])
    }).pipe(Effect.provide(memory))
  )

  it.effect("is a typed failure where the store holds something else", () =>
    Effect.gen(function* () {
      const { ledger, store } = yield* withLedger
      yield* store.save("tables/slot", '{"version":9}')
      assert.deepInclude(yield* Effect.flip(ledger.load), { _tag: "CheckpointError", during: "read" })
    }).pipe(Effect.provide(memory))
  )
})
