import { assert, describe, it } from "@effect/vitest"
import { Snapshot } from "@replicant/core"
import { Duration, Effect, Fiber, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import * as LiveLine from "../../src/cli/LiveLine.ts"
import { formatRemaining, formatSnapshot, showSnapshot } from "../../src/cli/SnapshotStatus.ts"
import { relation } from "../support/Changes.ts"

const table = (
  name: string,
  rows: number,
  estimatedRows: number | undefined,
  isDone = false
): Snapshot.TableProgress => ({ relation: relation(name, ["id"], ["id"]), rows, bytes: 0, estimatedRows, isDone })

const copying = (...tables: ReadonlyArray<Snapshot.TableProgress>): Snapshot.SnapshotProgress => ({
  phase: "copying",
  attempt: 1,
  tables
})

describe("SnapshotStatus", () => {
  it("shows all of it, and the tables that are under way", () => {
    assert.deepStrictEqual(
      formatSnapshot(copying(table("done", 1000, 900, true), table("half", 500, 1000), table("later", 0, 10))),
      ["snapshot | 1 of 3 tables | 1,500 of ~2,010 rows, 74 %", "  public.half | 500 of ~1,000 rows, 50 %"]
    )
  })

  it("tells how fast, and how long still", () => {
    const half = { ...table("half", 500, 1000), rowsPerSecond: 250.04, remaining: Duration.seconds(2) }
    assert.deepStrictEqual(formatSnapshot({ ...copying(half), rowsPerSecond: 1234, remaining: Duration.minutes(3) }), [
      "snapshot | 0 of 1 table | 500 of ~1,000 rows, 50 % | 1,234/s | 3 min 0 s left",
      "  public.half | 500 of ~1,000 rows, 50 % | 250/s | 2 s left"
    ])
  })

  it("claims no share of what was never estimated, and never a whole before it is done", () => {
    assert.deepStrictEqual(formatSnapshot(copying(table("a", 5, undefined), table("b", 300, 100))), [
      "snapshot | 0 of 2 tables | 305 rows",
      "  public.a | 5 rows",
      "  public.b | 300 of ~100 rows, 99 %"
    ])
  })

  it("shows a few of many tables, and which attempt it is", () => {
    const tables = Array.from({ length: 200 }, (_, index) => table(`t${index}`, 1, undefined))
    const lines = formatSnapshot({ ...copying(...tables), attempt: 2 })
    assert.lengthOf(lines, 9)
    assert.match(lines[0]!, /^snapshot, attempt 2 \| 0 of 200 tables/)
  })

  it("says a time as one would", () => {
    assert.deepStrictEqual([0, 1, 59_001, 185_000, 7_380_000].map(formatRemaining), [
      ...["0 s", "1 s", "1 min 0 s", "3 min 5 s", "2 h 3 min"]
    ])
  })

  it.effect("shows it while it lasts, and takes it away for what follows", () =>
    Effect.gen(function* () {
      let text = ""
      const line = new LiveLine.LiveLine({ isTTY: true, write: (part) => (text += part) })
      const progress = yield* Snapshot.makeProgress
      const fiber = yield* showSnapshot(progress).pipe(
        Effect.provideService(LiveLine.Standard, line),
        Effect.forkChild({ startImmediately: true })
      )
      assert.include(text, "waiting")
      yield* SubscriptionRef.set(progress, copying(table("orders", 7, 10)))
      yield* TestClock.adjust("1 second")
      assert.include(text, "public.orders | 7 of ~10 rows, 70 %")
      yield* SubscriptionRef.set(progress, { phase: "streaming", attempt: 1, tables: [] })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      assert.isTrue(text.endsWith("\r\u001b[K"))
    })
  )
})
