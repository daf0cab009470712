/**
 * Which tables a stream has covered, and by what they were published then: part of its position. A table that joins a
 * publication has rows which no stream brings; one that left it, and is there again, has missed changes. What is published
 * now is compared with what is covered, so both are known, also after a pause.
 *
 * A table is covered from the first copy on, or from when its rows were read beside the stream. What is asked for that, and
 * when, is decided in `stream/JoiningTables.ts`. Why it is done so: docs/decisions/0036.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { CheckpointError, type CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { qualifiedName } from "../protocol/ReplicationCommand.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import { isContinued, listEntries, type PublishedEntry } from "../server/PublishedEntries.ts"
import type { SqlSession } from "../server/WalSender.ts"

const Covered = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  entry: Schema.String,
  attached: Schema.Array(Schema.String),
  /** False while rows of it are still to be read. */
  isWhole: Schema.Boolean
})

/** A table that is published, and by what it was when that began to count. */
export type CoveredTable = typeof Covered.Type

/** By `qualifiedName`. */
export type Coverage = ReadonlyMap<string, CoveredTable>

const Text = Schema.fromJsonString(Schema.Struct({ version: Schema.Literal(1), tables: Schema.Array(Covered) }))

/** Of the slot that it is for. */
export const coverageKey = (slot: string): string => `covered/${slot}`

const coverageOf = (tables: ReadonlyArray<CoveredTable>): Coverage =>
  new Map(tables.map((table) => [qualifiedName(table), table]))

/** All that is published, as of now. */
export const all = (published: ReadonlyArray<PublishedEntry>): Coverage =>
  coverageOf(published.map((entry) => ({ ...entry, isWhole: true })))

/**
 * While a first copy goes on, a table has the entry under which its copying was begun, whatever becomes of it: what has left
 * and come back shows when the copy is complete. `isBegun` says of which tables that is now.
 */
export const resumed = (
  known: Coverage,
  published: ReadonlyArray<PublishedEntry>,
  isBegun: (table: CoveredTable) => boolean
): Coverage => {
  const begun = Array.from(all(published)).filter(([key, table]) => !known.has(key) || isBegun(table))
  return new Map([...known, ...begun])
}

/** What has become of the tables. */
export interface Comparison {
  /** What is covered now. */
  readonly coverage: Coverage
  /** Not known before. */
  readonly joined: ReadonlyArray<CoveredTable>
  /** Known, and published otherwise since: taken out and put in again, made anew, with another filter. */
  readonly again: ReadonlyArray<CoveredTable>
  /** Published no more. */
  readonly left: ReadonlyArray<CoveredTable>
}

/** What is published now, against what is covered. */
export const compare = (known: Coverage, published: ReadonlyArray<PublishedEntry>): Comparison => {
  const coverage = new Map<string, CoveredTable>()
  const joined: Array<CoveredTable> = []
  const again: Array<CoveredTable> = []
  for (const [key, table] of all(published)) {
    const before = known.get(key)
    const continued = before !== undefined && isContinued(before, table)
    const now = { ...table, isWhole: continued && before.isWhole }
    coverage.set(key, now)
    if (before === undefined) joined.push(now)
    else if (!continued) again.push(now)
  }
  const left = Array.from(known).flatMap(([key, table]) => (coverage.has(key) ? [] : [table]))
  return { coverage, joined, again, left }
}

/** Where it is kept, and of what it is. */
export interface TableCoverageOptions {
  readonly slot: string
  readonly publications: ReadonlyArray<string>
  readonly store: CheckpointStore["Service"]
}

/** What one stream covers, kept in its store. */
export class TableCoverage {
  /** `undefined` until it is known. */
  private known: Coverage | undefined
  /** Whether the store keeps what is saved under this key; `undefined` until it was asked. */
  private isKept: boolean | undefined
  private readonly options: TableCoverageOptions
  private readonly key: string
  private readonly semaphore = Semaphore.makeUnsafe(1)

  constructor(options: TableCoverageOptions) {
    this.options = options
    this.key = coverageKey(options.slot)
  }

