/**
 * What somebody means to do, and so what a doctor looks at: which publications, tables and slot, with a first copy or not, to
 * which other servers. Where nothing is named it is the whole database.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { slotName } from "../protocol/ReplicationCommand.ts"
import { InvalidOption, type ReplicationError } from "../ReplicationError.ts"
import type { SqlSession } from "../server/WalSender.ts"
import { type TableName, tableName } from "../table/TableName.ts"

/** A session that takes SQL. Text comes back, as from a walsender. */
export interface Session extends SqlSession {
  /** Whether another than the backend that answers let us in: a connection pooler, which may hand each statement to another. */
  readonly isPooled?: boolean | undefined
}

/** From where on something is told. */
export interface Thresholds {
  /** WAL that a slot keeps, or that its consumer or a standby is behind, in bytes: 1 GiB. */
  readonly behindBytes?: number | undefined
  /** Age of a transaction: 5 minutes. */
  readonly oldTransaction?: Duration.Input | undefined
  /** Transactions that a slot's `catalog_xmin` is behind: 100 million, half of what has autovacuum hurry. */
  readonly oldXids?: number | undefined
  /** Difference between the server's clock and ours: 2 seconds. */
  readonly clockSkew?: Duration.Input | undefined
  /** Columns of a table that is wide: 50. */
  readonly wideColumns?: number | undefined
  /** Updates and deletes, since statistics were reset, of a table that is hot: 100,000. */
  readonly hotWrites?: number | undefined
  /** How soon something may expire, or a disk be full: 1 day for the disk, 30 days for a password. */
  readonly diskFull?: Duration.Input | undefined
  readonly passwordExpiry?: Duration.Input | undefined
}

/** What is meant to be done. */
export interface Plan {
  /** What is streamed. Nothing named at all, neither publication nor table: each publication of the database. */
  readonly publications?: ReadonlyArray<string> | undefined
  /** What must be published, or is to be: names as in {@link TableName}. */
  readonly tables?: ReadonlyArray<TableName> | undefined
  /** Left out: every logical slot of the database. */
  readonly slot?: string | undefined
  /** The output plugin: `pgoutput`. */
  readonly plugin?: string | undefined
  /** Whether the slot is made where it is not there. */
  readonly createSlot?: boolean | undefined
  /** Whether the rows that are there are copied first. The slot is made by that. */
  readonly snapshot?: boolean | undefined
  /** How many connections copy: 2. */
  readonly connections?: number | undefined
  /** Whether prepared transactions are streamed as they are prepared. */
  readonly twoPhase?: boolean | undefined
  /** `timing.statusInterval`, where it is set. */
  readonly statusInterval?: Duration.Input | undefined
  /** How the source is connected to, as the driver has it: the host and libpq's `sslmode`. */
  readonly connection?: { readonly host: string; readonly sslmode: string } | undefined
  /** A session at the target of a copy. */
  readonly target?: Effect.Effect<Session, ReplicationError, Scope.Scope> | undefined
  /** A session at a standby of the source. */
  readonly standby?: Effect.Effect<Session, ReplicationError, Scope.Scope> | undefined
  /** Bytes that are free where the server keeps that directory, if that can be seen from here. */
  readonly freeDisk?: ((directory: string) => Effect.Effect<number | undefined>) | undefined
  readonly thresholds?: Thresholds | undefined
}

/** A plan checked and made whole. Times are milliseconds. */
export interface Asked extends Omit<Plan, "tables" | "thresholds" | "statusInterval"> {
  readonly publications: ReadonlyArray<string>
  readonly tables: ReadonlyArray<{ readonly schema: string; readonly name: string }>
  readonly plugin: string
  readonly connections: number
  /** Whether neither a publication nor a table is named. */
  readonly isWholeDatabase: boolean
  readonly statusInterval: number | undefined
  readonly thresholds: { readonly [Name in keyof Thresholds]-?: number }
}

/** What a plan takes at once: the stream and who asks about it; a first copy's readers, its keeper and who asks. */
export const neededConnections = ({ connections, snapshot }: Asked): number => (snapshot === true ? connections : 0) + 2

const millis = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))

const refuse = (option: string, problem: string) => Effect.fail(new InvalidOption({ option, problem }))

const hasNul = (text: string) => text.includes("\0")

/** Checks a plan before anything is opened. */
export const resolve = Effect.fnUntraced(function* (plan: Plan): Effect.fn.Return<Asked, InvalidOption> {
  const { publications = [], thresholds = {}, statusInterval } = plan
  const tables = (plan.tables ?? []).map(tableName)
  if (publications.some(hasNul)) return yield* refuse("publications", "a name holds a zero byte")
  if (tables.some(({ name, schema }) => hasNul(name) || hasNul(schema))) {
    return yield* refuse("tables", "a name holds a zero byte")
  }
  if (plan.slot !== undefined) yield* Effect.fromResult(slotName(plan.slot))
  return {
    ...plan,
    publications,
    tables,
    plugin: plan.plugin ?? "pgoutput",
    connections: plan.connections ?? 2,
    isWholeDatabase: publications.length === 0 && tables.length === 0,
    statusInterval: statusInterval === undefined ? undefined : millis(statusInterval),
    thresholds: {
      behindBytes: thresholds.behindBytes ?? 2 ** 30,
      oldTransaction: millis(thresholds.oldTransaction ?? "5 minutes"),
      oldXids: thresholds.oldXids ?? 100_000_000,
      clockSkew: millis(thresholds.clockSkew ?? "2 seconds"),
      wideColumns: thresholds.wideColumns ?? 50,
      hotWrites: thresholds.hotWrites ?? 100_000,
      diskFull: millis(thresholds.diskFull ?? "1 day"),
      passwordExpiry: millis(thresholds.passwordExpiry ?? "30 days")
    }
  }
})
