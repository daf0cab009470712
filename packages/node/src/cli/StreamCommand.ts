/**
 * `replicant stream`: the changes of a slot as JSON lines, or for people. It resumes where it stopped, since it
 * acknowledges what standard output has taken, and only that.
 */
import { randomBytes } from "node:crypto"
import {
  CheckpointStore,
  LogicalStream,
  type Lsn,
  Publication,
  type ReplicationError,
  ReplicationSlot,
  SlotAlreadyExists,
  TransactionSpill
} from "@replicant/core"
import { identifySystem, type WalSender } from "@replicant/core/driver"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { encodeChange } from "./ChangeJson.ts"
import { ChangeText } from "./ChangeText.ts"
import { type Formatter, follow } from "./Follow.ts"
import * as Listen from "./Listen.ts"
import * as LiveLine from "./LiveLine.ts"
import * as OwnPublication from "./OwnPublication.ts"
import { tableFlag, withoutIdentityFlag } from "./PublicationCommand.ts"
import * as ReplicaIdentity from "./ReplicaIdentity.ts"
import * as Root from "./Root.ts"
import { createSlot } from "./SlotCommand.ts"
import { Output } from "./StandardOutput.ts"
import { showStream } from "./StreamLine.ts"
import { type StreamFlags, type StreamPlan, streamPlan } from "./StreamPlan.ts"
import { isFrame } from "./StreamWindow.ts"
import { underLease } from "./UnderLease.ts"
import * as WalDirectory from "./WalDirectory.ts"

/** How long a slot may be in use when the command starts: what was just killed takes a moment to let go of it. */
const slotInUseMillis = 10_000

/** A name for a slot of this run alone. */
export const generatedSlot: Effect.Effect<string> = Effect.sync(() => `replicant_${randomBytes(5).toString("hex")}`)

/**
 * A slot made by a snapshot is permanent, since it goes on from another connection than it was made on. One that was to live
 * as long as this command is dropped with the scope.
 */
const dropAtEnd = (slot: string): Effect.Effect<void, never, WalSender | Scope.Scope> =>
  Effect.addFinalizer(() =>
    Root.withConnection((connection) => ReplicationSlot.dropReplicationSlot(connection, slot, { wait: true })).pipe(
      Effect.catchTag("SlotNotFound", () => Effect.void),
      Effect.catch((error) =>
        Effect.logWarning(`could not drop slot "${slot}", which keeps WAL until it is dropped: ${error.message}`)
      )
    )
  )

/** Of a publication that is yet to be made: one that is there breaks nothing anew. */
const checkIdentity = (publication: Publication.PublicationOptions) =>
  Root.withConnection(
    Effect.fnUntraced(function* (connection) {
      const all = yield* Publication.listPublications(connection)
      if (all.some(({ name }) => name === publication.name)) return
      yield* ReplicaIdentity.check(connection, publication)
    })
  )

/**
 * Makes and checks what the stream needs on a connection of its own, so that what is wrong is told at once: the stream
 * itself would try again for as long as it may pass.
 */
const prepare = Effect.fnUntraced(function* (
  plan: StreamPlan,
  { failover, lease, withoutIdentity }: StreamFlags
): Effect.fn.Return<void, ReplicationError, WalSender | Scope.Scope> {
  const { plugin, publication, slot } = plan
  if (publication !== undefined && !withoutIdentity) yield* checkIdentity(publication)
  if (publication !== undefined && plan.createSlot === "temporary") yield* OwnPublication.acquire(publication)
  yield* Root.withConnection(
    Effect.fnUntraced(function* (connection) {
      if (publication !== undefined) yield* Publication.setupPublication(connection, publication)
      yield* Publication.checkPublications(connection, plugin.tells.publications)
      if (plan.snapshot === "only") return undefined
      const found = yield* ReplicationSlot.getReplicationSlot(connection, slot)
      if (plan.createSlot === "temporary") {
        // A permanent slot of that name is somebody's: reading it would move it on.
        return found === undefined ? undefined : yield* new SlotAlreadyExists({ slot })
      }
      if (found === undefined && plan.snapshot === "initial") {
        yield* Effect.logInfo(`slot "${slot}" is made by its snapshot: then it keeps WAL until it is read or dropped`)
        return undefined
      }
      const { database } = yield* identifySystem(connection)
      if (found === undefined && plan.createSlot === "permanent") {
        yield* createSlot(connection, { slot, plugin: plugin.name, failover })
        yield* Effect.logInfo(
          `made slot "${slot}": it keeps WAL until it is read or dropped (replicant slot drop ${slot})`
        )
        return undefined
      }
      if (found?.activePid !== undefined && !lease) {
        yield* Effect.logInfo(`slot "${slot}" is in use by pid ${found.activePid}: waiting ${slotInUseMillis / 1000} s`)
      }
      const inUseTimeout = slotInUseMillis
      yield* ReplicationSlot.setupReplicationSlot(connection, {
        slot,
        plugin: plugin.name,
        database,
        inUseTimeout,
        mayTakeOverFrom: () => lease
      })
      return undefined
    })
  )
})

