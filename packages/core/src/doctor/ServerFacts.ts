/** Settings of the server that bear on us, and who streams from it, as a doctor asks for them. */
import * as Schema from "effect/Schema"
import * as Catalog from "../server/Catalog.ts"
import { jsonArray } from "../server/TablesSql.ts"
import * as Check from "./Check.ts"

/** A setting as the session sees it. */
const Setting = Schema.Struct({
  value: Schema.String,
  unit: Schema.NullOr(Schema.String),
  /** Changed in a file, and not in force before the server is started again. */
  isPending: Schema.Boolean
})

/** Those that bear on us. What is not there, the version does not know, or the role may not see. */
const names = [
  "wal_level",
  "effective_wal_level",
  "max_replication_slots",
  "max_wal_senders",
  "wal_sender_timeout",
  "max_slot_wal_keep_size",
  "max_wal_size",
  "idle_replication_slot_timeout",
  "synchronized_standby_slots",
  "logical_decoding_work_mem",
  "max_prepared_transactions",
  "max_worker_processes",
  "password_encryption",
  "output_plugin_libraries",
  "hot_standby_feedback",
  "sync_replication_slots",
  "primary_slot_name"
]

const readSettings: Check.Fact<Settings>["read"] = ({ session }) =>
  Check.ask(
    session,
    "pg_settings",
    Schema.Record(Schema.String, Setting),
    `coalesce((SELECT json_object_agg(name, json_build_object('value', setting, 'unit', unit, 'isPending', pending_restart))
      FROM pg_settings WHERE name IN (${names.map((name) => `'${name}'`).join(", ")})), '{}'::json)`
  )

export type Settings = { readonly [name: string]: typeof Setting.Type }

export const settings: Check.Fact<Settings> = {
  name: "settings",
  what: "the server's settings",
  server: "source",
  read: readSettings
}

/** The same of the standby. */
export const standbySettings: Check.Fact<Settings> = { ...settings, name: "standby-settings", server: "standby" }

const unitSizes: { readonly [unit: string]: number } = {
  B: 1,
  kB: 2 ** 10,
  "8kB": 2 ** 13,
  MB: 2 ** 20,
  GB: 2 ** 30,
  ms: 1,
  s: 1000,
  min: 60_000
}

/** A setting in bytes or milliseconds, or as the number that it is; `undefined` where it is not there. */
export const amount = (all: Settings, name: string): number | undefined => {
  const setting = all[name]
  if (setting === undefined) return undefined
  const value = Number(setting.value)
  // -1 is no amount but a word: off, or as something else.
  return value < 0 ? value : value * (unitSizes[setting.unit ?? ""] ?? 1)
}

/** A setting that is a list of names, as its elements; none where it is not there. */
export const elements = (all: Settings, name: string): ReadonlyArray<string> =>
  (all[name]?.value ?? "")
    .split(",")
    .map((element) => element.trim().replaceAll('"', ""))
    .filter((element) => element !== "")

const Senders = Schema.Array(
  Schema.Struct({
    pid: Schema.Number,
    user: Schema.NullOr(Schema.String),
    application: Schema.NullOr(Schema.String),
    /** Null where the role may not see it. */
    state: Schema.NullOr(Schema.String),
    isPhysical: Schema.Boolean,
    /** WAL that its receiver has not replayed, or confirmed. */
    behindBytes: Schema.NullOr(Schema.Number)
  })
)

/** Walsenders but our own. */
export const walSenders: Check.Fact<typeof Senders.Type> = {
  name: "walsenders",
  what: "who streams from the server",
  server: "source",
  read: ({ session }) =>
    Check.ask(
      session,
      "pg_stat_replication",
      Senders,
      jsonArray(
        `json_build_object('pid', r.pid, 'user', r.usename, 'application', r.application_name, 'state', r.state,
          'isPhysical', r.pid IS DISTINCT FROM s.active_pid OR s.slot_type = 'physical',
          'behindBytes', greatest(0, pg_wal_lsn_diff(${Catalog.walEnd}, r.replay_lsn)))`,
        `FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
          WHERE r.pid <> pg_backend_pid()`
      )
    )
}
