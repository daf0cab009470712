/**
 * The public module `Copy`: published tables in another PostgreSQL, and then in step with it. Docs: docs/copy.md.
 *
 * One session at the target and one stream from the source are one attempt. Where either is lost in a way that may pass, both
 * are begun again, from the position that the target has: there is no other memory.
 */
import { CheckpointStore, InvalidOption, LogicalStream, type Lsn, Pgoutput } from "@replicant/core"
import { WalSender } from "@replicant/core/driver"
import { type Doctor, type Health, Metrics, type Observation } from "@replicant/core/operations"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as PgConfig from "../pg/PgConfig.ts"
import * as PgWalSender from "../pg/PgWalSender.ts"
import type { CopyError } from "./CopyError.ts"
import { copyHandler } from "./CopyHandler.ts"
import { CopyHealth } from "./CopyHealth.ts"
import * as CopyPosition from "./CopyPosition.ts"
import { type Setup, setup } from "./CopySetup.ts"
import type { CopyTotals } from "./CopyTotals.ts"
import { FollowedTables } from "./CoveredTables.ts"
import { outdated, readTables, watchTables } from "./TableCoverage.ts"
import * as TargetRoleChecks from "./TargetRoleChecks.ts"
import * as TargetSession from "./TargetSession.ts"
import * as TargetTableChecks from "./TargetTableChecks.ts"
import { TargetWriter, type WriteError } from "./TargetWriter.ts"

export * from "./CopyError.ts"
export { type ForgetOptions, forget } from "./CopyForget.ts"
export { defaultSlot } from "./CopySlot.ts"
export type { CopyTotals } from "./CopyTotals.ts"

/**
 * What a doctor looks for at the target of a copy, beside its own checks.
 *
 * @example
 * const target = PgWalSender.session({ url: Redacted.make("postgres://replicant@new/shop") })
 * const report = Doctor.run({ publications: ["shop"], slot: "shop_copy", snapshot: true, target }, Copy.checks)
 */
export const checks: ReadonlyArray<Doctor.Check> = [...TargetRoleChecks.checks, ...TargetTableChecks.checks]

/** What is copied, from where to where. */
export interface Options {
  readonly from: PgConfig.Options
  readonly to: PgConfig.Options
  /** Of the source: what they publish is copied, under the same names. One at least. */
  readonly publications: ReadonlyArray<string>
  /** The slot at the source, and the name of the copy's row in the target's `replicant.copy_position`. */
  readonly slot: string
  /** Whether slot, position table and origin are made where they are missing: `fail`, unless told otherwise. */
  readonly whenMissing?: "create" | "fail" | undefined
  /** What becomes of rows that the target's tables hold before the first copy: `fail`, unless told otherwise. */
  readonly whenFilled?: "truncate" | "fail" | undefined
  /** `leave` copies no rows: the target holds those of now already. Only what is committed from now on is applied. */
  readonly rows?: "copy" | "leave" | undefined
  /** Whether triggers and foreign keys of the target act on what is written: `quiet`, unless told otherwise. */
  readonly triggers?: "quiet" | "fire" | undefined
  /**
   * `fitting`, the default: a column of the target has a type that takes every value of the source's. `any`: that is left to
   * the target's input functions, and a value that one refuses ends the copy.
   */
  readonly types?: "fitting" | "any" | undefined
  /** `marked`, the default: what is written at the target bears a replication origin. */
  readonly origin?: "marked" | "unmarked" | undefined
  /** What was itself replicated to the source: `apply`, unless told otherwise. `skip` in both directions keeps two in step. */
  readonly replicated?: "apply" | "skip" | undefined
  /** How many connections read the first copy: 2. */
  readonly connections?: number | undefined
  /** Keeps the slot on the source's standbys, too, also one that is there. PostgreSQL 17. Left out, it stays as it is. */
  readonly failover?: boolean | undefined
  /** Pages (mostly of 8 kB) that are copied at a time, and committed at the target with their checkpoint: 2048. */
  readonly piecePages?: number | undefined
  /** How long what is being applied may take to end when the program is interrupted: 5 s. */
  readonly shutdownTimeout?: Duration.Input | undefined
}

/** What a copy is doing: as its stream, but that it also goes on after a failure of the target. */
export type State =
  | Exclude<LogicalStream.StreamState, { readonly _tag: "Reconnecting" }>
  | { readonly _tag: "Reconnecting"; readonly attempt: number; readonly cause: CopyError }

/** A copy to be run. Nothing is opened yet. */
export interface Copy {
  readonly options: Options
  /** Copies, then follows; see {@link run}. Once: it never ends by itself. */
  readonly run: Effect.Effect<never, CopyError>
  /** What it is doing. To be watched with `SubscriptionRef.changes`. */
  readonly state: SubscriptionRef.SubscriptionRef<State>
  /** Whether it is well: its stream's health, and between two attempts its own. Asks nobody. For `Operations.layer`. */
  readonly health: Effect.Effect<Health.Health>
  /** How its stream is now; nothing between two attempts. */
  readonly observe: Effect.Effect<Observation | undefined>
  /** What it has done so far: it goes on counting here. */
  readonly totals: Readonly<CopyTotals>
}

