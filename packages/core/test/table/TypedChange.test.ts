/** The types, proved by the compiler: what should be inferred is, and what is wrong does not compile. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Change, changeId, type NextLsn, nextLsn, Table } from "../../src/index.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { begin, type Customer, Customers, commit, Orders, order, orders, update } from "./shop.ts"

type Shop = typeof Orders | typeof Customers

/** Holds exactly when both are one type. */
type Same<A, B> = (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false
const same = <A, B>(proof: Same<A, B>): void => assert.isTrue(proof)

interface Order {
  readonly id: number
  readonly total: string
  readonly note: string | null
  readonly placedAt?: Date
}

declare const change: Table.TypedChange<Shop>
/** Its body is compiled and never run: there is no `change`. */
const compiled = (_body: () => unknown): void => undefined

describe("TypedChange", () => {
  it("tells each table's rows by _tag and table", () => {
    compiled(() => {
      if (change._tag === "Insert" && change.table === "public.orders") {
        same<typeof change.row.id, number>(true)
        change.row satisfies Order
        // @ts-expect-error: no such column.
        return change.row.undeclared
      }
      if (change._tag === "Insert" && change.table === "crm.eu.customers") {
        same<typeof change.row, Customer>(true)
        return change.row.domain
      }
      return undefined
    })
  })

  it("does not compile with a table that is not of the set", () => {
    compiled(() => {
      // @ts-expect-error: "public.others" is not declared.
      return change._tag === "Insert" && change.table === "public.others"
    })
  })

  it("has no row in an update before it is known to be complete", () => {
    compiled(() => {
      if (change._tag !== "Update" || change.table !== "public.orders") return undefined
      // @ts-expect-error: the row may be partial.
      change.row satisfies Order
      same<typeof change.row.total, string | undefined>(true)
      if (change.isComplete) {
        change.row satisfies Order
        return same<typeof change.unchanged, readonly []>(true)
      }
      change.unchanged[0] satisfies keyof Order
      // @ts-expect-error: an unchanged column is absent.
      return change.row.total satisfies string
    })
  })

  it("gives the declared key alone in a key row, and the whole row in a full one", () => {
    compiled(() => {
      if (change._tag !== "Delete" || change.table !== "public.orders") return undefined
      same<typeof change.old.row.id, number>(true)
      // @ts-expect-error: a key row is no whole row.
      change.old.row satisfies Order
      if (change.old._tag === "Full") return change.old.row satisfies Order
      same<typeof change.old.row, { readonly id: number }>(true)
      // @ts-expect-error: not of the key.
      return change.old.row.total
    })
  })

  it("gives any column in a key row of a table without a declared key, and none for certain", () => {
    compiled(() => {
      if (change._tag !== "Delete" || change.table !== "crm.eu.customers" || change.old._tag !== "Key") return undefined
      same<typeof change.old.row.email, string | undefined>(true)
      // @ts-expect-error: the key is not known to the type.
      return change.old.row.email satisfies string
    })
  })

  it("has no old row in an update until it is looked for", () => {
    compiled(() => {
      // @ts-expect-error: undefined unless the key changed or the identity is FULL.
      return change._tag === "Update" && change.old.row
    })
  })

  it("has untyped changes only under the policy that makes them", () => {
    compiled(() => {
      // @ts-expect-error: under `fail` there are none.
      return change._tag === "Untyped"
    })
    compiled((): Change | undefined => {
      const either = change as Table.TypedChange<Shop, "untyped">
      return either._tag === "Untyped" ? either.change : undefined
    })
  })

  it("infers tables and policy from what a stream is given", () => {
    const untyped = Table.changes([Orders, Customers], { onMismatch: "untyped" })(Stream.empty)
    same<Stream.Success<typeof untyped>, Table.TypedChange<Shop, "untyped">>(true)
    same<Stream.Error<typeof untyped>, Table.RowMismatch | Table.TableMismatch>(true)
    const failing = Table.changes([Orders])(Stream.empty)
    same<Stream.Success<typeof failing>, Table.TypedChange<typeof Orders>>(true)
    Table.handler([Orders], (typed) =>
      Effect.as(Effect.succeed(same<typeof typed, Table.TypedChange<typeof Orders>>(true)), undefined)
    )
    Table.handler(
      [Orders],
      Handler.arrays(([first]) => Effect.succeed(nextLsn(first))),
      { onMismatch: "untyped" }
    )
  })

  it("is acknowledged by nextLsn and named by changeId, as an untyped change is", () => {
    compiled((): NextLsn | undefined => nextLsn(change))
    compiled(() => (change._tag === "Delete" ? changeId(change) : undefined))
    assert.strictEqual(nextLsn(commit), commit.nextLsn)
    assert.strictEqual(changeId(update(orders, order)), "0000000000000100-00000001")
  })

  it("[C12] cannot be acknowledged by a position that was made up", () => {
    const endLsn = Lsn.fromString("0/130")!
    // @ts-expect-error: not a NextLsn.
    nextLsn({ _tag: "Commit", begin, commitLsn: begin.commitLsn, endLsn, nextLsn: { lsn: endLsn } })
    // @ts-expect-error: a Transaction has a nextLsn of its own, which this function would not look for.
    assert.isUndefined(nextLsn({ ...commit, _tag: "Transaction", begin, commit, changes: [] }))
  })
})
