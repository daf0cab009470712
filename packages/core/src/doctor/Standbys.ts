/** Standbys: those that the source waits for, the one that is to take over, and the source itself where it is one. */
import * as Schema from "effect/Schema"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import * as Check from "./Check.ts"
import { bytes, duration, reloaded, restarted } from "./Remedies.ts"
import { amount, elements, settings, standbySettings, walSenders } from "./ServerFacts.ts"
import { isLost, slots, standbySlots, wanted } from "./SlotFacts.ts"

const page = "docs/postgres-setup.md#failover"

const Standing = Schema.Struct({
  isInRecovery: Schema.Boolean,
  systemId: Schema.String,
  /** Seconds since the commit of the last transaction that was replayed; null where none was. */
  replayedSeconds: Schema.NullOr(Schema.Number),
  /** Bytes of WAL that it has received and not replayed; null where it receives none. */
  behindBytes: Schema.NullOr(Schema.Number),
  isReceiving: Schema.Boolean,
  isPaused: Schema.Boolean
})

const source: Check.Fact<typeof Standing.Type> = {
  name: "recovery",
  what: "whether the server is a standby, and of which cluster",
  server: "source",
  read: ({ session }) =>
    Check.ask(
      session,
      "pg_stat_wal_receiver",
      Standing,
      `json_build_object('isInRecovery', pg_is_in_recovery(),
        'systemId', (SELECT system_identifier::text FROM pg_control_system()),
        'replayedSeconds', extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()),
        'behindBytes', greatest(0, pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())),
        'isReceiving', EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),
        'isPaused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END)`
    )
}

const standby: Check.Fact<typeof Standing.Type> = { ...source, name: "standby-recovery", server: "standby" }

/** Looked for where a standby is named: each needs a fact of it. */
const atStandby = { page, server: "standby" } as const

