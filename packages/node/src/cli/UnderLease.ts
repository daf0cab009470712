/** What a command does that follows a slot for long: it listens for `--listen`, and with `--lease` it is one of several. */
import { type ReplicationError, SlotLease } from "@replicant/core"
import type { WalSender } from "@replicant/core/driver"
import { type Doctor, Operations } from "@replicant/core/operations"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Listen from "./Listen.ts"
import { type ListenFailed, UsageError } from "./Report.ts"
import * as WalDirectory from "./WalDirectory.ts"

export interface Following {
  readonly stream: Operations.Watched
  /** What a doctor is asked about. */
  readonly plan: Doctor.Plan
  readonly flags: {
    readonly lease: boolean
    readonly listen: Option.Option<Listen.Address>
    readonly walDirectory: Option.Option<string>
  }
}

/** Follows, while the slot's lease is held where `--lease` says so; listens meanwhile, also while it stands by. */
export const underLease = Effect.fnUntraced(function* <A, E, R>(
  self: Effect.Effect<A, E, R>,
  { flags, plan, stream }: Following
): Effect.fn.Return<A, E | ListenFailed | ReplicationError | UsageError, R | Scope.Scope | WalSender> {
  if (Option.isSome(flags.walDirectory) && Option.isNone(flags.listen)) {
    return yield* new UsageError({
      message: "--wal-directory is for what --listen tells",
      remedy: "give --listen as well, or leave --wal-directory out"
    })
  }
  const freeBytes = yield* WalDirectory.freeBytes(flags.walDirectory)
  const watched = yield* Operations.examined(stream, plan, { freeBytes })
  const lease = flags.lease ? yield* SlotLease.make({ slot: stream.options.slot }) : undefined
  yield* Listen.listening(flags.listen, lease === undefined ? watched : Operations.leased(watched, lease))
  return yield* lease === undefined ? self : lease.run(self)
})