/** What is wrong with who stands by is told at once: on the day that it is needed is too late. */
const checkStandby = ({ plugin, publication }: StreamPlan) =>
  publication === undefined
    ? Root.withConnection((connection) => Publication.checkPublications(connection, plugin.tells.publications))
    : Effect.void

/** Keeps checkpoints where `--checkpoint` says. */
const withCheckpoints = <A, E, R>(self: Effect.Effect<A, E, R>, { checkpoint }: StreamFlags) =>
  Option.match(checkpoint, {
    onNone: () => self,
    onSome: (directory) => Effect.provide(self, CheckpointStore.file({ directory }))
  })

const formatter = Effect.fnUntraced(function* (flags: StreamFlags, shared: Root.Shared): Effect.fn.Return<Formatter> {
  if (flags.pretty) {
    const text = new ChangeText(yield* Root.palette(shared))
    return (change) => text.format(change)
  }
  return flags.boundaries ? encodeChange : (change) => (isFrame(change) ? undefined : encodeChange(change))
})

const run = Effect.fnUntraced(function* (flags: StreamFlags) {
  const shared = yield* Root.command
  const plan = yield* Effect.fromResult(streamPlan(flags, yield* generatedSlot))
  const format = yield* formatter(flags, shared)
  const totals = { changes: 0, transactions: 0 }
  const stream = yield* LogicalStream.make({
    slot: plan.slot,
    plugin: plan.plugin,
    snapshot: plan.snapshot,
    copy: {
      connections: Option.getOrUndefined(flags.connections),
      rateLimit: Option.getOrUndefined(Option.map(flags.rateLimit, (rows) => ({ rows })))
    },
    createSlot: plan.snapshot === undefined && plan.createSlot === "temporary" ? "temporary" : undefined,
    failover: flags.failover ? true : undefined,
    slotPolicy: { inUseTimeout: slotInUseMillis },
    timing: { acknowledgeDelay: "200 millis" }
  })
  const following = Effect.gen(function* () {
    yield* prepare(plan, flags)
    if (plan.snapshot === "initial" && plan.createSlot === "temporary") yield* dropAtEnd(plan.slot)
    const followed = follow({
      stream,
      window: {
        limit: Option.getOrUndefined(flags.limit),
        untilLsn: Option.getOrUndefined(flags.untilLsn),
        isSnapshotOnly: plan.snapshot === "only"
      },
      format,
      totals
    })
    const { isTerminal } = yield* LiveLine.Standard
    if (!isTerminal) return yield* followed
    // Lines that go to a file or a pipe show nothing of themselves: a terminal beside them shows how it goes.
    const shows = (yield* Output).isTerminal ? "before" : "all"
    return yield* Effect.raceFirst(
      followed,
      showStream({ slot: plan.slot, state: SubscriptionRef.get(stream.state), totals, shows })
    )
  })
  const { name, tells } = plan.plugin
  yield* Effect.gen(function* () {
    if (flags.lease) yield* checkStandby(plan)
    yield* underLease(Effect.scoped(withCheckpoints(following, flags)), {
      stream,
      plan: { publications: tells.publications, plugin: name },
      flags
    })
  }).pipe(Effect.scoped, Effect.provide(Root.walSender(shared)), Effect.provide(TransactionSpill.layer()))
})

