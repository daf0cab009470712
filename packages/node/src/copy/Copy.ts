/**
 * The public module `Copy`: published tables in another PostgreSQL, and then in step with it. Docs: docs/copy.md.
 *
 * One session at the target and one stream from the source are one attempt. Where either is lost in a way that may pass, both
 * are begun again, from the position that the target has: there is no other memory.
 */
import {
  CheckpointStore,
  type Handled,
  InvalidOption,
  isSnapshotChange,
  type LogicalStreamOptions,
  Lsn,
  makeStreamState,
  Pgoutput,
  Snapshot,
  type StreamStateRef,
  withLogicalStreamArray
} from "@replicant/core"
import { WalSender } from "@replicant/core/driver"
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as PgConfig from "../pg/PgConfig.ts"
import * as PgWalSender from "../pg/PgWalSender.ts"
import type { CopyError } from "./CopyError.ts"
import * as CopyPosition from "./CopyPosition.ts"
import { type Setup, setup } from "./CopySetup.ts"
import type { CopyTotals } from "./CopyTotals.ts"
import { SnapshotWriter } from "./SnapshotWriter.ts"
import * as TargetSession from "./TargetSession.ts"
import { TargetWriter, type WriteError } from "./TargetWriter.ts"
import { TransactionWriter } from "./TransactionWriter.ts"

export * from "./CopyError.ts"
export type { CopyTotals } from "./CopyTotals.ts"

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
  /** `marked`, the default: what is written at the target bears a replication origin. */
  readonly origin?: "marked" | "unmarked" | undefined
  /** What was itself replicated to the source: `apply`, unless told otherwise. `skip` in both directions keeps two in step. */
  readonly replicated?: "apply" | "skip" | undefined
  /** How many connections read the first copy: 2. */
  readonly connections?: number | undefined
  /** Pages (mostly of 8 kB) that are copied at a time, and committed at the target with their checkpoint: 2048. */
  readonly piecePages?: number | undefined
  /** Told how far the first copy is. */
  readonly progress?: Snapshot.ProgressRef | undefined
  /** Told every change of the stream's state. */
  readonly state?: StreamStateRef | undefined
  /** Counted here, where it is given. */
  readonly totals?: CopyTotals | undefined
  /** How long what is being applied may take to end when the program is interrupted: 5 s. */
  readonly shutdownTimeout?: Duration.Input | undefined
}

/** A place for a copy to count in. */
export const makeTotals = (): CopyTotals => ({ rows: 0, changes: 0, transactions: 0, missing: 0 })

/** What outlives an attempt. */
interface Run {
  readonly options: Options
  readonly from: PgConfig.PgConfig
  readonly to: PgConfig.PgConfig
  readonly totals: CopyTotals
  /** Everything was found to be well once: from then on, what fails may pass. */
  hasBegun: boolean
  failures: number
}

/**
 * The checkpoint of the first copy lies in our own row, and is stored with the rows. It is loaded by each attempt before it
 * makes a slot: what the one before has left open is undone first, for a slot waits for every transaction of its cluster.
 */
const checkpointStore = (
  writer: TargetWriter,
  inTurn: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>
): CheckpointStore.CheckpointStore["Service"] => {
  const during = (name: "load" | "remove", key: string) => (error: { readonly message: string }) =>
    new CheckpointStore.CheckpointError({ during: name, key, problem: error.message })
  return {
    load: (key) =>
      inTurn(Effect.andThen(writer.rollback(), CopyPosition.load(writer.session, writer.slot))).pipe(
        Effect.map((position) => Option.fromUndefinedOr(position?.snapshot)),
        Effect.mapError(during("load", key))
      ),
    save: () => Effect.void,
    remove: (key) =>
      writer.isOpen
        ? Effect.void
        : writer.run([CopyPosition.forget(writer.slot)], ["position"]).pipe(Effect.mapError(during("remove", key)))
  }
}

/** From PostgreSQL 16 on the server leaves out what came to it from elsewhere; before, `TransactionWriter` does. */
const originSince = 160_000

const streamOptions = (
  run: Run,
  { position, sourceVersion }: Setup,
  transactions: TransactionWriter
): LogicalStreamOptions => ({
  slot: run.options.slot,
  plugin: Pgoutput.make({
    publications: run.options.publications,
    // The target takes back what the source printed.
    types: "text",
    messages: false,
    origin: run.options.replicated === "skip" && sourceVersion >= originSince ? "none" : undefined
  }),
  checkpoint:
    position.endLsn === Lsn.zero
      ? undefined
      : {
          endLsn: position.endLsn,
          systemId: position.systemId,
          timeline: position.timeline,
          idleFlush: position.idleFlush
        },
  storeIdleFlush: (lsn) => transactions.storeIdleFlush(lsn),
  slotInUseTimeout: "30 seconds",
  shutdownTimeout: run.options.shutdownTimeout
})

