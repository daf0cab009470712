/**
 * What a doctor makes of what a stream has asked already by the time it starts: settings of the server, and the slot's row. No
 * question is asked for it. Pure; who streams says it once, as warnings.
 */
import { logText } from "../ReplicationError.ts"
import type { ServerSettings } from "../server/Catalog.ts"
import type { ReplicationSlot } from "../server/SlotCatalog.ts"
import type * as Check from "./Check.ts"
import type { Asked } from "./Plan.ts"
import * as Server from "./Server.ts"
import { type Settings, settings } from "./ServerFacts.ts"
import { type Slot, slots } from "./SlotFacts.ts"
import * as Slots from "./Slots.ts"

/** Those that need nothing else, and say so. */
const checks = [...Server.checks, ...Slots.checks].filter(({ atStart }) => atStart === true)

/** What a stream knows as it starts. */
export interface Starting {
  readonly settings: ServerSettings
  readonly slot: ReplicationSlot
  readonly serverVersion: number
  readonly asked: Asked
}

const settingsOf = ({ limits, walSenderTimeout }: ServerSettings): Settings => {
  const setting = (value: number, unit: string) => ({ value: String(value), unit, isPending: false })
  return {
    wal_sender_timeout: setting(walSenderTimeout, "ms"),
    ...(limits === undefined
      ? {}
      : {
          max_slot_wal_keep_size: setting(limits.slotWalKeepSize, "MB"),
          max_wal_size: setting(limits.walSize, "MB"),
          idle_replication_slot_timeout: setting(limits.idleSlotTimeout, "s")
        })
  }
}

/** The slot as far as a stream knows it. */
const slotOf = (slot: ReplicationSlot): Slot => ({
  name: slot.name,
  isLogical: slot.type === "logical",
  plugin: slot.plugin ?? null,
  database: slot.database ?? null,
  isTemporary: slot.isTemporary,
  activePid: slot.activePid ?? null,
  application: null,
  user: null,
  walStatus: slot.walStatus ?? null,
  reason: slot.invalidationReason ?? null,
  safeBytes: null,
  retainedBytes: slot.retainedBytes === undefined ? null : Number(slot.retainedBytes),
  behindBytes: null,
  catalogAge: null,
  isTwoPhase: false,
  isFailover: false,
  isSynced: false,
  inactiveSeconds: null,
  totalBytes: null,
  spilledTransactions: null,
  spilledBytes: null
})

/** What is wrong, or will be, in one line each. */
export const warningsAtStart = ({ asked, serverVersion, ...starting }: Starting): ReadonlyArray<string> => {
  const known = new Map<Check.Fact<unknown>, unknown>([
    [settings, settingsOf(starting.settings)],
    [slots, [slotOf(starting.slot)]]
  ])
  const context = { asked, serverVersion, who: undefined, refusal: undefined, now: 0 }
  return checks
    .flatMap((check) => check.find(known, context))
    .filter(({ severity }) => severity === "error" || severity === "warning")
    .map(({ consequence, id, seen }) => logText(`${seen}: ${consequence} (${id}: replicant doctor has the cure)`))
}