  /** Whether it knows a table: nothing else that the stream tells of it need be asked. */
  has(table: { readonly schema: string; readonly name: string }): boolean {
    return this.known?.has(qualifiedName(table)) ?? false
  }

  /** Those of which rows are still to be read. */
  get unread(): ReadonlyArray<CoveredTable> {
    return Array.from(this.known?.values() ?? []).filter(({ isWhole }) => !isWhole)
  }

  /** Asks by what is published now. */
  list(connection: SqlSession): Effect.Effect<ReadonlyArray<PublishedEntry>, ReplicationError> {
    return listEntries(connection, this.options.publications)
  }

  /** A first copy begins with nothing. `published` is from before its seam: what is altered since shows as another entry. */
  begin(published: ReadonlyArray<PublishedEntry>): Effect.Effect<void, CheckpointError> {
    return this.exclusively(Effect.suspend(() => this.keep(all(published))))
  }

  /** A first copy goes on, see {@link resumed}. */
  resume(
    published: ReadonlyArray<PublishedEntry>,
    isBegun: (table: CoveredTable) => boolean
  ): Effect.Effect<void, CheckpointError> {
    return this.exclusively(
      Effect.flatMap(this.load, (known) =>
        this.keep(known === undefined ? all(published) : resumed(known, published, isBegun))
      )
    )
  }

  /** Takes up what is published now, and says what has changed. Where nothing was known, all of it counts from now on. */
  take(published: ReadonlyArray<PublishedEntry>): Effect.Effect<Comparison, CheckpointError> {
    return this.exclusively(
      Effect.gen({ self: this }, function* () {
        const known = yield* this.load
        if (known === undefined) {
          yield* Effect.logInfo("which tables are covered was not known: all that are published now, from now on")
        }
        const comparison = compare(known ?? all(published), published)
        const { again, joined, left } = comparison
        if (known === undefined || again.length + joined.length + left.length > 0) yield* this.keep(comparison.coverage)
        else this.known = comparison.coverage
        return comparison
      })
    )
  }

  /** Their rows are there, of each that is still published by the same. */
  complete(tables: ReadonlyArray<CoveredTable>): Effect.Effect<void, CheckpointError> {
    return this.exclusively(
      Effect.suspend(() => {
        const { known = new Map<string, CoveredTable>() } = this
        const whole = tables.flatMap((table) => {
          const key = qualifiedName(table)
          const now = known.get(key)
          return now !== undefined && isContinued(now, table) ? [[key, { ...now, isWhole: true }] as const] : []
        })
        return whole.length === 0 ? Effect.void : this.keep(new Map([...known, ...whole]))
      })
    )
  }

  private exclusively<A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return this.semaphore.withPermits(1)(effect)
  }

  private get load(): Effect.Effect<Coverage | undefined, CheckpointError> {
    return Effect.suspend(() => (this.known === undefined ? this.read : Effect.succeed(this.known)))
  }

  private get read(): Effect.Effect<Coverage | undefined, CheckpointError> {
    const { key } = this
    return Effect.flatMap(this.options.store.load(key), (text) => {
      if (Option.isNone(text)) return Effect.succeed(undefined)
      return Schema.decodeEffect(Text)(text.value).pipe(
        Effect.map(({ tables }) => coverageOf(tables)),
        Effect.mapError(
          () => new CheckpointError({ during: "read", key, problem: "it is not the list of tables that was saved" })
        )
      )
    })
  }

  /** Saves it. A store that keeps nothing under this key is told of, once: then only this process knows. */
  private keep(coverage: Coverage): Effect.Effect<void, CheckpointError> {
    const { key, options } = this
    this.known = coverage
    if (this.isKept === false) return Effect.void
    return Effect.gen({ self: this }, function* () {
      const tables = Array.from(coverage.values())
      yield* options.store.save(key, Schema.encodeSync(Text)({ version: 1, tables }))
      this.isKept ??= Option.isSome(yield* options.store.load(key))
      if (this.isKept) return
      yield* Effect.logWarning(
        `the CheckpointStore keeps nothing under "${key}": a table that is published while this stream is down will be missed`
      )
    })
  }
}