/** What outlives an attempt. */
interface Run {
  readonly options: Options
  readonly to: PgConfig.PgConfig
  readonly totals: CopyTotals
  readonly state: SubscriptionRef.SubscriptionRef<State>
  /** Everything was found to be well once: from then on, what fails may pass. */
  hasBegun: boolean
  /** How the attempts go. */
  readonly watched: CopyHealth
}

/** What is read beside the stream begins anew with each attempt: nothing is kept of it. */
const isOfRequests = (key: string): boolean => key.startsWith("tables/")

/** The checkpoint of the first copy lies in our own row, and is stored with the rows. */
const checkpointStore = (writer: TargetWriter): CheckpointStore.CheckpointStore["Service"] => {
  const during = (name: "load" | "remove", key: string) => (error: { readonly message: string }) =>
    new CheckpointStore.CheckpointError({ during: name, key, problem: error.message })
  return {
    load: (key) =>
      isOfRequests(key)
        ? Effect.succeedNone
        : CopyPosition.load(writer.session, writer.slot).pipe(
            Effect.map((position) => Option.fromUndefinedOr(position?.snapshot)),
            Effect.mapError(during("load", key))
          ),
    save: () => Effect.void,
    remove: (key) =>
      isOfRequests(key)
        ? Effect.void
        : Effect.mapError(writer.store(CopyPosition.forget(writer.slot)), during("remove", key))
  }
}

/** From PostgreSQL 16 on the server leaves out what came to it from elsewhere; before, `TransactionWriter` does. */
const originSince = 160_000

const streamOptions = (options: Options, { joined, position, sourceVersion }: Setup, writer: TargetWriter) => {
  const { endLsn, idleFlush, systemId, timeline } = position
  // Without a checkpoint there is nothing to go on with but the stream.
  const hasRows = position.state === "copying" || position.snapshot !== undefined
  return {
    slot: options.slot,
    plugin: Pgoutput.make({
      publications: options.publications,
      // The target takes back what the source printed.
      types: "text",
      // The places of rows that are read beside the stream; else they are nobody's here.
      messages: joined.length > 0,
      origin: options.replicated === "skip" && sourceVersion >= originSince ? "none" : undefined
    }),
    snapshot: hasRows ? ("initial" as const) : ("never" as const),
    // Which tables are covered lies in our own row, and is compared by ourselves.
    copy: { connections: options.connections, piecePages: options.piecePages, whenJoined: "ignore" },
    // Also of one that has nothing yet: what it gets must be of the history of whoever answers next.
    checkpoint: { endLsn, systemId, timeline, idleFlush },
    storeIdleFlush: (lsn: Lsn.Lsn) =>
      Effect.suspend((): Effect.Effect<void, WriteError | "busy"> => {
        // It would become part of the transaction that is open.
        return writer.isIdle
          ? writer.store(CopyPosition.idle(options.slot, { lsn, timeline: writer.timeline() }))
          : Effect.fail("busy")
      }),
    failover: options.failover,
    slotPolicy: { inUseTimeout: "30 seconds" },
    timing: { shutdownTimeout: options.shutdownTimeout }
  } as const
}

/** One session at the target, and one stream into it. Ends when another is to begin, since other tables are published. */
const attempt = Effect.fnUntraced(function* (run: Run): Effect.fn.Return<void, CopyError, WalSender | Scope.Scope> {
  run.watched.begins()
  const { options, state, totals } = run
  const { origin = "marked", replicated = "apply", slot } = options
  const session = yield* TargetSession.open({ config: run.to, slot, triggers: options.triggers ?? "quiet" })
  const prepared = yield* Effect.scoped(
    Effect.flatMap(WalSender, (sender) =>
      Effect.flatMap(sender.connect, (source) =>
        setup(source, session, {
          slot,
          publications: options.publications,
          whenMissing: options.whenMissing ?? "fail",
          whenFilled: options.whenFilled ?? "fail",
          rows: options.rows ?? "copy",
          types: options.types ?? "fitting",
          origin
        })
      )
    )
  )
  run.hasBegun = true
  const { coverage, joined, position, tables } = prepared
  const followed = new FollowedTables(coverage, {
    followsAll: options.rows === "leave",
    mayEmpty: options.whenFilled === "truncate"
  })
  // Not that of the position: a first copy that begins anew after a failover is of another.
  let { timeline } = prepared
  const writer = new TargetWriter({ session, slot, tables, totals, committed: position.endLsn, timeline, followed })
  yield* tellApplied(writer)
  const stream = yield* LogicalStream.make(streamOptions(options, prepared, writer))
  writer.timeline = () => {
    const now = SubscriptionRef.getUnsafe(stream.state)
    if (now._tag === "Streaming") timeline = now.timeline
    return timeline
  }
  yield* SubscriptionRef.changes(stream.state).pipe(
    Stream.filter(({ _tag }) => _tag !== "Idle" && _tag !== "Stopped"),
    Stream.runForEach((now) => SubscriptionRef.set(state, now)),
    Effect.forkScoped
  )
  const isOutdated = outdated(followed, options.publications)
  const running = run.watched.during(stream, stream.run(copyHandler(writer, { origin, replicated }))).pipe(
    Effect.provideService(CheckpointStore.CheckpointStore, checkpointStore(writer)),
    // Over rows that are not those of the source: they are void.
    Effect.catchTag("TargetFailed", (error) =>
      Effect.flatMap(followed.isCopying ? Effect.succeed(false) : isOutdated, (isOver) =>
        isOver ? Effect.void : Effect.fail(error)
      )
    )
  )
  const watching = watchTables(followed, isOutdated, stream.state)
  if (joined.length === 0) return yield* Effect.raceFirst(running, watching)
  return yield* Effect.raceAllFirst([running, watching, readTables(stream, joined, followed, isOutdated)])
})