type Handler = (changes: NonEmptyReadonlyArray<Snapshot.ChangeAfterSnapshot>) => Effect.Effect<Handled, WriteError>

const isOfSnapshot = (
  changes: ReadonlyArray<Snapshot.ChangeAfterSnapshot>
): changes is ReadonlyArray<Snapshot.SnapshotChange> => changes[0] !== undefined && isSnapshotChange(changes[0])

/** One session at the target, and one stream into it. */
const attempt = Effect.fnUntraced(function* (run: Run): Effect.fn.Return<never, CopyError, WalSender | Scope.Scope> {
  const { options } = run
  const { slot } = options
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
          origin: options.origin ?? "marked"
        })
      )
    )
  )
  run.hasBegun = true
  const { position, tables } = prepared
  const writer = new TargetWriter({ session, slot, tables, totals: run.totals })
  const rows = new SnapshotWriter(writer)
  const transactions = new TransactionWriter(writer, {
    origin: options.origin ?? "marked",
    replicated: options.replicated ?? "apply",
    committed: position.endLsn
  })
  const inTurn = Semaphore.withPermit(yield* Semaphore.make(1))
  const state = options.state ?? (yield* makeStreamState)
  // What a lost stream has brought in part comes again: it must not stay open, with its locks, until then.
  const undo = Effect.flatMap(SubscriptionRef.get(state), ({ _tag }) =>
    _tag === "Reconnecting" ? writer.rollback() : Effect.void
  )
  yield* SubscriptionRef.changes(state).pipe(
    Stream.filter(({ _tag }) => _tag === "Reconnecting"),
    Stream.runForEach(() => Effect.ignore(inTurn(undo))),
    Effect.forkScoped
  )
  const handle: Handler = (changes) =>
    Effect.tap(
      isOfSnapshot(changes)
        ? rows.handle(changes)
        : transactions.handle(changes as Parameters<TransactionWriter["handle"]>[0]),
      () =>
        Effect.sync(() => {
          run.failures = 0
        })
    )
  const handler: Handler = (changes) => inTurn(handle(changes))
  const streaming = { ...streamOptions(run, prepared, transactions), state }
  // Without a checkpoint there is nothing to go on with but the stream.
  if (position.state !== "copying" && position.snapshot === undefined) {
    const createSlot = position.endLsn === Lsn.zero ? ("permanent" as const) : undefined
    return yield* withLogicalStreamArray({ ...streaming, createSlot }, handler)
  }
  return yield* Snapshot.withSnapshotStreamArray(
    {
      ...streaming,
      snapshot: "initial",
      connections: options.connections,
      piecePages: options.piecePages,
      progress: options.progress,
      checkpoints: checkpointStore(writer, inTurn)
    },
    handler
  )
})

/** What another attempt may mend. At the start nothing is waited for: it is wrong, and told. */
const mayPass = (run: Run, error: CopyError): boolean => run.hasBegun && error.isRetryable

/** In milliseconds: a quarter of a second, doubled up to ten, each shortened by up to a half. */
const delay = (failures: number): Effect.Effect<number> =>
  Effect.sync(() => Math.min(10_000, 250 * 2 ** failures) * (0.5 + Math.random() / 2))

const forever = Effect.fnUntraced(function* (run: Run): Effect.fn.Return<never, CopyError, WalSender> {
  while (true) {
    const failure = yield* Effect.flip(Effect.scoped(attempt(run)))
    if (!mayPass(run, failure)) return yield* Effect.fail(failure)
    const millis = yield* delay(run.failures)
    run.failures += 1
    yield* Effect.logWarning(`the copy goes on in ${Math.round(millis)} ms after ${failure._tag}: ${failure.message}`)
    yield* Effect.sleep(millis)
  }
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
export const run = Effect.fn("Replicant.copy")(function* (options: Options): Effect.fn.Return<never, CopyError> {
  if (options.publications.length === 0) {
    return yield* new InvalidOption({ option: "publications", problem: "names none" })
  }
  const shared = TargetSession.sharedSettings
  const { from: source } = options
  const from = yield* Effect.fromResult(PgConfig.resolve({ ...source, settings: { ...source.settings, ...shared } }))
  const to = yield* Effect.fromResult(PgConfig.resolve(options.to))
  const totals = options.totals ?? makeTotals()
  const started: Run = { options, from, to, totals, hasBegun: false, failures: 0 }
  return yield* forever(started).pipe(
    Effect.provideService(WalSender, PgWalSender.make(from)),
    Effect.annotateLogs({ slot: options.slot })
  )
})
