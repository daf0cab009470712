/**
 * Takes away what a copy that was given up has left: at the source its slots, which keep WAL for ever, at the target its
 * origin and its position. Rows stay.
 *
 * The position goes last: it alone says that the slots are this copy's. So what is cut off can be done again.
 */
import { InvalidOption, ReplicationSlot, SlotInUse, SystemMismatch } from "@replicant/core"
import {
  identifySystem,
  quoteLiteral,
  type ReplicantConnection,
  WalSender,
  workingSlotName
} from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import * as PgConfig from "../pg/PgConfig.ts"
import * as PgWalSender from "../pg/PgWalSender.ts"
import { type CopyError, CopyPositionLost } from "./CopyError.ts"
import * as CopyPosition from "./CopyPosition.ts"
import { originName } from "./ReplicationOrigin.ts"
import * as TargetSession from "./TargetSession.ts"

/** Which copy. */
export interface ForgetOptions {
  readonly from: PgConfig.Options
  readonly to: PgConfig.Options
  readonly slot: string
  /** `tell` leaves all as it is, and says what would go. */
  readonly remains?: "drop" | "tell" | undefined
}

/** Something that is left, and how it goes. */
interface Remnant {
  readonly what: string
  readonly drop: Effect.Effect<unknown, CopyError>
}

/** Only where a position says so are they ours. */
const slotsLeft = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  slot: string,
  position: CopyPosition.CopyPosition
): Effect.fn.Return<ReadonlyArray<Remnant>, CopyError> {
  const { database, systemId } = yield* identifySystem(source)
  if (systemId !== position.systemId) {
    return yield* new SystemMismatch({ property: "systemId", expected: position.systemId, found: systemId })
  }
  const left: Array<Remnant> = []
  for (const name of [workingSlotName(slot), slot]) {
    const found = yield* ReplicationSlot.getReplicationSlot(source, name)
    // Names are of the whole cluster: another database's copy may have the same.
    if (found === undefined || found.database !== database) continue
    if (found.activePid !== undefined) return yield* new SlotInUse({ slot: name, activePid: found.activePid })
    left.push({ what: `slot "${name}" at the source`, drop: ReplicationSlot.dropReplicationSlot(source, name) })
  }
  return left
})

const originLeft = Effect.fnUntraced(function* (
  target: TargetSession.TargetSession,
  slot: string
): Effect.fn.Return<ReadonlyArray<Remnant>, CopyError> {
  const [row] = yield* target.query("SELECT current_database() AS database")
  const name = originName(row?.database ?? "", slot)
  const found = yield* target.query(`SELECT FROM pg_catalog.pg_replication_origin WHERE roname = ${quoteLiteral(name)}`)
  const drop = target.query(`SELECT pg_catalog.pg_replication_origin_drop(${quoteLiteral(name)})`)
  return found.length === 0 ? [] : [{ what: `replication origin "${name}" at the target`, drop }]
})

const forgetWith = Effect.fnUntraced(function* (
  source: ReplicantConnection,
  target: TargetSession.TargetSession,
  { remains = "drop", slot }: ForgetOptions
): Effect.fn.Return<ReadonlyArray<string>, CopyError> {
  const position = (yield* CopyPosition.tableExists(target)) ? yield* CopyPosition.load(target, slot) : undefined
  if (position === undefined) {
    return yield* new CopyPositionLost({
      slot,
      problem: "the target knows no position of it, so that no slot at the source can be told to be this copy's",
      remedy: "check the slot's name and the target; a slot that is nobody's is dropped by its name alone"
    })
  }
  const row: Remnant = {
    what: `the position of "${slot}" in replicant.copy_position at the target`,
    drop: target.query(`DELETE FROM replicant.copy_position WHERE slot = ${quoteLiteral(slot)}`)
  }
  const left = [...(yield* slotsLeft(source, slot, position)), ...(yield* originLeft(target, slot)), row]
  if (remains === "drop") {
    for (const { drop, what } of left) {
      yield* drop
      yield* Effect.logInfo(`dropped ${what}`)
    }
  }
  return left.map(({ what }) => what)
})

/**
 * Takes away what a copy has left that is not wanted any more: its slot, the one that it kept while rows were copied, its
 * replication origin and its position. Gives what went. Fails with `TargetInUse` or `SlotInUse` while it is at work.
 *
 * @example
 * const left = yield* Copy.forget({ from: { host: "old", database: "shop" }, to: { host: "new", database: "shop" }, slot: "shop_copy", remains: "tell" })
 */
export const forget = (options: ForgetOptions): Effect.Effect<ReadonlyArray<string>, CopyError> =>
  Effect.scoped(
    Effect.gen(function* () {
      if (options.slot === "") return yield* new InvalidOption({ option: "slot", problem: "is empty" })
      const from = yield* Effect.fromResult(PgConfig.resolve(options.from))
      const config = yield* Effect.fromResult(PgConfig.resolve(options.to))
      // Its lock keeps a copy away, and is held by one that runs.
      const target = yield* TargetSession.open({ config, slot: options.slot, triggers: "fire" })
      const sender = Effect.flatMap(WalSender, ({ connect }) => connect)
      const source = yield* Effect.provideService(sender, WalSender, PgWalSender.make(from))
      return yield* forgetWith(source, target, options)
    })
  )
