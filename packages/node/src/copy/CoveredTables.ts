/**
 * Which tables a copy has covered, and by what they were published then: part of its position, and stored with it. What is
 * published now is compared with that: a table that joins has rows which no stream brings, and one that left and is there
 * again has missed changes. Pure, but for reading and writing the text.
 */
import { CheckpointStore } from "@replicant/core"
import { PublishedEntries, quoteLiteral } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import type { Statement, Step } from "./PgBatch.ts"
import { tableKey } from "./TargetCatalog.ts"
import type { SessionError, TargetSession } from "./TargetSession.ts"

/**
 * `copying`: of a first copy that is not complete. `awaited`: its rows are to be read, and nothing of the stream is applied
 * yet. `reading`: they are being read, and the stream is applied. `covered`: it is what it is at the source. `left`: it is
 * published no more. Rows of a table in any of these are the copy's own, and may be emptied by it.
 */
export type CoverageState = "copying" | "awaited" | "reading" | "covered" | "left"

const Covered = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  state: Schema.Literals(["copying", "awaited", "reading", "covered", "left"]),
  entry: Schema.String,
  attached: Schema.Array(Schema.String)
})

/** A table that the copy writes, and by what it was published when that began. */
export type CoveredTable = typeof Covered.Type

/** By `tableKey`. */
export type Coverage = ReadonlyMap<string, CoveredTable>

const Text = Schema.fromJsonString(Schema.Array(Covered))

const coverageOf = (tables: ReadonlyArray<CoveredTable>): Coverage =>
  new Map(tables.map((table) => [tableKey(table), table]))

const update = "UPDATE replicant.copy_position SET tables ="

const statement: Statement = { name: "replicant_position_tables", text: `${update} $2 WHERE slot = $1` }

const encode = (coverage: Coverage): string => Schema.encodeSync(Text)(Array.from(coverage.values()))

/** Stores it, as part of a transaction. */
export const step = (slot: string, coverage: Coverage): Step => ({ statement, values: [slot, encode(coverage)] })

/** Stores it by itself. */
export const store = (session: TargetSession, slot: string, coverage: Coverage): Effect.Effect<void, SessionError> =>
  Effect.asVoid(session.query(`${update} ${quoteLiteral(encode(coverage))} WHERE slot = ${quoteLiteral(slot)}`))

/** What is stored; `undefined` where nothing is yet. */
export const load = Effect.fnUntraced(function* (
  session: TargetSession,
  slot: string
): Effect.fn.Return<Coverage | undefined, SessionError | CheckpointStore.CheckpointError> {
  const [row] = yield* session.query(`SELECT tables FROM replicant.copy_position WHERE slot = ${quoteLiteral(slot)}`)
  const text = row?.tables ?? undefined
  if (text === undefined) return undefined
  return yield* Schema.decodeEffect(Text)(text).pipe(
    Effect.map(coverageOf),
    Effect.mapError(
      () =>
        new CheckpointStore.CheckpointError({
          during: "read",
          key: slot,
          problem: "its tables are not what was stored"
        })
    )
  )
})

/** What has become of the tables since they were stored. */
export interface Comparison {
  /** To be stored. */
  readonly coverage: Coverage
  /** Published, and rows are missing: to be read. */
  readonly joined: ReadonlyArray<CoveredTable>
  /** Those of them that the copy has never written: what they hold is somebody's. */
  readonly foreign: ReadonlyArray<string>
  /** Covered before, and published no more. */
  readonly left: ReadonlyArray<string>
}

type Entry = PublishedEntries.PublishedEntry

/** Of all that is published, as it is published now, in one state. */
export const all = (published: ReadonlyArray<Entry>, state: CoverageState): Coverage =>
  coverageOf(published.map(({ attached, entry, name, schema }) => ({ schema, name, state, entry, attached })))

/**
 * While the first copy goes on, a table that is there has the entry under which it was begun, whatever became of it: what has
 * left and come back shows when the copy is complete. Those that join are of the copy, too.
 */
export const compareCopying = (known: Coverage, published: ReadonlyArray<Entry>): Comparison => {
  const joined = Array.from(all(published, "copying")).filter(([key]) => !known.has(key))
  return {
    coverage: new Map([...known, ...joined]),
    joined: joined.map(([, table]) => table),
    foreign: joined.map(([key]) => key),
    left: []
  }
}

