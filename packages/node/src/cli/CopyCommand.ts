/**
 * `replicant copy`: published tables in another PostgreSQL, and then in step with it. It says on standard error what it makes
 * and how far it is; Ctrl-C and SIGTERM let what is being applied end, which is how it is meant to end.
 */
import * as Cause from "effect/Cause"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Copy from "../copy/Copy.ts"
import * as PgConfig from "../pg/PgConfig.ts"
import * as PgWalSender from "../pg/PgWalSender.ts"
import * as Listen from "./Listen.ts"
import * as LiveLine from "./LiveLine.ts"
import { Ending, exitCodes, UsageError } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"
import { formatTotals } from "./Status.ts"
import { showStream } from "./StreamLine.ts"
import { formatCount } from "./Table.ts"
import { underLease } from "./UnderLease.ts"
import * as WalDirectory from "./WalDirectory.ts"

interface CopyFlags {
  readonly from: Option.Option<Redacted.Redacted<string>>
  readonly to: Option.Option<Redacted.Redacted<string>>
  readonly publication: ReadonlyArray<string>
  readonly slot: Option.Option<string>
  readonly create: boolean
  readonly truncate: boolean
  readonly changesOnly: boolean
  readonly fireTriggers: boolean
  readonly anyTypes: boolean
  readonly origin: boolean
  readonly localOnly: boolean
  readonly failover: boolean
  readonly connections: number
  readonly forget: boolean
  readonly dryRun: boolean
  readonly lease: boolean
  readonly listen: Option.Option<Listen.Address>
  readonly walDirectory: Option.Option<string>
}

/** What `--to` stands for, as DATABASE_URL does for `--url`: a password does not belong on a command line. */
const targetVariable = "TARGET_URL"

const target = Effect.fnUntraced(function* ({ to }: CopyFlags, shared: Root.Shared) {
  const url = Root.urlOf(to, targetVariable)
  if (Option.isNone(url)) {
    return yield* new UsageError({ message: "no target is named", remedy: `give --to URL, or set ${targetVariable}` })
  }
  return yield* Root.connection({ ...shared, url })
})

const summary = ({ changes, missing, rows, transactions }: Copy.CopyTotals): string => {
  const strays = missing === 0 ? "" : `, ${formatCount(missing)} of rows that were not there`
  return `copied ${formatCount(rows)} rows, then ${formatTotals({ changes, transactions })}${strays}`
}

const runCommand = Effect.fnUntraced(function* (flags: CopyFlags) {
  const shared = yield* Root.command
  const line = yield* LiveLine.Standard
  const output = yield* Output
  const ending = yield* Ending
  const publications = flags.publication
  if (flags.dryRun && !flags.forget) {
    return yield* new UsageError({ message: "--dry-run says what --forget would do", remedy: "add --forget" })
  }
  if (publications.length === 0 && !flags.forget) {
    return yield* new UsageError({
      message: "no publication is named",
      remedy: "give --publication NAME; again for more"
    })
  }
  const from = yield* Root.connection({ ...shared, url: Option.orElse(flags.from, () => shared.url) })
  const to = yield* target(flags, shared)
  const { database } = yield* Effect.fromResult(PgConfig.resolve(from))
  const slot = Option.getOrElse(flags.slot, () => Copy.defaultSlot(database))
  if (flags.forget) {
    const forgotten = yield* Copy.forget({ from, to, slot, remains: flags.dryRun ? "tell" : "drop" })
    if (shared.json) yield* output.write(`${JSON.stringify({ slot, forgotten, dryRun: flags.dryRun })}\n`)
    else if (flags.dryRun) for (const what of forgotten) line.writeLine(`would drop ${what}`)
    return undefined
  }
  const copy = yield* Copy.make({
    from,
    to,
    publications,
    slot,
    whenMissing: flags.create ? "create" : "fail",
    whenFilled: flags.truncate ? "truncate" : "fail",
    rows: flags.changesOnly ? "leave" : "copy",
    triggers: flags.fireTriggers ? "fire" : "quiet",
    types: flags.anyTypes ? "any" : "fitting",
    origin: flags.origin ? "marked" : "unmarked",
    replicated: flags.localOnly ? "skip" : "apply",
    connections: flags.connections,
    failover: flags.failover ? true : undefined
  })
  const { state, totals } = copy
  const running = Effect.provide(
    underLease(copy.run, { stream: copy, plan: { publications }, flags }),
    PgWalSender.layer(from)
  )
  return yield* Effect.onExit(
    line.isTerminal
      ? Effect.raceFirst(running, showStream({ slot, state: SubscriptionRef.get(state), totals, shows: "all" }))
      : running,
    Effect.fnUntraced(function* (exit) {
      if (Exit.isSuccess(exit) || !Cause.hasInterruptsOnly(exit.cause)) return
      ending.interruptedCode = exitCodes.ok
      if (shared.json) yield* Effect.ignore(output.write(`${JSON.stringify({ slot, ...totals })}\n`))
      else line.writeLine(summary(totals))
    })
  )
}, Effect.scoped)

