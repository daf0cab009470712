import { assert, describe, it } from "@effect/vitest"
import { CopyRetry } from "../../src/copying/CopyRetry.ts"
import { ConnectionError, ServerError, SlotCreationBlocked, Snapshot } from "../../src/index.ts"

const blocked = (...pids: ReadonlyArray<number>) =>
  new SlotCreationBlocked({ slot: "s", transactions: pids.map((pid) => ({ pid, since: "2026-01-01" })) })
const deadlock = new ServerError({ stage: "Query", severity: "ERROR", sqlState: "40P01", serverMessage: "deadlock" })

describe("CopyRetry", () => {
  it("tries again what may pass, and a deadlock, as often as it takes", () => {
    const retry = new CopyRetry()
    for (let attempt = 0; attempt < 5; attempt++) {
      assert.isTrue(retry.next(new ConnectionError({ reason: "Reset", detail: "" })))
      assert.isTrue(retry.next(deadlock))
    }
    assert.isFalse(retry.next(new Snapshot.Locked({ relations: [], pids: [], lockTimeout: 1 })))
  })

  it("gives up when a transaction is still there after the locks were let go, and not for another", () => {
    const retry = new CopyRetry()
    assert.isTrue(retry.next(blocked(1, 2)))
    assert.isTrue(retry.next(blocked(3)))
    assert.isTrue(retry.next(blocked(4, 5)))
    assert.isFalse(retry.next(blocked(6, 5)))
    assert.isTrue(new CopyRetry().next(blocked()))
  })
})
