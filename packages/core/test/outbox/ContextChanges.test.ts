import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Begin, Change, Prepare } from "../../src/change/Change.ts"
import type { Transaction } from "../../src/change/Transaction.ts"
import { ContextChanges, make, of, Request } from "../../src/outbox/ContextChanges.ts"
import { begin, commit, insert, order, orders } from "../table/shop.ts"
import { emitted, standalone } from "./events.ts"

const Actor = make(Schema.Struct({ actor: Schema.String }))
const set = (actor: string, prefix = Actor.prefix) => emitted(prefix, JSON.stringify({ actor }))
const row = insert(orders, order)

/** The actors that the changes of these arrays have. */
const actors = (...arrays: ReadonlyArray<ReadonlyArray<Change>>): ReadonlyArray<string | undefined> => {
  const contexts = new ContextChanges<typeof Actor.schema, Change>(Actor)
  return arrays.flatMap((changes) => {
    const out: Parameters<typeof contexts.append>[1] = []
    assert.isUndefined(contexts.append(changes, out))
    assert.deepStrictEqual(
      out.map(({ change }) => change),
      changes
    )
    return out.map(({ context }) => context?.actor)
  })
}

describe("ContextChanges", () => {
  it("hands the context over with everything that comes after it in its transaction, its own message included", () => {
    assert.deepStrictEqual(actors([begin, set("ada"), row, row, commit]), [undefined, "ada", "ada", "ada", "ada"])
  })

  it("keeps it from array to array, and from transaction to transaction it does not", () => {
    assert.deepStrictEqual(actors([begin, set("ada")], [row], [row, commit, begin, row, commit]), [
      undefined,
      "ada",
      "ada",
      "ada",
      "ada",
      undefined,
      undefined,
      undefined
    ])
  })

  it("forgets a transaction that was cut off by a lost connection", () => {
    assert.deepStrictEqual(actors([begin, set("ada"), row], [begin, row]), [
      undefined,
      "ada",
      "ada",
      undefined,
      undefined
    ])
  })

  it("has none for what comes before, and the later one where it is set twice", () => {
    assert.deepStrictEqual(actors([begin, row, set("ada"), row, set("bob"), row, commit]), [
      undefined,
      undefined,
      "ada",
      "ada",
      "bob",
      "bob",
      "bob"
    ])
  })

  it("heeds neither other prefixes nor messages outside the transaction", () => {
    const alone = standalone(Actor.prefix, '{"actor":"eve"}')
    assert.deepStrictEqual(actors([alone, begin, set("eve", "other"), row, alone, row, set("ada"), alone, row]), [
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      "ada",
      undefined,
      "ada"
    ])
  })

  it("ends with the transaction's PREPARE: what becomes of it is told outside", () => {
    const prepared: Begin = { ...begin, gid: "g" }
    const { endLsn, nextLsn } = commit
    const prepare: Prepare = {
      _tag: "Prepare",
      begin: prepared,
      gid: "g",
      prepareLsn: begin.commitLsn,
      endLsn,
      nextLsn
    }
    assert.deepStrictEqual(actors([prepared, set("ada"), row, prepare, row]), [
      undefined,
      "ada",
      "ada",
      "ada",
      undefined
    ])
  })

  it("fails with content that does not fit, after what came before", () => {
    const contexts = new ContextChanges<typeof Actor.schema, Change>(Actor)
    const out: Parameters<typeof contexts.append>[1] = []
    const failure = contexts.append([begin, row, emitted(Actor.prefix, '{"actor":4711}'), row], out)
    assert.deepInclude(failure, { _tag: "MessageMismatch", prefix: "replicant.context", path: ".actor" })
    assert.notInclude(failure?.message, "4711")
    assert.strictEqual(out.length, 2)
  })

  it('hands none over from there on under onMismatch: "none", also where one was set before', () => {
    const contexts = new ContextChanges<typeof Actor.schema, Change>(Actor, { onMismatch: "none" })
    const out: Parameters<typeof contexts.append>[1] = []
    assert.isUndefined(contexts.append([begin, set("ada"), row, emitted(Actor.prefix, "{"), row, commit], out))
    assert.deepStrictEqual(
      out.map(({ context }) => context?.actor),
      [undefined, "ada", "ada", undefined, undefined, undefined]
    )
  })
})

describe("of", () => {
  const transaction = (...changes: Transaction["changes"]) => ({ changes })

  it("is the last that a transaction set, wherever in it", () => {
    assert.deepStrictEqual(of(Actor, transaction(row, set("ada"), set("bob"), row)), Result.succeed({ actor: "bob" }))
  })

  it("is undefined where a transaction set none, and for a message that stands alone", () => {
    assert.deepStrictEqual(of(Actor, transaction(row, set("ada", "other"))), Result.succeed(undefined))
    assert.deepStrictEqual(of(Actor, transaction(standalone(Actor.prefix, "{}"))), Result.succeed(undefined))
  })

  it("is an error for content that does not fit", () => {
    assert.isTrue(Result.isFailure(of(Actor, transaction(emitted(Actor.prefix, "{}")))))
  })

  it("has the type of the Schema", () => {
    const read = (given: Transaction) => {
      const context = Result.getOrThrow(of(Request, given))
      context?.requestId satisfies string | undefined
      // @ts-expect-error: may be undefined.
      context.actor
      // @ts-expect-error: not of the Schema.
      return context?.tenant
    }
    assert.isFunction(read)
  })
})
