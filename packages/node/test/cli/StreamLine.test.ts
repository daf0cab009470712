import { assert, describe, it } from "@effect/vitest"
import { ConnectionError, type LogicalStream, Lsn } from "@replicant/core"
import { Duration, Effect, Fiber, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import * as LiveLine from "../../src/cli/LiveLine.ts"
import type { Status } from "../../src/cli/Status.ts"
import { formatCopying, formatRemaining, formatState, showStream } from "../../src/cli/StreamLine.ts"
import type * as Copy from "../../src/copy/Copy.ts"
import { relation } from "../support/Changes.ts"

const table = (
  name: string,
  rows: number,
  estimatedRows: number | undefined,
  isDone = false
): LogicalStream.TableProgress => ({ relation: relation(name, ["id"], ["id"]), rows, bytes: 0, estimatedRows, isDone })

const copying = (
  ...tables: ReadonlyArray<LogicalStream.TableProgress>
): LogicalStream.StreamState & { readonly _tag: "Copying" } => ({
  _tag: "Copying",
  attempt: 1,
  isCompleted: false,
  tables
})

const status: Status = {
  changes: 345,
  transactions: 67,
  changesPerSecond: 12.4,
  lagBytes: 0n,
  lagMillis: 3,
  acknowledged: Lsn.zero
}

const streaming: Copy.State = { _tag: "Streaming", systemId: "1", timeline: 1 }

describe("StreamLine", () => {
  it("shows all of it, and the tables that are under way", () => {
    assert.deepStrictEqual(
      formatCopying(copying(table("done", 1000, 900, true), table("half", 500, 1000), table("later", 0, 10))),
      ["snapshot | 1 of 3 tables | 1,500 of ~2,010 rows, 74 %", "  public.half | 500 of ~1,000 rows, 50 %"]
    )
  })

  it("tells how fast, and how long still", () => {
    const half = { ...table("half", 500, 1000), rowsPerSecond: 250.04, remaining: Duration.seconds(2) }
    assert.deepStrictEqual(formatCopying({ ...copying(half), rowsPerSecond: 1234, remaining: Duration.minutes(3) }), [
      "snapshot | 0 of 1 table | 500 of ~1,000 rows, 50 % | 1,234/s | 3 min 0 s left",
      "  public.half | 500 of ~1,000 rows, 50 % | 250/s | 2 s left"
    ])
  })

  it("claims no share of what was never estimated, and never a whole before it is done", () => {
    assert.deepStrictEqual(formatCopying(copying(table("a", 5, undefined), table("b", 300, 100))), [
      "snapshot | 0 of 2 tables | 305 rows",
      "  public.a | 5 rows",
      "  public.b | 300 of ~100 rows, 99 %"
    ])
  })

  it("shows a few of many tables, and which attempt it is", () => {
    const tables = Array.from({ length: 200 }, (_, index) => table(`t${index}`, 1, undefined))
    const lines = formatCopying({ ...copying(...tables), attempt: 2 })
    assert.lengthOf(lines, 9)
    assert.match(lines[0]!, /^snapshot, attempt 2 \| 0 of 200 tables/)
  })

  it("says a time as one would", () => {
    assert.deepStrictEqual([0, 1, 59_001, 185_000, 7_380_000].map(formatRemaining), [
      ...["0 s", "1 s", "1 min 0 s", "3 min 5 s", "2 h 3 min"]
    ])
  })

  it("shows how far behind a stream is, and of one that does not stream what it waits for", () => {
    const cause = new ConnectionError({ reason: "Closed", detail: "gone" })
    const states: ReadonlyArray<Copy.State> = [
      streaming,
      { _tag: "Reconnecting", attempt: 2, cause },
      { _tag: "WaitingForSlot", activePid: 7 }
    ]
    assert.deepStrictEqual(
      states.flatMap((state) => formatState(state, status)),
      [
        "12.4/s | 345 changes in 67 transactions | lag 0 B, 3 ms | acknowledged nothing yet",
        "reconnecting (2) after ConnectionError | 345 changes in 67 transactions",
        "waiting for pid 7, which has the slot | 345 changes in 67 transactions"
      ]
    )
  })

  it.effect("shows it while it lasts, and takes it away for what follows", () =>
    Effect.gen(function* () {
      let text = ""
      const line = new LiveLine.LiveLine({ isTTY: true, write: (part) => (text += part) })
      const state = yield* SubscriptionRef.make<Copy.State>({ _tag: "Connecting" })
      const totals = { changes: 0, transactions: 0 }
      const fiber = yield* showStream({ slot: "s", state: SubscriptionRef.get(state), totals, shows: "before" }).pipe(
        Effect.provideService(LiveLine.Standard, line),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("1 second")
      assert.include(text, "waiting")
      yield* SubscriptionRef.set(state, copying(table("orders", 7, 10)))
      yield* TestClock.adjust("1 second")
      assert.include(text, "public.orders | 7 of ~10 rows, 70 %")
      yield* SubscriptionRef.set(state, streaming)
      yield* TestClock.adjust("1 second")
      assert.isTrue(text.endsWith("\r\u001b[K"))
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("adds a line every 5 s where there is no terminal", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const line = new LiveLine.LiveLine({ write: (text) => lines.push(text) })
      const totals = { changes: 7, transactions: 2 }
      const fiber = yield* showStream({ slot: "three", state: Effect.succeed(streaming), totals, shows: "all" }).pipe(
        Effect.provideService(LiveLine.Standard, line),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.interrupt(fiber)
      assert.lengthOf(lines, 2)
      assert.include(lines[0], "7 changes in 2 transactions")
    })
  )
})
