/**
 * A target that follows one table of a workspace, by key, as a careful consumer does: rows and changes are upserted, a
 * moved row takes what it had along. It begins with whatever a test put into it.
 */
import {
  CheckpointStore,
  Handler,
  type InvalidOption,
  LogicalStream,
  nextLsn,
  Pgoutput,
  type Row,
  type Snapshot
} from "@replicant/core"
import { Effect, Fiber, Schedule, type Scope } from "effect"
import { eventually } from "./eventually.ts"
import { walSender } from "./Follow.ts"
import { rowText } from "./FollowSnapshot.ts"
import type { Workspace } from "./Workspace.ts"

export interface TableTarget {
  /** The rows, by the text of their keys. */
  readonly rows: Map<string, Row>
  readonly seen: Array<Snapshot.ChangeAfterSnapshot>
  readonly request: (options: Snapshot.RequestOptions) => Effect.Effect<Snapshot.Request, InvalidOption>
  readonly requests: Effect.Effect<ReadonlyArray<Snapshot.Request>>
  readonly fiber: Fiber.Fiber<unknown, unknown>
  /** How many of a kind were handed over. */
  readonly count: (tag: Snapshot.ChangeAfterSnapshot["_tag"]) => number
  /** Waits until a message that is written now has come, and with it all that was committed before. */
  readonly caughtUp: Effect.Effect<void, unknown>
}

export interface FollowTableOptions {
  readonly table: string
  readonly key: ReadonlyArray<string>
  readonly rows?: ReadonlyArray<Row> | undefined
  readonly layer?: ReturnType<typeof walSender> | undefined
  readonly options?: Partial<Omit<LogicalStream.Options, "snapshot" | "inProgress">> | undefined
  readonly pgoutput?: Partial<Pgoutput.Options> | undefined
  readonly checkpoints?: CheckpointStore.CheckpointStore["Service"] | undefined
  /**
   * Whether a row that the target holds outside of this is emptied where the table begins: so it is unless told
   * otherwise.
   */
  readonly empties?: boolean | undefined
  /** Arrays at a time, or single changes. */
  readonly isArray?: boolean | undefined
  /** Runs before each element. */
  readonly before?: ((change: Snapshot.ChangeAfterSnapshot) => Effect.Effect<void>) | undefined
}

export const followTable = Effect.fnUntraced(function* (
  workspace: Workspace,
  options: FollowTableOptions
): Effect.fn.Return<TableTarget, unknown, Scope.Scope> {
  const keyOf = (row: Row) => rowText(Object.fromEntries(options.key.map((column) => [column, row[column]])))
  const rows = new Map((options.rows ?? []).map((row) => [keyOf(row), row]))
  const seen: Array<Snapshot.ChangeAfterSnapshot> = []
  const messages = new Set<string>()

  const apply = (change: Snapshot.ChangeAfterSnapshot) => {
    switch (change._tag) {
      case "TableSnapshotStarted":
        if (change.where === undefined && options.empties !== false) rows.clear()
        return
      case "SnapshotRow":
      case "Insert":
        if (change.relation.name === options.table) rows.set(keyOf(change.row), change.row)
        return
      case "Update": {
        if (change.relation.name !== options.table) return
        const key = keyOf(change.row)
        const from = change.old === undefined ? key : keyOf(change.old.row)
        const before = rows.get(from)
        if (from !== key) rows.delete(from)
        rows.set(key, { ...before, ...change.row })
        return
      }
      case "Delete":
        if (change.relation.name === options.table) rows.delete(keyOf(change.old.row))
        return
      case "Truncate":
        if (change.relations.some(({ name }) => name === options.table)) rows.clear()
        return
      case "Message":
        messages.add(new TextDecoder().decode(change.content))
        return
    }
  }
  const handle = (change: Snapshot.ChangeAfterSnapshot): Effect.Effect<Handler.Handled> =>
    Effect.suspend(() => {
      const handled = Effect.sync(() => {
        seen.push(change)
        apply(change)
        return nextLsn(change)
      })
      return options.before === undefined ? handled : Effect.andThen(options.before(change), handled)
    })
  const stream = yield* LogicalStream.make({
    slot: workspace.slot,
    plugin: Pgoutput.make({ publications: [workspace.publication], ...options.pgoutput }),
    timing: { acknowledgeDelay: "20 millis" },
    reconnect: Schedule.spaced("50 millis"),
    snapshot: "never",
    ...options.options
  })
  const run =
    options.isArray === true
      ? stream.run(
          Handler.arrays((changes) =>
            Effect.map(Effect.forEach(changes, handle), (done) => done.findLast((one) => one !== undefined))
          )
        )
      : stream.run(handle)
  const { checkpoints } = options
  const kept =
    checkpoints === undefined ? run : Effect.provideService(run, CheckpointStore.CheckpointStore, checkpoints)
  const fiber = yield* kept.pipe(Effect.provide(options.layer ?? walSender(workspace)), Effect.forkScoped)
  let marks = 0
  return {
    rows,
    seen,
    request: stream.request,
    requests: stream.requests,
    fiber,
    count: (tag) => seen.filter((change) => change._tag === tag).length,
    caughtUp: Effect.suspend(() => {
      marks += 1
      const mark = `caught up ${marks}`
      return Effect.andThen(
        workspace.sql(`SELECT pg_logical_emit_message(true, 'test', '${mark}')`),
        eventually(
          Effect.sync(() => messages.has(mark)),
          { what: "the stream caught up" }
        )
      ).pipe(Effect.raceFirst(Fiber.join(fiber)), Effect.asVoid)
    })
  }
})
