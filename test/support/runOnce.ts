/**
 * A consumer as a program of its own, to be killed: it books each row of `t` in a ledger of another database, by `Handler.once` or
 * by `Handler.inbox`. Its options are one argument of JSON, of type `OnceProgram`.
 */
import { NodeRuntime } from "@effect/platform-node"
import { type Change, Handler, Pgoutput, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Effect, Redacted, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { clientOf, type Target } from "./Ledger.ts"

export interface OnceProgram {
  readonly url: string
  readonly slot: string
  readonly publication: string
  readonly target: Target
  readonly by: "once" | "inbox"
}

const options = JSON.parse(process.argv[2] ?? "{}") as OnceProgram

const book = (change: Change) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    change._tag === "Insert"
      ? Effect.asVoid(sql`INSERT INTO ledger (id) VALUES (${change.row.id as number})`)
      : Effect.void
  )

/** Some of the time that it is killed in is within a transaction. */
const pause = Effect.suspend(() => Effect.sleep(Math.random() * 10))

const keeping = { createTable: "ifMissing" } as const

const once = Handler.once<Change, unknown, SqlClient.SqlClient>({ table: "positions", ...keeping }, (changes) =>
  Effect.andThen(Effect.forEach(changes, book, { discard: true }), pause)
)

const inbox = Handler.byKey<Change, unknown, SqlClient.SqlClient>(
  { concurrency: 4 },
  Handler.retry(Schedule.spaced("50 millis"))(
    Handler.inbox({ table: "inbox", consumer: "ledger", ...keeping }, (change: Change) =>
      Effect.andThen(book(change), pause)
    )
  )
)

const program = withLogicalStream(
  {
    slot: options.slot,
    plugin: Pgoutput.make({ publications: [options.publication] }),
    reconnect: Schedule.spaced("100 millis"),
    timing: { acknowledgeDelay: "20 millis" }
  },
  options.by === "once" ? once : inbox
).pipe(
  Effect.provide(PgWalSender.layer({ url: Redacted.make(options.url) })),
  Effect.provide(clientOf(options.target, "ledger"))
)

NodeRuntime.runMain(program)
