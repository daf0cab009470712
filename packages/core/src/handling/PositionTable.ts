/**
 * How far a consumer is, in a table of its own database, a row for each slot: written in the transactions that it is the position
 * of. A row has an owner, the session that took it over last: another, that was given up for dead, may still be amid a transaction.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { dialectOf, problemOf, unknownDialect } from "../checkpoint/SqlDialect.ts"
import { errorId, logText } from "../ErrorForm.ts"
import * as Lsn from "../Lsn.ts"
import type { Position, Session } from "../stream/Handler.ts"

/** Which table, and whether to make it. */
export interface SqlTable {
  /** With its schema or without: `replicant.positions`. */
  readonly table: string
  /** Makes the table where there is none. Left out, it must be there. */
  readonly createTable?: "ifMissing" | undefined
}

/** A consumer's own position could not be kept or found, or is another's by now. */
export class PositionError extends Schema.TaggedError<PositionError>(errorId("PositionError"))("PositionError", {
  /** `keep`: another session has taken the position over, or the row is gone. */
  during: Schema.Literals(["open", "load", "keep"]),
  slot: Schema.String,
  problem: Schema.String
}) {
  get remedy(): string {
    return this.during === "keep"
      ? "let one process follow the slot; what this one had begun is undone"
      : "see that the database can be reached, and that the table is there and may be written to"
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `cannot ${this.during} the position of the slot "${logText(this.slot)}": ${logText(this.problem)}`
  }
}

/** A row, locked for as long as the transaction takes. */
export interface Held {
  /** Everything before it is in this database, and nothing after. `0/0` for none yet. */
  readonly endLsn: Lsn.Lsn
  /** How many reads of a first copy this session has stored. */
  readonly copied: number
}

// LSNs as text that sorts, so that what is later is told by the database.
const columns = `slot varchar(255) NOT NULL PRIMARY KEY, owner varchar(64) NOT NULL, system_id varchar(20), timeline int,
  end_lsn varchar(16) NOT NULL, idle_flush varchar(16), copied int NOT NULL`

/** A key differs by case there, and only this engine has transactions. */
const mysqlColumns = `${columns.replace("varchar(255)", "varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")}`

const zero = Lsn.formatSortable(Lsn.zero)

const lsnOf = (text: unknown): Lsn.Lsn | undefined =>
  typeof text === "string" && /^[0-9A-F]{16}$/.test(text) ? Lsn.make(BigInt(`0x${text}`)) : undefined

/** The row of one slot. */
export class PositionTable {
  private readonly client: SqlClient.SqlClient
  private readonly options: SqlTable
  private readonly slot: string

  constructor(client: SqlClient.SqlClient, options: SqlTable, slot: string) {
    this.client = client
    this.options = options
    this.slot = slot
  }

  private get name() {
    return this.client(this.options.table)
  }

  private fail(during: PositionError["during"]) {
    const { slot } = this
    return (error: SqlError) => Effect.fail(new PositionError({ during, slot, problem: problemOf(error) }))
  }

  /** Makes the table, where that is asked for, and the row. */
  readonly open: Effect.Effect<void, PositionError> = Effect.suspend(() => {
    const { client, name, options, slot } = this
    const dialect = dialectOf(client)
    if (dialect === undefined) return Effect.fail(new PositionError({ during: "open", slot, problem: unknownDialect }))
    const [into, ignore] = dialect === "mysql" ? ["INSERT IGNORE INTO", ""] : ["INSERT INTO", "ON CONFLICT DO NOTHING"]
    const table = dialect === "mysql" ? `(${mysqlColumns}) ENGINE = InnoDB` : `(${columns})`
    const row = client`${client.literal(into)} ${name} (slot, owner, end_lsn, copied)
      VALUES (${slot}, '', ${zero}, 0) ${client.literal(ignore)}`
    // Refused to who may not create, and by PostgreSQL to one of two that ask at once, although the table is there.
    const create = Effect.ignore(client`CREATE TABLE IF NOT EXISTS ${name} ${client.literal(table)}`)
    const found = Effect.catch(row, this.fail("open"))
    return options.createTable === "ifMissing" ? Effect.andThen(create, found) : Effect.asVoid(found)
  })

  /** How far the consumer is: where a stream starts, and where the slot may have moved while nothing came. */
  readonly load: Effect.Effect<Position, PositionError> = Effect.suspend(() => {
    const { client, name, slot } = this
    return client`SELECT end_lsn, idle_flush, system_id, timeline FROM ${name} WHERE slot = ${slot}`.values.pipe(
      Effect.catch(this.fail("load")),
      Effect.flatMap(([row = []]) => {
        const [end, idle, systemId, timeline] = row
        const endLsn = lsnOf(end)
        if (endLsn === undefined) {
          const problem = "there is no position in the row, or no row"
          return Effect.fail(new PositionError({ during: "load", slot, problem }))
        }
        const checkpoint = {
          endLsn,
          idleFlush: lsnOf(idle),
          systemId: typeof systemId === "string" ? systemId : undefined,
          timeline: timeline === null ? undefined : Number(timeline)
        }
        return Effect.succeed({ checkpoint, storeIdleFlush: this.storeIdleFlush })
      })
    )
  })

  private readonly storeIdleFlush = (lsn: Lsn.Lsn): Effect.Effect<unknown, SqlError> => {
    const idle = Lsn.formatSortable(lsn)
    return this.client`UPDATE ${this.name} SET idle_flush = ${idle}
      WHERE slot = ${this.slot} AND (idle_flush IS NULL OR idle_flush < ${idle})`
  }

  /** A session takes the row over: whoever had it commits nothing more. */
  readonly claim = Effect.fnUntraced({ self: this }, function* (system: Session["system"]) {
    const { client, name, slot } = this
    const owner = (yield* Random.nextIntBetween(0, 2 ** 48)).toString(36)
    const known =
      system === undefined ? client`` : client`, system_id = ${system.systemId}, timeline = ${system.timeline}`
    yield* client`UPDATE ${name} SET owner = ${owner}, copied = 0 ${known} WHERE slot = ${slot}`
    return owner
  })

  /** The row of this owner, for the rest of the transaction. */
  readonly hold = Effect.fnUntraced({ self: this }, function* (owner: string): Effect.fn.Return<
    Held,
    PositionError | SqlError
  > {
    const { client, name, slot } = this
    // Of two writers SQLite refuses the one that read before the other had written.
    const lock = dialectOf(client) === "sqlite" ? "" : "FOR UPDATE"
    const [row] = yield* client`SELECT owner, end_lsn, copied FROM ${name} WHERE slot = ${slot}
      ${client.literal(lock)}`.values
    const endLsn = lsnOf(row?.[1])
    if (row?.[0] === owner && endLsn !== undefined) return { endLsn, copied: Number(row[2]) }
    const problem = row === undefined ? "its row is gone" : "another session has taken it over"
    return yield* new PositionError({ during: "keep", slot, problem })
  })

  /** Within the transaction that holds the row. */
  advance(endLsn: Lsn.Lsn, copied: number): Effect.Effect<unknown, SqlError> {
    return this.client`UPDATE ${this.name} SET end_lsn = ${Lsn.formatSortable(endLsn)}, copied = ${copied}
      WHERE slot = ${this.slot}`
  }
}
