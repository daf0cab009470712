/** What the compiler says of a stream and its handler: the element follows from the options. Nothing here is run. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import {
  Handler,
  LogicalStream,
  nextLsn,
  Outbox,
  Pgoutput,
  Replication,
  type ReplicationError,
  type Snapshot,
  Table,
  TransactionContext,
  type WalSender,
  withLogicalStream
} from "../../src/index.ts"

const plugin = Pgoutput.make({ publications: ["orders"] })
const plain = { slot: "s", plugin }
const withRows = { slot: "s", plugin, snapshot: "initial" } as const
const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.BigInt, note: Schema.NullOr(Schema.String) }), {
  key: ["id"]
})
const Placed = Outbox.make("placed", Schema.String)
const { Request } = TransactionContext

/** A value of this type, nothing of which is durable. */
const is = <T>(_value: T): undefined => undefined

/** That it compiles is the test. */
const compiles = (...values: ReadonlyArray<unknown>) => assert.isNotEmpty(values)

describe("the type of what a stream delivers", () => {
  it("has rows, and transactions in progress, where the options ask for them and nowhere else", () =>
    compiles(
      withLogicalStream(plain, (change) => Effect.succeed(nextLsn(change))),
      withLogicalStream(plain, (change) =>
        // @ts-expect-error: no rows without a snapshot.
        Effect.succeed(change._tag === "SnapshotRow" ? undefined : nextLsn(change))
      ),
      withLogicalStream(withRows, (change) =>
        Effect.succeed(change._tag === "SnapshotRow" ? undefined : nextLsn(change))
      ),
      withLogicalStream({ ...plain, inProgress: "deliver" }, (change) =>
        Effect.succeed(change._tag === "Streamed" ? undefined : nextLsn(change))
      ),
      withLogicalStream({ ...plain, inProgress: "gather" }, (change) =>
        // @ts-expect-error: nothing that is in progress where it is gathered.
        Effect.succeed(change._tag === "Streamed" ? undefined : nextLsn(change))
      )
    ))

  it("fails, needs and ends as its options say", () => {
    const endless: Effect.Effect<never, ReplicationError, WalSender> = withLogicalStream(plain, (change) =>
      Effect.succeed(nextLsn(change))
    )
    const rowsFirst: Effect.Effect<never, Snapshot.Error, WalSender> = withLogicalStream(
      withRows,
      Handler.durable((changes) => Effect.log(changes.length))
    )
    const only: Effect.Effect<Snapshot.Completed, Snapshot.Error, WalSender> = withLogicalStream(
      { ...plain, snapshot: "only" },
      Handler.arrays((changes) => Effect.succeed(changes.map(nextLsn).findLast((done) => done !== undefined)))
    )
    // @ts-expect-error: a snapshot fails as streams do not.
    const narrower: Effect.Effect<never, ReplicationError, WalSender> = rowsFirst
    compiles(endless, rowsFirst, only, narrower)
  })

  it("is whole transactions of changes, and of rows none", () =>
    compiles(
      withLogicalStream(
        plain,
        Handler.transactions(({ changes }) => Effect.log(changes.length))
      ),
      withLogicalStream(
        withRows,
        // @ts-expect-error: whole transactions of rows mean nothing.
        Handler.transactions(({ changes }) => Effect.log(changes.length))
      )
    ))
})

describe("the type of a declared table's changes", () => {
  it("is inferred for one at a time, for many, and where all is durable, with rows and without", () =>
    compiles(
      withLogicalStream(
        plain,
        Table.handler([Orders], (change) =>
          Effect.succeed(change._tag === "Insert" ? is<string | null>(change.row.note) : nextLsn(change))
        )
      ),
      withLogicalStream(
        plain,
        Table.handler(
          [Orders],
          Handler.arrays(([first]) =>
            Effect.succeed(first._tag === "Insert" ? is<bigint>(first.row.id) : nextLsn(first))
          )
        )
      ),
      withLogicalStream(
        withRows,
        Table.handler(
          [Orders],
          Handler.durable((changes) =>
            Effect.log(changes.map((change) => (change._tag === "SnapshotRow" ? change.row.note : null)))
          )
        )
      ),
      withLogicalStream(
        withRows,
        Table.handler([Orders], (change) =>
          Effect.succeed(change._tag === "SnapshotRow" ? is<string | null>(change.row.note) : nextLsn(change))
        )
      ),
      withLogicalStream(
        plain,
        Table.handler([Orders], (change) =>
          // @ts-expect-error: no typed rows without a snapshot either.
          Effect.succeed(change._tag === "SnapshotRow" ? undefined : nextLsn(change))
        )
      )
    ))

  it("is inferred through messages and contexts that are nested in it", () =>
    compiles(
      withLogicalStream(
        plain,
        Table.handler(
          [Orders],
          Outbox.handler([Placed], (change) =>
            Effect.succeed(change._tag === "Insert" ? is<string | null>(change.row.note) : nextLsn(change))
          )
        )
      ),
      withLogicalStream(
        plain,
        Table.handler(
          [Orders],
          TransactionContext.handler(Request, ({ change, context }) =>
            Effect.succeed(
              change._tag === "Insert"
                ? is<[string | null, string | undefined]>([change.row.note, context?.actor])
                : nextLsn(change)
            )
          )
        )
      )
    ))
})

describe("the type of a stream as a value, and of a service", () => {
  class Articles extends Replication.Service<Articles>()("app/Articles", withRows) {}
  class Open extends Replication.Service<Open>()("app/Open", { ...plain, inProgress: "deliver" }) {}

  it("has requests where rows are expected, and nowhere else", () => {
    const requesting = Effect.gen(function* () {
      const stream = yield* LogicalStream.make(plain)
      // @ts-expect-error: nothing can be requested.
      yield* stream.request({ table: "x" })
      const rows = yield* LogicalStream.make({ ...plain, snapshot: "never" })
      return yield* rows.request({ table: "x" })
    })
    const byService = Effect.gen(function* () {
      const articles = yield* Articles
      return yield* articles.request({ table: "x" })
    })
    compiles(requesting, byService)
  })

  it("delivers by its options, and retrying takes it out of what a program needs", () => {
    const rows: Effect.Effect<void, Snapshot.Error, WalSender> = Effect.gen(function* () {
      const { acknowledgeChange, changes } = yield* Articles
      yield* Stream.runForEach(changes, (change) =>
        change._tag === "SnapshotRow" ? Effect.void : acknowledgeChange(change)
      )
    }).pipe(Articles.retrying)
    const open: Effect.Effect<void, ReplicationError, WalSender> = Effect.gen(function* () {
      const { changes } = yield* Open
      yield* Stream.runForEach(changes, (change) =>
        change._tag === "Streamed" ? Effect.log(change.change) : Effect.void
      )
    }).pipe(Open.retrying)
    const whole: Effect.Effect<void, ReplicationError, WalSender> = Effect.gen(function* () {
      const { acknowledge, transactions } = yield* Replication.Replication
      yield* Stream.runForEach(transactions, (transaction) => acknowledge(transaction.nextLsn))
    }).pipe(Replication.retrying(plain))
    const without = Effect.gen(function* () {
      const articles = yield* Articles
      // @ts-expect-error: whole transactions are of a stream without rows.
      return articles.transactions
    })
    compiles(rows, open, whole, without)
  })
})
