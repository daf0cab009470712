/**
 * The slot of a stream, made ready: found and checked, waited for or taken over, made where that was asked for. What is
 * lost is told; `SlotGap.ts` makes up for it where that was asked for.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { type ReplicationError, SlotInUse, SlotInvalidated, SlotMismatch, SlotNotFound } from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import { getReplicationSlot, isInvalidated, type ReplicationSlot } from "./SlotCatalog.ts"
import { createReplicationSlot } from "./SlotCreation.ts"
import type { ReplicantConnection } from "./WalSender.ts"

/** What to do when the slot is not there for us as we left it. Left out, everything but a busy slot is a failure. */
export interface SlotPolicy {
  /**
   * While another connection streams from the slot: `wait` (the default, but `takeOver` under the slot's lease) tries again each 250 ms, after 10 s each 2 s, for
   * `inUseTimeout`, and then fails with `SlotInUse`, which names the pid; `fail` does so at once. `takeOver` ends the
   * other connection with `pg_terminate_backend` and says so in the log; the role must be allowed to. It ends nothing but a
   * walsender that holds this very slot; and when we were ended ourselves, we wait: of two that would take over, the one
   * that was started last streams.
   */
  readonly inUse?: "wait" | "fail" | "takeOver" | undefined
  /** How long to wait while another connection streams from the slot: 5 minutes. 0 fails at once. */
  readonly inUseTimeout?: Duration.Input | undefined
  /**
   * When the server has given the slot up, and with it what was not confirmed: `fail` (the default) with
   * `SlotInvalidated`, or `recreate`: another is made in its place, and a `Gap` is delivered before anything of it.
   */
  readonly invalidated?: "fail" | "recreate" | undefined
  /**
   * When there is no slot though there was one: this process has streamed from it, there is a `checkpoint`, or `createSlot`
   * is left out. `fail` (the default) with `SlotNotFound`, or `recreate`, with a `Gap`. Mind that another server may answer.
   */
  readonly missing?: "fail" | "recreate" | undefined
  /** How long the making of a slot may wait for one older transaction: 1 minute, then `SlotCreationBlocked`. 0: for ever. */
  readonly creationTimeout?: Duration.Input | undefined
}

/** The slot that is wanted, and what may be done to have it. */
export interface SetupSlot {
  readonly slot: string
  readonly plugin: string
  /** The database we are connected to. */
  readonly database: string
  /** Makes the slot when there is none; `undefined` never does: what it stood for would be lost without a word. */
  readonly create?: "permanent" | "temporary" | undefined
  /** Makes it one that standbys keep, too. */
  readonly failover?: boolean | undefined
  /** How long to wait, in milliseconds, while another connection streams from it. */
  readonly inUseTimeout: number
  readonly creationTimeout?: Duration.Input | undefined
  /** Whether the connection of that pid may be ended to have the slot: none, unless told otherwise. */
  readonly mayTakeOverFrom?: ((pid: number) => boolean) | undefined
  /** Told each time the slot is found in use. */
  readonly onInUse?: ((pid: number) => Effect.Effect<void>) | undefined
}

/** Tries again while the slot is in use: each 250 ms at first, as who was killed takes a moment, and each 2 s after 10 s. */
const inUsePace = (timeout: number) =>
  Schedule.spaced("250 millis").pipe(
    Schedule.upTo({ times: 40 }),
    Schedule.concat(Schedule.spaced("2 seconds")),
    Schedule.upTo({ duration: Duration.millis(timeout) })
  )