/** What a standby must have as much of as its primary, or a promotion leaves slots and streams without room. */
const sizes = ["max_replication_slots", "max_wal_senders"]

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    {
      id: "standby.source",
      about: "the server that is followed is a standby, which cannot decode, or not for long",
      page
    },
    { settings, source },
    ({ settings, source }, { serverVersion }) => {
      if (!source.isInRecovery) return []
      if (serverVersion < 160_000) {
        return [
          {
            severity: "error",
            seen: "the server is a standby, of a version that decodes on primaries alone",
            consequence: "no logical slot can be made there, and none streamed from",
            cure: { advice: "connect to the primary, or wait for its promotion: target_session_attrs=primary" }
          }
        ]
      }
      const feedback = settings.hot_standby_feedback?.value === "on"
      return [
        {
          severity: feedback ? "note" : "warning",
          seen: `the server is a standby${feedback ? "" : ", and hot_standby_feedback is off"}`,
          consequence: feedback
            ? "its slots are lost if the primary's wal_level falls below logical, and making one waits for the primary to be at work"
            : "the primary vacuums catalog rows that its slots need, and they are lost (rows_removed)",
          cure: feedback ? { advice: "nothing, if that is meant" } : reloaded("hot_standby_feedback", "on")
        }
      ]
    }
  ),
  Check.make(
    {
      id: "standby.synchronized-slots",
      about: "`synchronized_standby_slots` names slots that are not there, or that nobody uses (PostgreSQL 17)",
      page
    },
    { settings, slots },
    ({ settings, slots }, context) => {
      const named = elements(settings, "synchronized_standby_slots").filter((name) => name !== "*")
      const isWaiting = slots.some(({ isFailover, isLogical }) => isLogical && isFailover)
      const without = named.flatMap((name) => {
        const slot = slots.find((each) => each.name === name)
        if (slot === undefined) return [{ name, problem: "is not there" }]
        if (slot.isLogical) return [{ name, problem: "is a logical slot" }]
        if (isLost(slot)) return [{ name, problem: "is lost" }]
        return slot.activePid === null ? [{ name, problem: "is used by no standby" }] : []
      })
      return without.map(({ name, problem }) => ({
        severity: isWaiting && context.who?.isInRecovery !== true ? "error" : "warning",
        subject: name,
        seen: `synchronized_standby_slots names ${name}, which ${problem}`,
        consequence: "every failover slot waits for that standby, and its streams stand still: Stalled",
        cure: {
          ...reloaded(
            "synchronized_standby_slots",
            named.filter((each) => each !== name)
          ),
          advice:
            "or start the standby that uses it; a promoted server has the setting of its primary, and not its slots"
        }
      }))
    }
  ),
  Check.make(
    { id: "standby.lag-at-source", about: "a standby is far behind the server", page },
    { walSenders },
    ({ walSenders }, { asked: { thresholds } }) =>
      walSenders
        .filter(({ behindBytes, isPhysical }) => isPhysical && (behindBytes ?? 0) >= thresholds.behindBytes)
        .map(({ application, behindBytes, pid }) => ({
          severity: "warning",
          subject: application ?? `pid ${pid}`,
          seen: `standby ${application ?? `of pid ${pid}`} is ${bytes(behindBytes ?? 0)} behind`,
          consequence: "promoted now, it lacks what streams have delivered already; failover slots wait for it",
          cure: { advice: "look at its log, its disk and its network" }
        }))
  ),
  Check.make(
    { id: "slot.failover", about: "the slot is not kept on standbys, and there are some (PostgreSQL 17)", page },
    { slots, walSenders },
    ({ slots, walSenders }, context) => {
      if (context.serverVersion < 170_000 || context.asked.slot === undefined) return []
      const hasStandby =
        context.asked.standby !== undefined ||
        walSenders.some(({ isPhysical }) => isPhysical) ||
        slots.some(({ isLogical, isTemporary }) => !isLogical && !isTemporary)
      return wanted(slots, context)
        .filter((slot) => hasStandby && slot.isLogical && !slot.isFailover && !slot.isTemporary)
        .map((slot) => ({
          severity: "note",
          subject: slot.name,
          seen: `slot ${slot.name} is no failover slot, and the server has a standby`,
          consequence:
            "a promoted standby does not have it: the stream ends with SlotNotFound, and the tables are copied anew",
          cure: { advice: "failover: true, or --failover: the next start of the stream makes it so" }
        }))
    }
  ),
  Check.make(
    {
      id: "slot.synced",
      about: "the slot is a standby's copy of its primary's, of no use before a promotion (PostgreSQL 17)",
      page
    },
    { slots },
    ({ slots }, context) =>
      context.asked.slot === undefined || context.who?.isInRecovery !== true
        ? []
        : wanted(slots, context)
            .filter(({ isSynced }) => isSynced)
            .map((slot) => ({
              severity: "error",
              subject: slot.name,
              seen: `slot ${slot.name} is kept in step with the primary's`,
              consequence: "a stream is refused (55000) until this server is promoted",
              cure: { advice: "connect to the primary: target_session_attrs=primary" }
            }))
  ),
  Check.make(
    { id: "standby.promoted", about: "the standby is none: it was promoted, or never was one", ...atStandby },
    { standby },
    ({ standby }) =>
      standby.isInRecovery
        ? []
        : [
            {
              severity: "error",
              seen: "the standby is not in recovery: it is a primary",
              consequence: "it goes its own way, and takes over for nobody",
              cure: { advice: "connect to the standby; or follow this one, if it was promoted" }
            }
          ]
  ),
  Check.make(
    { id: "standby.stranger", about: "the standby is of another cluster", ...atStandby },
    { source, standby },
    ({ source, standby }) =>
      source.systemId === standby.systemId
        ? []
        : [
            {
              severity: "error",
              seen: `the standby has system identifier ${standby.systemId}, the source ${source.systemId}`,
              consequence: "it can never take over: a stream refuses it with SystemMismatch",
              cure: { advice: "make it from a base backup of the source" }
            }
          ]
  ),
  Check.make(
    { id: "standby.feedback", about: "`hot_standby_feedback` is off at the standby", ...atStandby },
    { standby, standbySettings },
    ({ standby, standbySettings }) =>
      standby.isInRecovery && standbySettings.hot_standby_feedback?.value === "off"
        ? [
            {
              severity: "warning",
              subject: "hot_standby_feedback",
              seen: "hot_standby_feedback is off",
              consequence:
                "slots are not kept in step there, and logical slots of its own are lost to the primary's vacuum",
              cure: reloaded("hot_standby_feedback", "on")
            }
          ]
        : []
  ),
  Check.make(
    { id: "standby.lag", about: "the standby is behind, paused, or receives nothing", ...atStandby },
    { standby },
    ({ standby }, { asked: { thresholds } }) => {
      if (!standby.isInRecovery) return []
      const far = (standby.behindBytes ?? 0) >= thresholds.behindBytes
      if (standby.isReceiving && !standby.isPaused && !far) return []
      const since =
        standby.replayedSeconds === null ? "" : `; its last transaction is of ${duration(standby.replayedSeconds)} ago`
      return [
        {
          severity: "warning",
          seen: standby.isPaused
            ? `replay is paused${since}`
            : standby.isReceiving
              ? `${bytes(standby.behindBytes ?? 0)} are received and not replayed${since}`
              : `it receives nothing from its primary${since}`,
          consequence: "promoted now, it lacks what streams have delivered already",
          cure: standby.isPaused
            ? { sql: ["SELECT pg_wal_replay_resume()"], right: "a superuser, or EXECUTE on that function" }
            : { advice: "look at its log, at primary_conninfo and primary_slot_name, and at its primary's pg_hba.conf" }
        }
      ]
    }
  ),
  Check.make(
    { id: "standby.slot-sync", about: "the standby does not keep slots in step (PostgreSQL 17)", ...atStandby },
    { standby, standbySettings },
    ({ standby, standbySettings }, { serverVersion }) => {
      if (!standby.isInRecovery || serverVersion < 170_000) return []
      const consequence = "no slot of the primary's is there after a promotion: streams end with SlotNotFound"
      return [
        ...(standbySettings.sync_replication_slots?.value === "off"
          ? [
              {
                severity: "warning" as const,
                subject: "sync_replication_slots",
                seen: "sync_replication_slots is off",
                consequence,
                cure: reloaded("sync_replication_slots", "on")
              }
            ]
          : []),
        ...(standbySettings.primary_slot_name?.value === ""
          ? [
              {
                severity: "warning" as const,
                subject: "primary_slot_name",
                seen: "primary_slot_name is empty",
                consequence,
                cure: {
                  advice:
                    "make a physical slot at the primary, and name it there: ALTER SYSTEM SET primary_slot_name, and reload"
                }
              }
            ]
          : [])
      ]
    }
  ),
  Check.make(
    { id: "standby.slot", about: "the slot is not there at the standby, or not in step", ...atStandby },
    { standby, standbySlots },
    ({ standby, standbySlots }, { asked, serverVersion }) => {
      if (asked.slot === undefined || !standby.isInRecovery) return []
      const found = standbySlots.find(({ name }) => name === asked.slot)
      if (found?.isSynced && !found.isTemporary && !isLost(found)) return []
      const state =
        found === undefined
          ? "is not there"
          : isLost(found)
            ? "is lost"
            : found.isSynced
              ? "is not in step yet"
              : "is one of its own"
      return [
        {
          severity: serverVersion < 170_000 ? "note" : "warning",
          subject: asked.slot,
          seen: `slot ${asked.slot} ${state} at the standby`,
          consequence: "promoted now, the standby has no such slot: the stream ends with SlotNotFound",
          cure:
            serverVersion < 170_000
              ? { advice: "PostgreSQL 17 keeps slots on standbys; before, the tables are copied anew after a failover" }
              : {
                  sql: found === undefined ? ["SELECT pg_sync_replication_slots()"] : [],
                  advice: `failover: true for the stream, and sync_replication_slots at the standby${
                    found !== undefined && !found.isSynced
                      ? `; drop the one that stands in the way: SELECT pg_drop_replication_slot(${quoteLiteral(asked.slot)})`
                      : ""
                  }`,
                  right: "REPLICATION, or a superuser"
                }
        }
      ]
    }
  ),
  Check.make(
    { id: "standby.room", about: "the standby has less room for slots and streams than its primary", ...atStandby },
    { settings, standbySettings },
    ({ settings, standbySettings }) => {
      const sizeOf = (of: typeof settings, name: string) => amount(of, name) ?? 0
      return sizes
        .filter((name) => sizeOf(standbySettings, name) < sizeOf(settings, name))
        .map((name) => ({
          severity: "warning",
          subject: name,
          seen: `${name} is ${sizeOf(standbySettings, name)} at the standby, and ${sizeOf(settings, name)} at its primary`,
          consequence:
            "after a promotion there may be no room for what runs now; with too few walsenders it does not even start",
          cure: restarted(name, String(sizeOf(settings, name)))
        }))
    }
  )
]