const untilLsn: Flag.Flag<Option.Option<Lsn.Lsn>> = Flag.optional(
  Root.lsnFlag("until-lsn", "Stop once everything committed before this position is written")
)

const atLeastOne = (count: number): boolean => count >= 1
const expectedCount = () => "Expected a whole number of 1 or more"

const limit = Flag.Int("limit").pipe(
  Flag.withDescription("Stop after so many changes, at the end of their transaction"),
  Flag.filter(atLeastOne, expectedCount),
  Flag.optional
)

const connections = Flag.Int("connections").pipe(
  Flag.withDescription("How many connections a snapshot copies over: 2"),
  Flag.filter(atLeastOne, expectedCount),
  Flag.optional
)

export const command = Command.make(
  "stream",
  {
    slot: Flag.String("slot").pipe(Flag.withDescription("The replication slot to read"), Flag.optional),
    publication: Flag.String("publication").pipe(
      Flag.withDescription("A publication to read; again for more"),
      Flag.atLeast(0)
    ),
    table: tableFlag,
    plugin: Flag.Literals("plugin", ["pgoutput", "wal2json"]).pipe(
      Flag.withDescription("The output plugin"),
      Flag.withDefault("pgoutput")
    ),
    create: Root.switchFlag(
      "create",
      "Make the slot if there is none, and for --table a publication of the slot's name"
    ),
    temporary: Root.switchFlag("temporary", "Use a slot that lives as long as this command, and leave nothing behind"),
    failover: Root.switchFlag("failover", "Keep the slot on standbys too (PostgreSQL 17)"),
    withoutIdentity: withoutIdentityFlag,
    snapshot: Flag.Literals("snapshot", ["initial", "only", "never"]).pipe(
      Flag.withDescription(
        "Begin with the rows that are there: where there is no slot yet (initial), or the rows only (only)"
      ),
      Flag.optional
    ),
    connections,
    rateLimit: Flag.Int("rate-limit").pipe(
      Flag.withMetavar("rows"),
      Flag.withDescription("Let a snapshot read no more than so many rows a second"),
      Flag.filter(atLeastOne, expectedCount),
      Flag.optional
    ),
    checkpoint: Flag.Directory("checkpoint").pipe(
      Flag.withDescription("Keep there how far a snapshot is, so that another run goes on with it"),
      Flag.optional
    ),
    untilLsn,
    limit,
    pretty: Root.switchFlag("pretty", "For people instead of programs"),
    boundaries: Root.switchFlag(
      "boundaries",
      "Also a line for each begin, commit, origin and change of a table's shape"
    ),
    streaming: Flag.Literals("streaming", ["on", "parallel"]).pipe(
      Flag.withDescription(
        "Let the server send large transactions before they commit; they are printed once they have"
      ),
      Flag.optional
    ),
    listen: Listen.flag,
    walDirectory: WalDirectory.flag,
    lease: Root.switchFlag(
      "lease",
      "Follow while this process holds the slot's lease, and stand by while another does"
    ),
    twoPhase: Root.switchFlag(
      "two-phase",
      "Print prepared transactions when they are prepared, and then what became of them"
    )
  },
  run
).pipe(
  Command.withDescription("Prints changes as JSON lines, and acknowledges what it has written"),
  Command.withExamples([
    {
      command: "replicant stream --slot audit --create --table orders --table order_items",
      description: "Make slot and publication, then stream from now on; run it again to resume"
    },
    {
      command: "replicant stream --slot audit --create --table orders --snapshot initial",
      description: "The rows that are there first, then what changes; run it again to resume"
    },
    {
      command: "replicant stream --slot audit --publication audit --lease",
      description: "One of several: where the one that streams is gone, another goes on"
    },
    {
      command: "replicant stream --temporary --publication orders --pretty",
      description: "Watch, and leave nothing behind"
    }
  ])
)