/** Whether this slot is ours to stream from. */
const checkSlot = (found: ReplicationSlot, wanted: SetupSlot): Effect.Effect<ReplicationSlot, ReplicationError> => {
  const { slot } = wanted
  const mismatch = (property: "type" | "database" | "plugin", expected: string, actual: string | undefined) =>
    new SlotMismatch({ slot, property, expected, found: actual ?? "none" })
  if (found.type !== "logical") return Effect.fail(mismatch("type", "logical", found.type))
  if (found.database !== wanted.database) return Effect.fail(mismatch("database", wanted.database, found.database))
  if (found.plugin !== wanted.plugin) return Effect.fail(mismatch("plugin", wanted.plugin, found.plugin))
  if (isInvalidated(found)) {
    const lastLsn = found.confirmedFlushLsn
    return Effect.fail(new SlotInvalidated({ slot, reason: found.invalidationReason ?? "unknown", lastLsn }))
  }
  if (found.activePid !== undefined) return Effect.fail(new SlotInUse({ slot, activePid: found.activePid }))
  return Effect.succeed(found)
}

/** How often to look whether a walsender that was ended has let go of the slot, and how many times; milliseconds. */
const letGoInterval = 20
const maxLooks = 100

/** Ends the walsender of that pid, if it is one and still holds the slot, and waits until it has let go. */
const takeOver = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  slot: string,
  pid: number
): Effect.fn.Return<void, ReplicationError> {
  yield* Effect.logWarning(`taking replication slot ${slot} over: ending the walsender of pid ${pid}`)
  const text = `SELECT pg_catalog.pg_terminate_backend(s.active_pid) FROM pg_catalog.pg_replication_slots s
  JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid
  WHERE s.slot_name = ${quoteLiteral(slot)} AND s.active_pid = ${pid}`
  const ended = yield* Catalog.queryAt(connection, text, { stage: "Query", slot })
  // The other one may connect anew: whoever looks more often is there first.
  for (let look = 0; ended.length > 0 && look < maxLooks; look++) {
    if ((yield* getReplicationSlot(connection, slot))?.activePid !== pid) return
    yield* Effect.sleep(letGoInterval)
  }
})

/** Finds the slot, or makes it where that was asked for, and waits until it is free. */
export const setupReplicationSlot = Effect.fn("Replicant.setupReplicationSlot")(function* (
  connection: ReplicantConnection,
  options: SetupSlot
): Effect.fn.Return<ReplicationSlot, ReplicationError> {
  const { create, creationTimeout, plugin, slot } = options
  // The first look belongs to the handshake, and to its time limit; waiting for the slot may take longer.
  let inTime = connection.inConnectTimeout
  const lookUp = Effect.suspend(() => {
    const step = getReplicationSlot(connection, slot)
    const limited = inTime === undefined ? step : inTime(step)
    inTime = undefined
    return limited
  })
  const look = Effect.flatMap(lookUp, (found) =>
    found === undefined ? Effect.fail(new SlotNotFound({ slot })) : checkSlot(found, options)
  )
  const ended = new Set<number>()
  const onInUse = Effect.fnUntraced(function* (error: SlotInUse): Effect.fn.Return<ReplicationSlot, ReplicationError> {
    const pid = error.activePid
    if (pid === undefined) return yield* error
    if (options.onInUse !== undefined) yield* options.onInUse(pid)
    if (ended.has(pid) || options.mayTakeOverFrom?.(pid) !== true) return yield* error
    ended.add(pid)
    yield* takeOver(connection, slot, pid)
    return yield* look
  })
  const find = Effect.catchTag(look, "SlotInUse", onInUse).pipe(
    Effect.retry({
      while: (error) => error._tag === "SlotInUse" && options.inUseTimeout > 0,
      schedule: inUsePace(options.inUseTimeout)
    })
  )
  if (create === undefined) return yield* find
  const temporary = create === "temporary"
  const { failover } = options
  return yield* Effect.catchTag(find, "SlotNotFound", () =>
    createReplicationSlot(connection, {
      slot,
      plugin,
      temporary,
      failover,
      snapshot: "nothing",
      timeout: creationTimeout
    }).pipe(
      // Another process was quicker: the slot is there, which is all that was asked for.
      Effect.catchTag("SlotAlreadyExists", () => Effect.void),
      Effect.andThen(getReplicationSlot(connection, slot)),
      Effect.flatMap((made) => (made === undefined ? Effect.fail(new SlotNotFound({ slot })) : Effect.succeed(made)))
    )
  )
})
