/**
 * Which changes a consumer has handled, by their `changeId`, in a table of its own database: for who has a transaction for each
 * change, and so no one position.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { changeId } from "../change/ChangeId.ts"
import type { Handled } from "../change/NextLsn.ts"
import { dialectOf, inTransaction } from "../checkpoint/SqlDialect.ts"
import { asCame, endOf } from "./ChangeKey.ts"
import type { SqlTable } from "./PositionTable.ts"

/** Which table, whose changes, and for how long they are known. */
export interface InboxOptions extends SqlTable {
  /** Of several that share a table. The ids are positions of one cluster: for another choose another name. */
  readonly consumer: string
  /**
   * How long an id is kept: 7 days. It must be longer than a change can be delivered again after it was handled: so long as it
   * was not acknowledged, and after a crash of the server so long as its last checkpoint was ago.
   */
  readonly keep?: Duration.Input | undefined
}

const columns = `consumer varchar(255) NOT NULL, id varchar(32) NOT NULL, handled_at bigint NOT NULL,
  PRIMARY KEY (consumer, id)`

/** Names differ by case, as they do elsewhere: there they were one, and of one consumer's changes the other would handle none. */
const mysqlColumns = columns.replaceAll(/varchar\(\d+\)/g, "$& CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")

/** After so many changes what is no longer kept is deleted. */
const pruneEvery = 1000

/** Another session has handled it meanwhile. */
const taken = { _tag: "Taken" } as const

class Inbox {
  private isOpen = false
  private sincePruned = 0
  private readonly opening = Semaphore.makeUnsafe(1)
  private readonly options: InboxOptions
  private readonly keepMillis: number

  constructor(options: InboxOptions) {
    this.options = options
    this.keepMillis = Duration.toMillis(Duration.fromInputUnsafe(options.keep ?? "7 days"))
  }

  private readonly prune = (client: SqlClient.SqlClient) =>
    Effect.gen({ self: this }, function* () {
      this.sincePruned = 0
      const oldest = (yield* Clock.currentTimeMillis) - this.keepMillis
      yield* client`DELETE FROM ${client(this.options.table)}
        WHERE consumer = ${this.options.consumer} AND handled_at < ${oldest}`
    })

  private readonly open = (client: SqlClient.SqlClient): Effect.Effect<void, SqlError> =>
    Effect.gen({ self: this }, function* () {
      if (this.isOpen) return
      const { createTable, table } = this.options
      const made = dialectOf(client) === "mysql" ? `(${mysqlColumns}) ENGINE = InnoDB` : `(${columns})`
      // Refused to who may not create, and by PostgreSQL to one of two that ask at once, although the table is there.
      const create = client`CREATE TABLE IF NOT EXISTS ${client(table)} ${client.literal(made)}`
      if (createTable === "ifMissing") yield* Effect.ignore(create)
      yield* this.prune(client)
      this.isOpen = true
    }).pipe(this.opening.withPermit)

  /** Within a transaction: whether this id is new. It is known to nobody else until that commits. */
  private readonly enter = Effect.fnUntraced({ self: this }, function* (client: SqlClient.SqlClient, id: string) {
    const { consumer, table } = this.options
    const known = yield* client`SELECT 1 FROM ${client(table)} WHERE consumer = ${consumer} AND id = ${id}`.values
    if (known.length > 0) return yield* Effect.fail(taken)
    const now = yield* Clock.currentTimeMillis
    yield* Effect.catchIf(
      client`INSERT INTO ${client(table)} (consumer, id, handled_at) VALUES (${consumer}, ${id}, ${now})`,
      ({ reason }) => reason._tag === "UniqueViolation",
      () => Effect.fail(taken)
    )
  })

  /** Handles it in a transaction that knows it, or not at all. */
  readonly handleOnce = <A, E, R>(id: string, handled: Effect.Effect<A, E, R>, done: Handled) =>
    Effect.flatMap(SqlClient.SqlClient, (client) =>
      Effect.gen({ self: this }, function* (): Effect.fn.Return<A | Handled, E | SqlError, R> {
        if (!this.isOpen) yield* this.open(client)
        const entered: Effect.Effect<A, E | SqlError | typeof taken, R> = inTransaction(client)(
          Effect.andThen(this.enter(client, id), handled)
        )
        const result = yield* Effect.catchIf(
          entered,
          (error): error is typeof taken => error === taken,
          () => Effect.succeed(done)
        )
        this.sincePruned++
        if (this.sincePruned >= pruneEvery) yield* this.prune(client)
        return result
      })
    )
}

/**
 * A function of one change that handles none twice: for work in the consumer's own database that cannot share one transaction
 * with its position, as that of many side by side. The function runs in a transaction of the program's
 * {@link SqlClient.SqlClient}, in which the `changeId` is entered; what is there already is left out.
 *
 * What the function does elsewhere is done again where the transaction fails after it, under the same `changeId`. What has no id,
 * a row of a snapshot above all, is handled as often as it comes.
 *
 * @example
 * withLogicalStream(options, Handler.byKey({ concurrency: 8 },
 *   Handler.inbox({ table: "replicant_inbox", consumer: "ledger", createTable: "ifMissing" }, (change) => store(change))
 * ))
 */
export const inbox = <C, A, E = never, R = never>(
  options: InboxOptions,
  handle: (change: C) => Effect.Effect<A, E, R>
): ((change: C) => Effect.Effect<A | Handled, E | SqlError, R | SqlClient.SqlClient>) => {
  const entries = new Inbox(options)
  return (change) =>
    Effect.suspend(() => {
      const id = changeId(asCame(change))
      return id === undefined
        ? handle(change)
        : entries.handleOnce(
            id,
            Effect.suspend(() => handle(change)),
            endOf(change)
          )
    })
}
