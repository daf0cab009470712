/** The server itself: its version, its settings, and what is left of what it has room for. */
import * as Check from "./Check.ts"
import { neededConnections } from "./Plan.ts"
import { reloaded, restarted } from "./Remedies.ts"
import { amount, elements, settings, walSenders } from "./ServerFacts.ts"
import { slots } from "./SlotFacts.ts"

const page = "docs/postgres-setup.md#settings"

/** The last day on which a version is mended. Source: https://www.postgresql.org/support/versioning/ */
const endOfLife: { readonly [major: number]: string } = {
  13: "2025-11-13",
  14: "2026-11-12",
  15: "2027-11-11",
  16: "2028-11-09",
  17: "2029-11-08",
  18: "2030-11-14"
}

const halfYear = 183 * 86_400_000

/** What a plan takes beside what is in use. */
const neededSlots = ({ asked }: Check.Context, isThere: boolean): number =>
  asked.slot === undefined || isThere ? 0 : asked.snapshot === true ? 2 : 1

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    { id: "server.version", about: "the version is mended no more, or soon", page: "docs/versions.md" },
    {},
    (_, { now, serverVersion }) => {
      const major = Math.floor(serverVersion / 10_000)
      const last = endOfLife[major]
      if (serverVersion === 0) return []
      const oldest = Math.min(...Object.keys(endOfLife).map(Number))
      const left = last === undefined ? (major < oldest ? -1 : Number.POSITIVE_INFINITY) : Date.parse(last) - now
      if (left > halfYear) return []
      return [
        {
          severity: left < 0 ? "warning" : "note",
          subject: `PostgreSQL ${major}`,
          seen: `PostgreSQL ${major} ${left < 0 ? "has been" : "is"} mended until ${last ?? "long ago"}`,
          consequence: "what is found wrong with it afterwards, also in logical decoding, stays",
          cure: { advice: "upgrade to a later major version: slots do not come along before PostgreSQL 17" }
        }
      ]
    }
  ),
  Check.make(
    { id: "server.wal-level", about: "`wal_level`, or `effective_wal_level`, is below `logical`", page },
    { settings },
    ({ settings }, { serverVersion }) => {
      const level = settings.wal_level?.value
      // From PostgreSQL 19 the first logical slot itself raises the effective level from `replica`.
      if (level === undefined || level === "logical" || (serverVersion >= 190_000 && level === "replica")) return []
      return [
        {
          severity: "error",
          subject: "wal_level",
          seen: `wal_level is ${level}`,
          consequence: "no logical slot can be made, and a stream fails with LogicalDecodingDisabled",
          cure: restarted("wal_level", "logical")
        }
      ]
    }
  ),
  Check.make(
    { id: "server.restart-pending", about: "a setting for replication waits for a restart", page },
    { settings },
    ({ settings }) =>
      Object.entries(settings)
        .filter(([, { isPending }]) => isPending)
        .map(([name, { value }]) => ({
          severity: "warning",
          subject: name,
          seen: `${name} was changed in the configuration, and is ${value || "empty"} until the server is started again`,
          consequence: "the next restart, planned or not, changes what the server has room for",
          cure: { advice: "restart the server, or take the change back: ALTER SYSTEM RESET, and reload" }
        }))
  ),
  Check.make(
    { id: "server.slots-left", about: "`max_replication_slots` leaves no room for the slot", page },
    { settings, slots },
    ({ settings, slots }, context) => {
      const most = amount(settings, "max_replication_slots")
      const needed = neededSlots(
        context,
        slots.some(({ name }) => name === context.asked.slot)
      )
      if (most === undefined || slots.length + needed <= most) return []
      return [
        {
          severity: "error",
          subject: "max_replication_slots",
          seen: `${slots.length} of ${most} replication slots are taken, and ${needed} more needed`,
          consequence: "making the slot fails (53400)",
          cure: restarted("max_replication_slots", String(slots.length + needed + 4))
        }
      ]
    }
  ),
  Check.make(
    { id: "server.walsenders-left", about: "`max_wal_senders` leaves no room for the stream and its questions", page },
    { settings, walSenders, slots },
    ({ settings, slots, walSenders }, context) => {
      const most = amount(settings, "max_wal_senders")
      // A stream that runs already has its place: only the connection that asks about it is to come.
      const isStreaming = slots.some(({ activePid, name }) => name === context.asked.slot && activePid !== null)
      const needed = neededConnections(context.asked) - (isStreaming && context.asked.snapshot !== true ? 1 : 0)
      if (most === undefined || walSenders.length + needed <= most) return []
      return [
        {
          severity: walSenders.length < most ? "warning" : "error",
          subject: "max_wal_senders",
          seen: `${walSenders.length} of ${most} walsenders are taken, and ${needed} more needed`,
          consequence:
            "a stream does not start (53300), a first copy has fewer connections than it asks for, or nobody can be asked whether a silent walsender is at work",
          cure: restarted("max_wal_senders", String(walSenders.length + needed + 4))
        }
      ]
    }
  ),
  Check.make(
    { id: "server.wal-sender-timeout-off", atStart: true, about: "`wal_sender_timeout` is 0", page },
    { settings },
    ({ settings }) =>
      amount(settings, "wal_sender_timeout") === 0
        ? [
            {
              severity: "warning",
              subject: "wal_sender_timeout",
              seen: "wal_sender_timeout is 0: the server never gives a silent client up",
              consequence: "after a network failure the slot stays in use by a connection that is dead, for hours",
              cure: reloaded("wal_sender_timeout", "60s")
            }
          ]
        : []
  ),
  Check.make(
    {
      id: "server.status-interval",
      atStart: true,
      about: "our own `timing.statusInterval` does not fit `wal_sender_timeout`",
      page
    },
    { settings },
    ({ settings }, { asked: { statusInterval } }) => {
      const timeout = amount(settings, "wal_sender_timeout") ?? 0
      if (timeout === 0 || statusInterval === undefined || statusInterval < timeout / 2) return []
      return [
        {
          severity: "error",
          subject: "wal_sender_timeout",
          seen: `wal_sender_timeout is ${timeout} ms, and timing.statusInterval ${statusInterval} ms`,
          consequence: "the server may end the stream between two status updates, again and again",
          cure: { advice: `leave timing.statusInterval out, or set it to ${Math.floor(timeout / 3)} ms` }
        }
      ]
    }
  ),
  Check.make(
    { id: "server.wal-sender-timeout-short", about: "`wal_sender_timeout` is short", page },
    { settings },
    ({ settings }) => {
      const timeout = amount(settings, "wal_sender_timeout") ?? 0
      if (timeout === 0 || timeout >= 10_000) return []
      return [
        {
          severity: "warning",
          subject: "wal_sender_timeout",
          seen: `wal_sender_timeout is ${timeout} ms`,
          consequence: "a program that stands still for that long, in a garbage collection or a debugger, is dropped",
          cure: reloaded("wal_sender_timeout", "60s")
        }
      ]
    }
  ),
  Check.make(
    {
      id: "server.slot-limit-off",
      about: "`max_slot_wal_keep_size` is unlimited",
      page: "docs/postgres-setup.md#slots-and-the-disk"
    },
    { settings },
    ({ settings }) =>
      amount(settings, "max_slot_wal_keep_size") === -1
        ? [
            {
              severity: "note",
              subject: "max_slot_wal_keep_size",
              seen: "max_slot_wal_keep_size is -1: a slot keeps WAL without limit",
              consequence: "a consumer that stays away fills the disk, and a full disk stops the server",
              cure: reloaded("max_slot_wal_keep_size", "100GB")
            }
          ]
        : []
  ),
  Check.make(
    {
      id: "server.slot-limit-low",
      atStart: true,
      about: "`max_slot_wal_keep_size` is below `max_wal_size`",
      page: "docs/postgres-setup.md#slots-and-the-disk"
    },
    { settings },
    ({ settings }) => {
      const limit = amount(settings, "max_slot_wal_keep_size") ?? -1
      const size = amount(settings, "max_wal_size") ?? 0
      if (limit < 0 || limit >= size) return []
      return [
        {
          severity: "warning",
          subject: "max_slot_wal_keep_size",
          seen: `max_slot_wal_keep_size is ${limit / 2 ** 20} MB, less than max_wal_size of ${size / 2 ** 20} MB`,
          consequence: "a burst of writes between two checkpoints is enough to lose the slot, and with it changes",
          cure: reloaded("max_slot_wal_keep_size", `${(4 * size) / 2 ** 20}MB`)
        }
      ]
    }
  ),
  Check.make(
    {
      id: "server.idle-slot-timeout",
      atStart: true,
      about: "`idle_replication_slot_timeout` gives up slots of consumers that are away (PostgreSQL 18)",
      page
    },
    { settings },
    ({ settings }) => {
      const timeout = amount(settings, "idle_replication_slot_timeout") ?? 0
      if (timeout === 0 || timeout >= 86_400_000) return []
      return [
        {
          severity: "warning",
          subject: "idle_replication_slot_timeout",
          seen: `idle_replication_slot_timeout is ${timeout / 60_000} minutes`,
          consequence: "a consumer that is away for longer finds its slot given up, and what was committed since lost",
          cure: reloaded("idle_replication_slot_timeout", "3d")
        }
      ]
    }
  ),
  Check.make(
    {
      id: "server.encoding",
      about: "the database's encoding checks no text, or is not what wal2json takes",
      page: "docs/postgres-setup.md#settings-of-the-role-and-the-database"
    },
    {},
    (_, { asked, who }) => {
      if (who === undefined || who.encoding === "UTF8") return []
      const isWal2Json = asked.plugin === "wal2json"
      if (who.encoding !== "SQL_ASCII" && !isWal2Json) return []
      return [
        {
          severity: isWal2Json ? "error" : "warning",
          subject: who.database,
          seen: `the database's encoding is ${who.encoding}`,
          consequence: isWal2Json
            ? "wal2json writes text that is no JSON"
            : "text in it may be of any bytes: the first that are no UTF-8 end the stream (22021)",
          cure: { advice: "move to a database of encoding UTF8, or leave such columns out of the publication" }
        }
      ]
    }
  ),
  Check.make(
    {
      id: "server.plugin-libraries",
      about: "the output plugin is not among those that the server loads",
      page: "docs/postgres-setup.md#wal2json"
    },
    { settings },
    ({ settings }, { asked: { plugin } }) => {
      if (plugin === "pgoutput" || plugin === "test_decoding") return []
      const listed = elements(settings, "output_plugin_libraries")
      if (settings.output_plugin_libraries === undefined || listed.includes(plugin)) return []
      return [
        {
          severity: "error",
          subject: "output_plugin_libraries",
          seen: `output_plugin_libraries does not list ${plugin}`,
          consequence: "making a slot with it, and streaming from one, is refused (42501)",
          cure: reloaded("output_plugin_libraries", [...listed, plugin])
        }
      ]
    }
  )
]