/** How far the target is, for whoever reads the metrics. It outlives the attempt: what is committed there stays so. */
const tellApplied = (writer: TargetWriter): Effect.Effect<void> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.sync(() => {
      const labels = { ...Context.get(context, Metric.CurrentMetricAttributes), slot: writer.slot }
      Metric.registerUnsafe(Metrics.copyAppliedLsn, Context.add(context, Metric.CurrentMetricAttributes, labels), {
        get: () => ({ value: writer.committed }),
        update: () => {},
        modify: () => {}
      })
    })
  )

/** Attempts one after the other, while another may mend it. At the start nothing is waited for: it is wrong, and told. */
const attempts = (run: Run): Effect.Effect<never, CopyError, WalSender> =>
  LogicalStream.retrying(Effect.forever(Effect.scoped(attempt(run))), {
    decide: (error: CopyError) =>
      Effect.sync((): LogicalStream.Verdict<CopyError> => {
        const failed = run.watched.fails(`${error._tag}: ${error.message}`)
        return run.hasBegun && error.isRetryable ? { _tag: "Again", ...failed } : { _tag: "GiveUp", error }
      }),
    onFailure: (cause, attempt) =>
      Effect.andThen(
        SubscriptionRef.set(run.state, { _tag: "Reconnecting", attempt, cause }),
        Effect.logWarning(`the copy goes on (${attempt}) after ${cause._tag}: ${cause.message}`)
      )
  })

/**
 * A copy as a value: to be run, and watched.
 *
 * @example
 * const copy = yield* Copy.make(copying)
 * yield* SubscriptionRef.changes(copy.state).pipe(Stream.runForEach((now) => Effect.logInfo(now)), Effect.forkScoped)
 * yield* copy.run
 */
export const make = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Copy> {
  const state = yield* SubscriptionRef.make<State>({ _tag: "Idle" })
  const watched = new CopyHealth(yield* Clock.Clock)
  const totals: CopyTotals = { rows: 0, changes: 0, transactions: 0, missing: 0 }
  const run = Effect.gen(function* () {
    if (options.publications.length === 0) {
      return yield* new InvalidOption({ option: "publications", problem: "names none" })
    }
    const settings = { ...options.from.settings, ...TargetSession.sharedSettings }
    const from = yield* Effect.fromResult(PgConfig.resolve({ ...options.from, settings }))
    const to = yield* Effect.fromResult(PgConfig.resolve(options.to))
    watched.enters("Running")
    yield* SubscriptionRef.set(state, { _tag: "Connecting" })
    return yield* attempts({ options, to, totals, state, hasBegun: false, watched }).pipe(
      Effect.provideService(WalSender, PgWalSender.make(from))
    )
  }).pipe(
    Effect.ensuring(
      Effect.suspend(() => {
        watched.enters("Stopped")
        return SubscriptionRef.set(state, { _tag: "Stopped" })
      })
    ),
    Effect.annotateLogs({ slot: options.slot }),
    Effect.withSpan("Replicant.copy")
  )
  return { options, run, state, totals, health: watched.health, observe: watched.observe }
})

/**
 * Copies the rows of what is published into tables of the same names in another PostgreSQL, and then applies every
 * transaction there, each exactly once: its position is stored in the transaction that applies it. Run again, it goes on
 * where it stood, also in the middle of the first copy. It never ends by itself.
 *
 * Before the first row it checks that the tables are there with the published columns, that their types fit, that they are
 * empty, and that the role may write them. It makes nothing unless told to, by `whenMissing: "create"`.
 *
 * @example
 * Copy.run({
 *   from: { url: Redacted.make("postgres://replicant@old/shop") },
 *   to: { url: Redacted.make("postgres://replicant@new/shop") },
 *   publications: ["shop"],
 *   slot: "shop_copy",
 *   whenMissing: "create"
 * })
 */
export const run = (options: Options): Effect.Effect<never, CopyError> =>
  Effect.flatMap(make(options), (copy) => copy.run)
