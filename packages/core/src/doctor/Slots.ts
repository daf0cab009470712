/** The slot, or all of the database's: whether it is there, is ours, is free, and how long it will be. */
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import * as Check from "./Check.ts"
import { bytes, duration, plural, reloaded } from "./Remedies.ts"
import { amount, settings } from "./ServerFacts.ts"
import { isLost, type Slot, slots, wanted } from "./SlotFacts.ts"

const page = "docs/postgres-setup.md#slots-and-the-disk"

const replicationRight = "REPLICATION, or a superuser"

const drop = (slot: Slot) => `SELECT pg_drop_replication_slot(${quoteLiteral(slot.name)})`

/** A check of each slot that is looked at. */
const ofEach = (
  description: Parameters<typeof Check.make>[0],
  find: (slot: Slot, context: Check.Context) => Omit<Check.Seen, "subject"> | undefined
): Check.Check =>
  Check.make(description, { slots }, (known, context) =>
    wanted(known.slots, context).flatMap((slot) => {
      const seen = find(slot, context)
      return seen === undefined ? [] : [{ ...seen, subject: slot.name }]
    })
  )

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    { id: "slot.missing", about: "the slot is not there, and nobody makes it", page },
    { slots },
    ({ slots }, { asked, who }) => {
      const { createSlot, plugin, slot, snapshot } = asked
      if (slot === undefined || createSlot === true || snapshot === true) return []
      if (slots.some(({ name }) => name === slot)) return []
      return [
        {
          severity: "error",
          subject: slot,
          seen: `there is no slot ${slot}`,
          consequence: "a stream fails with SlotNotFound: what was committed since it was there is lost to it",
          cure: {
            sql: [`SELECT pg_create_logical_replication_slot(${quoteLiteral(slot)}, ${quoteLiteral(plugin)})`],
            advice: `in database ${who?.database}; a slot holds what is committed from then on, and what is there already comes by a snapshot`,
            right: replicationRight
          }
        }
      ]
    }
  ),
  ofEach({ id: "slot.type", about: "the slot is a physical one", page }, (slot) =>
    slot.isLogical
      ? undefined
      : {
          severity: "error",
          seen: `slot ${slot.name} is physical`,
          consequence: "a stream fails with SlotMismatch: it is a standby's, or a backup's",
          cure: { advice: "choose another slot" }
        }
  ),
  ofEach({ id: "slot.database", about: "the slot is another database's", page }, (slot, { who }) =>
    !slot.isLogical || slot.database === who?.database
      ? undefined
      : {
          severity: "error",
          seen: `slot ${slot.name} is of database ${slot.database}, and we are connected to ${who?.database}`,
          consequence: "a stream fails with SlotMismatch: names of slots are the whole cluster's",
          cure: { advice: "choose another slot, or connect to its database" }
        }
  ),
  ofEach({ id: "slot.plugin", about: "the slot is another output plugin's", page }, (slot, { asked }) =>
    !slot.isLogical || asked.slot === undefined || slot.plugin === asked.plugin
      ? undefined
      : {
          severity: "error",
          seen: `slot ${slot.name} is of plugin ${slot.plugin}, and ${asked.plugin} is asked for`,
          consequence: "a stream fails with SlotMismatch: a slot's plugin is for life",
          cure: { advice: "choose another slot, or the other plugin" }
        }
  ),
  ofEach({ id: "slot.lost", about: "the server has given the slot up", page }, (slot) =>
    isLost(slot)
      ? {
          severity: "error",
          seen: `slot ${slot.name} is lost${slot.reason === null ? "" : ` (${slot.reason})`}`,
          consequence: "a stream fails with SlotInvalidated: WAL that its consumer has not seen is gone",
          cure: {
            sql: [drop(slot)],
            advice: "then copy the tables anew, with a new slot; or let the stream do so: slotPolicy.invalidated",
            right: replicationRight,
            risk: "the slot's position, which tells how much is lost, is gone with it"
          }
        }
      : undefined
  ),
  ofEach({ id: "slot.near-loss", atStart: true, about: "the slot is near to being given up", page }, (slot) => {
    if (isLost(slot) || slot.walStatus === null) return undefined
    const isNear = slot.safeBytes !== null && slot.retainedBytes !== null && slot.safeBytes < slot.retainedBytes / 4
    if (slot.walStatus !== "unreserved" && !isNear) return undefined
    const left = Math.max(0, slot.safeBytes ?? 0)
    return {
      severity: slot.walStatus === "unreserved" ? "error" : "warning",
      seen: `slot ${slot.name} keeps ${bytes(slot.retainedBytes ?? 0)} of WAL, and after ${bytes(left)} more it is given up`,
      consequence: "at one of the next checkpoints the slot is lost, and with it what its consumer has not confirmed",
      cure: {
        ...reloaded("max_slot_wal_keep_size", `${Math.ceil((4 * (slot.retainedBytes ?? 0)) / 2 ** 20)}MB`),
        advice: "and let its consumer catch up"
      }
    }
  }),
  ofEach({ id: "slot.active", about: "somebody streams from the slot already, and who", page }, (slot, { asked }) =>
    slot.activePid === null || asked.slot === undefined
      ? undefined
      : {
          severity: "note",
          seen: `slot ${slot.name} is in use by pid ${slot.activePid}${slot.user === null ? "" : `, role ${slot.user}`}${
            slot.application ? `, application ${slot.application}` : ""
          }`,
          consequence: "another stream waits for it, and fails with SlotInUse in the end: a slot has one consumer",
          cure: {
            sql: [`SELECT pg_terminate_backend(${slot.activePid})`],
            advice: "nothing, if this is your stream",
            right: "membership in that role, or pg_signal_backend",
            risk: "it ends that stream"
          }
        }
  ),
  ofEach(
    { id: "slot.behind", about: "the slot keeps much WAL: its consumer is behind, or away", page },
    (slot, { asked }) =>
      isLost(slot) || (slot.retainedBytes ?? 0) < asked.thresholds.behindBytes
        ? undefined
        : {
            severity: "warning",
            seen: `slot ${slot.name} keeps ${bytes(slot.retainedBytes ?? 0)} of WAL; its consumer ${
              slot.activePid === null
                ? `is away${slot.inactiveSeconds === null ? "" : ` since ${duration(slot.inactiveSeconds)}`}`
                : `is ${bytes(slot.behindBytes ?? 0)} behind`
            }`,
            consequence: "the disk fills, the catalog bloats, and a restart of the stream begins that far back",
            cure: {
              sql: slot.activePid === null ? [drop(slot)] : [],
              advice: "let its consumer catch up; drop the slot if nobody will ever come for it",
              ...(slot.activePid === null && { right: replicationRight, risk: "what it keeps is lost to its consumer" })
            }
          }
  ),
  Check.make(
    { id: "slot.others-behind", about: "other slots that nobody streams from keep much WAL", page },
    { slots },
    ({ slots }, context) => {
      const ours = new Set(wanted(slots, context))
      return slots
        .filter(
          (slot) =>
            !ours.has(slot) &&
            slot.activePid === null &&
            !isLost(slot) &&
            (slot.retainedBytes ?? 0) >= context.asked.thresholds.behindBytes
        )
        .map((slot) => ({
          severity: "warning",
          subject: slot.name,
          seen: `slot ${slot.name}${slot.database === null ? "" : ` of database ${slot.database}`} keeps ${bytes(slot.retainedBytes ?? 0)} of WAL, and nobody streams from it`,
          consequence: "the disk is one for all slots: when it is full the server stops",
          cure: { sql: [drop(slot)], right: replicationRight, risk: "what it keeps is lost to its consumer" }
        }))
    }
  ),
  ofEach(
    { id: "slot.catalog-xmin", about: "the slot holds back the vacuum of the catalog", page },
    (slot, { asked }) =>
      (slot.catalogAge ?? 0) < asked.thresholds.oldXids
        ? undefined
        : {
            severity: "warning",
            seen: `slot ${slot.name} keeps catalog rows since ${plural(slot.catalogAge ?? 0, "transaction")} ago`,
            consequence: "catalogs bloat, and in the end the server refuses writes for fear of wraparound",
            cure: { advice: "let its consumer catch up and confirm; drop the slot if nobody will ever come for it" }
          }
  ),
  ofEach({ id: "slot.temporary", about: "the slot goes with the connection that made it", page }, (slot, { asked }) =>
    !slot.isTemporary || asked.slot === undefined
      ? undefined
      : {
          severity: "warning",
          seen: `slot ${slot.name} is temporary, of pid ${slot.activePid}`,
          consequence: "it is dropped when that connection ends, and what was committed since is in no slot",
          cure: { advice: 'stream with createSlot: "permanent" under another name' }
        }
  ),
  ofEach(
    {
      id: "slot.two-phase",
      about: "the slot tells of prepared transactions, and that is not asked for",
      page: "docs/postgres-setup.md#slots-and-the-disk"
    },
    (slot, { asked, serverVersion }) =>
      !slot.isTwoPhase || asked.slot === undefined || asked.twoPhase === true
        ? undefined
        : {
            severity: "warning",
            seen: `slot ${slot.name} has two_phase on`,
            consequence: "a stream that does not ask for twoPhase is refused, or told of transactions it cannot place",
            cure: {
              advice: `ask for it: Pgoutput.make({ twoPhase: true }), --two-phase${
                serverVersion >= 180_000 ? "; or take it from the slot by ALTER_REPLICATION_SLOT" : ""
              }`
            }
          }
  ),
  Check.make(
    {
      id: "slot.idle-timeout",
      about: "nobody streams from the slot, and `idle_replication_slot_timeout` is near (PostgreSQL 18)",
      page
    },
    { settings, slots },
    ({ settings, slots }, context) => {
      const timeout = amount(settings, "idle_replication_slot_timeout") ?? 0
      if (timeout === 0) return []
      return wanted(slots, context)
        .filter((slot) => !isLost(slot) && (slot.inactiveSeconds ?? 0) * 2000 > timeout)
        .map((slot) => ({
          severity: "error",
          subject: slot.name,
          seen: `nobody has streamed from slot ${slot.name} for ${duration(slot.inactiveSeconds ?? 0)}, and idle_replication_slot_timeout is ${duration(timeout / 1000)}`,
          consequence: "a checkpoint after that gives the slot up, and what was committed since is lost",
          cure: { ...reloaded("idle_replication_slot_timeout", "0"), advice: "or start its consumer" }
        }))
    }
  ),
  Check.make(
    {
      id: "slot.spills",
      about: "much of what is decoded goes through files: `logical_decoding_work_mem` is small",
      page: "docs/performance.md"
    },
    { settings, slots },
    ({ settings, slots }, context) => {
      const memory = amount(settings, "logical_decoding_work_mem") ?? 0
      return wanted(slots, context)
        .filter(
          ({ spilledBytes, totalBytes }) => (spilledBytes ?? 0) > 0 && (spilledBytes ?? 0) * 4 > (totalBytes ?? 0)
        )
        .map(({ name, spilledBytes, spilledTransactions, totalBytes }) => ({
          severity: "note",
          subject: name,
          seen: `of ${bytes(totalBytes ?? 0)} that slot ${name} had decoded, ${bytes(spilledBytes ?? 0)} of ${plural(spilledTransactions ?? 0, "transaction")} went through files; logical_decoding_work_mem is ${bytes(memory)}`,
          consequence: "the server writes and reads each large transaction once more before it is sent",
          cure: {
            ...reloaded("logical_decoding_work_mem", `${(4 * memory) / 2 ** 20}MB`),
            advice: 'or stream them as they come: Pgoutput.make({ streaming: "on" })'
          }
        }))
    }
  )
]
