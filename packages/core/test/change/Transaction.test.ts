import { assert, describe, it } from "@effect/vitest"
import type { Change } from "../../src/change/Change.ts"
import { Run } from "../../src/change/NextLsn.ts"
import { TransactionFold } from "../../src/change/Transaction.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { CopyData } from "../../src/replication/CopyData.ts"
import * as Fake from "../support/FakeWalSender.ts"

const decode = (...messages: ReadonlyArray<Uint8Array>): ReadonlyArray<Change> =>
  new CopyData({
    plugin: Pgoutput.make({ publications: ["orders"] }),
    slices: portableText,
    run: new Run(),
    context: {},
    serverLsn: Fake.lsn("0/1000")
  }).decode(Fake.concat(BackendMessage.copyBothResponse, ...messages)).batch.changes

const changes = decode(Fake.relation(), Fake.transaction("0/100", "0/130", 1), Fake.transaction("0/130", "0/160", 2))

describe("TransactionFold", () => {
  it("gathers the same transactions wherever the reads are cut", () => {
    for (let cut = 0; cut <= changes.length; cut++) {
      const fold = new TransactionFold()
      const folded = [changes.slice(0, cut), changes.slice(cut)].flatMap((part) => {
        const transactions = fold.fold(part, 100)
        assert(Array.isArray(transactions))
        return transactions
      })
      assert.deepStrictEqual(
        folded.map((transaction) => [transaction.endLsn, transaction.changes.length]),
        [
          [Fake.lsn("0/130"), 1],
          [Fake.lsn("0/160"), 1]
        ]
      )
    }
  })

  it("acknowledges a transaction by its own commit", () => {
    const [first] = new TransactionFold().fold(changes, 1) as ReadonlyArray<{
      readonly nextLsn: { readonly lsn: bigint }
    }>
    assert.strictEqual(first?.nextLsn.lsn, Fake.lsn("0/130"))
  })

  it("fails once an open transaction outgrows its budget, and counts each transaction by itself", () => {
    const fold = new TransactionFold(250)
    assert.isArray(fold.fold(changes, 200))
    assert.isArray(fold.fold(changes.slice(0, 2), 200))
    assert.deepInclude(fold.fold(changes.slice(1, 2), 200), { _tag: "TransactionTooLarge", bytes: 400, maxBytes: 250 })
  })
})
