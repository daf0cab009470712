/** The disk that WAL is on: how fast it fills where a slot keeps what its consumer does not take. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Check from "./Check.ts"
import { bytes, duration, reloaded } from "./Remedies.ts"
import { amount, settings } from "./ServerFacts.ts"
import { isLost, slots } from "./SlotFacts.ts"

const Written = Schema.Struct({
  /** WAL written since statistics were reset, and how long ago that was. */
  bytes: Schema.Number,
  seconds: Schema.Number,
  /** Null where the role may not see it. */
  directory: Schema.NullOr(Schema.String)
})

const disk: Check.Fact<typeof Written.Type & { readonly free: number | undefined }> = {
  name: "disk",
  what: "how much WAL is written",
  server: "source",
  read: Effect.fnUntraced(function* ({
    asked,
    session
  }): Effect.fn.Return<typeof Written.Type & { readonly free: number | undefined }, ReplicationError> {
    const written = yield* Check.ask(
      session,
      "pg_stat_wal",
      Written,
      `(SELECT json_build_object('bytes', w.wal_bytes, 'seconds', extract(epoch FROM clock_timestamp() - w.stats_reset),
        'directory', (SELECT setting FROM pg_settings WHERE name = 'data_directory')) FROM pg_stat_wal w)`
    )
    const { directory } = written
    const free =
      directory === null || asked.freeDisk === undefined ? undefined : yield* asked.freeDisk(`${directory}/pg_wal`)
    return { ...written, free }
  })
}

const aDay = 86_400

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    {
      id: "disk.wal",
      about: "the disk is full before long, by WAL that slots keep",
      page: "docs/postgres-setup.md#slots-and-the-disk"
    },
    { disk, settings, slots },
    ({ disk, settings, slots }, { asked: { thresholds } }) => {
      if (amount(settings, "max_slot_wal_keep_size") !== -1) return []
      const keeping = slots
        .filter((slot) => !isLost(slot))
        .toSorted((left, right) => (right.retainedBytes ?? 0) - (left.retainedBytes ?? 0))
      const [worst] = keeping
      if (worst === undefined || disk.seconds <= 0) return []
      // A slot that is kept up with fills no disk, however much is written.
      const kept = worst.retainedBytes ?? 0
      if (kept < Math.min(thresholds.behindBytes, (disk.free ?? Number.POSITIVE_INFINITY) / 10)) return []
      const rate = disk.bytes / disk.seconds
      const perDay = `${bytes(rate * aDay)} of WAL a day are written`
      const consequence = "a full disk stops the server, and nothing can be written before there is room"
      const cure = {
        ...reloaded("max_slot_wal_keep_size", `${Math.max(1, Math.floor((disk.free ?? kept) / 2 ** 21))}MB`),
        advice: "or let its consumer catch up, drop a slot that nobody needs, or give WAL a larger disk"
      }
      if (disk.free !== undefined) {
        const left = disk.free / rate
        if (left * 1000 >= thresholds.diskFull) return []
        return [
          {
            severity: left < 3600 ? "error" : "warning",
            subject: worst.name,
            seen: `${bytes(disk.free)} are free, ${perDay}, and slot ${worst.name} keeps ${bytes(kept)} without limit: full in ${duration(left)} if its consumer stays away`,
            consequence,
            cure
          }
        ]
      }
      // Nobody can see another machine's disk: what is told is what the slot takes of it.
      return [
        {
          severity: "warning",
          subject: worst.name,
          seen: `slot ${worst.name} keeps ${bytes(kept)} of WAL without limit, and ${perDay}; how much of the disk is free cannot be seen from here`,
          consequence,
          cure
        }
      ]
    }
  )
]
