/** `--wal-directory DIR`: what is free where `pg_wal` is, for who runs on the server's own machine. No SQL tells. */
import { statfs } from "node:fs/promises"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { UsageError } from "./Report.ts"

export const flag = Flag.String("wal-directory").pipe(
  Flag.withMetavar("DIR"),
  Flag.withDescription("Where pg_wal is on this machine: forecasts when its disk is full"),
  Flag.optional
)

/** Bytes free where a directory of this machine is; not known once it cannot be told any more. */
const freeBytesAt = (directory: string): Effect.Effect<number | undefined> =>
  Effect.tryPromise(() => statfs(directory)).pipe(
    Effect.map(({ bavail, bsize }) => bavail * bsize),
    Effect.orElseSucceed(() => undefined)
  )

/** What asks that, of a directory that was there at first; `undefined` where none is named. */
export const freeBytes = Effect.fnUntraced(function* (
  directory: Option.Option<string>
): Effect.fn.Return<Effect.Effect<number | undefined> | undefined, UsageError> {
  if (Option.isNone(directory)) return undefined
  const ask = freeBytesAt(directory.value)
  if ((yield* ask) !== undefined) return ask
  return yield* new UsageError({
    message: `--wal-directory ${directory.value}: no such directory on this machine, or it cannot be looked at`,
    remedy: "name the directory pg_wal of the server where it runs on this machine, or leave the flag out"
  })
})