export const command = Command.make(
  "copy",
  {
    from: Root.urlFlag("from", "The source; otherwise --url, DATABASE_URL and the PG variables name it"),
    to: Root.urlFlag("to", `The target; a password goes better into ${targetVariable}, which stands for it`),
    publication: Flag.String("publication").pipe(
      Flag.withDescription("What is copied: a publication of the source; again for more"),
      Flag.atLeast(0)
    ),
    slot: Flag.String("slot").pipe(
      Flag.withDescription(
        "The slot at the source, and the name under which the target keeps its position: replicant_copy_ and the source's database"
      ),
      Flag.optional
    ),
    create: Root.switchFlag(
      "create",
      "Make what is missing: the slot, the table replicant.copy_position and the replication origin"
    ),
    truncate: Root.switchFlag("truncate", "Empty the target's tables before the first copy"),
    changesOnly: Root.switchFlag(
      "changes-only",
      "Copy no rows, the target has them already: apply what is committed from now on"
    ),
    fireTriggers: Root.switchFlag(
      "fire-triggers",
      "Let triggers and foreign keys of the target act on what is written"
    ),
    anyTypes: Root.switchFlag(
      "any-types",
      "Take columns of whatever type at the target: its input functions decide, value by value"
    ),
    origin: Flag.Boolean("origin").pipe(
      Flag.withDescription("Mark what is written with a replication origin; not with --no-origin"),
      Flag.withDefault(true)
    ),
    localOnly: Root.switchFlag(
      "local-only",
      "Leave out what was itself replicated to the source; in both directions for two-way"
    ),
    failover: Root.switchFlag("failover", "Keep the slot on the source's standbys too (PostgreSQL 17)"),
    connections: Flag.Int("connections").pipe(
      Flag.withDescription("How many connections read the first copy"),
      Flag.filter(
        (count) => count >= 1,
        () => "Expected a whole number of 1 or more"
      ),
      Flag.withDefault(2)
    ),
    forget: Root.switchFlag(
      "forget",
      "Copy nothing: take away what a copy that is given up has left, its slots, its origin and its position; rows stay"
    ),
    listen: Listen.flag,
    walDirectory: WalDirectory.flag,
    lease: Root.switchFlag("lease", "Copy while this process holds the slot's lease, and stand by while another does"),
    dryRun: Root.switchFlag("dry-run", "With --forget: say what would go, and leave it")
  },
  runCommand
).pipe(
  Command.withDescription("Copies published tables into another PostgreSQL, and keeps them in step"),
  Command.withExamples([
    {
      command: "replicant copy --from postgres://me@old/shop --to postgres://me@new/shop --publication shop --create",
      description: "Copy all rows, then follow; run it again to go on where it stood"
    },
    {
      command:
        "replicant copy --from postgres://me@b/shop --to postgres://me@a/shop --publication shop --slot back --changes-only --local-only --create",
      description: "The other direction of two-way, from tables that are equal"
    },
    {
      command: "replicant copy --from postgres://me@old/shop --to postgres://me@new/shop --forget --dry-run",
      description: "What a copy that is given up has left behind; without --dry-run it goes"
    }
  ])
)