/** What is published now, against what is covered. */
export const compare = (known: Coverage, published: ReadonlyArray<Entry>): Comparison => {
  const now = all(published, "awaited")
  const coverage = new Map<string, CoveredTable>()
  const left: Array<string> = []
  for (const [key, table] of known) {
    if (now.has(key)) continue
    if (table.state !== "left") left.push(key)
    coverage.set(key, { ...table, state: "left" })
  }
  for (const [key, table] of now) {
    const before = known.get(key)
    const isCovered = before?.state === "covered" && PublishedEntries.isContinued(before, table)
    coverage.set(key, isCovered ? { ...table, state: "covered" } : table)
  }
  return {
    coverage,
    joined: Array.from(coverage.values()).filter(({ state }) => state === "awaited"),
    foreign: Array.from(now.keys()).filter((key) => !known.has(key)),
    left
  }
}

/** Whether a comparison asks for something that is not under way: rows to be read, or a departure to be told. */
export const isOutdated = (known: Coverage, published: ReadonlyArray<Entry>): boolean => {
  const { joined, left } = compare(known, published)
  const isUnderWay = (table: CoveredTable) => {
    const before = known.get(tableKey(table))
    const isRead = before?.state === "awaited" || before?.state === "reading"
    return isRead && PublishedEntries.isContinued(before, table)
  }
  return left.length > 0 || !joined.every(isUnderWay)
}

/** The coverage of a session at the target: what is committed, and what has changed in the transaction that is open. */
export class FollowedTables {
  /** Whether rows that are somebody else's may be emptied. */
  readonly mayEmpty: boolean
  /** Told once of each table that a change came of, and that is not covered. */
  onStranger: (() => void) | undefined
  private committed: Coverage
  private now: Map<string, CoveredTable>
  private readonly followsAll: boolean
  private readonly strangers = new Set<string>()
  private isChanged = false
  private readonly moved = Latch.makeUnsafe(false)

  /** `followsAll` applies what comes, also of tables that are not covered. */
  constructor(
    coverage: Coverage,
    { followsAll, mayEmpty }: { readonly followsAll: boolean; readonly mayEmpty: boolean }
  ) {
    this.committed = coverage
    this.now = new Map(coverage)
    this.followsAll = followsAll
    this.mayEmpty = mayEmpty
  }

  /** The first copy is under way: what it fails with is no sign that other tables are published. */
  get isCopying(): boolean {
    return Array.from(this.committed.values()).some(({ state }) => state === "copying")
  }

  /** What a reader of the row would find. */
  get coverage(): Coverage {
    return this.committed
  }

  /** Waits until it is committed that a table is covered. */
  untilCovered(key: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.committed.get(key)?.state === "covered") return Effect.void
      this.moved.closeUnsafe()
      return Effect.andThen(this.moved.await, this.untilCovered(key))
    })
  }

  /** What was not committed comes again. */
  reset(): void {
    this.now = new Map(this.committed)
    this.isChanged = false
  }

  /** Whether changes of this table are applied. */
  follows(key: string): boolean {
    if (this.followsAll) return true
    const state = this.now.get(key)?.state
    if (state !== undefined && state !== "awaited" && state !== "left") return true
    if (state !== "awaited" && !this.strangers.has(key)) {
      this.strangers.add(key)
      this.onStranger?.()
    }
    return false
  }

  /** Whether rows of it may be still to come. */
  isReading(key: string): boolean {
    return this.now.get(key)?.state === "reading"
  }

  /** Whether what it holds is of this copy. */
  isOwn(key: string): boolean {
    return this.now.has(key)
  }

  set(table: { readonly schema: string; readonly name: string }, state: CoverageState): void {
    const key = tableKey(table)
    const { name, schema } = table
    this.now.set(key, { ...(this.now.get(key) ?? { schema, name, entry: "", attached: [] }), state })
    this.isChanged = true
  }

  /** The first copy is complete: all that it was of is covered. */
  completeCopy(): void {
    for (const table of Array.from(this.now.values())) if (table.state === "copying") this.set(table, "covered")
  }

  /** What is to be stored with the commit that is being put down, and what is to be called once it is there. */
  takeChange(): { readonly coverage: Coverage; readonly done: () => void } | undefined {
    if (!this.isChanged) return undefined
    this.isChanged = false
    const coverage: Coverage = new Map(this.now)
    return {
      coverage,
      done: () => {
        this.committed = coverage
        this.moved.openUnsafe()
      }
    }
  }
}
