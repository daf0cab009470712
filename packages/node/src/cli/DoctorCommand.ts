/**
 * `replicant doctor`: what is wrong with a server for what one means to do there, and what mends it. Reads, and changes
 * nothing; with `--sql` the cures are a script, which is left to be run by whoever has read it.
 */
import { statfs } from "node:fs/promises"
import { Doctor } from "@replicant/core/operations"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Copy from "../copy/Copy.ts"
import { isLocal } from "../pg/PgAuthentication.ts"
import * as PgConfig from "../pg/PgConfig.ts"
import * as PgWalSender from "../pg/PgWalSender.ts"
import { formatReport } from "./DoctorText.ts"
import { exitCodes, UsageError, Verdict } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"

interface DoctorFlags {
  readonly publication: ReadonlyArray<string>
  readonly table: ReadonlyArray<string>
  readonly slot: Option.Option<string>
  readonly plugin: string
  readonly create: boolean
  readonly snapshot: boolean
  readonly to: Option.Option<Redacted.Redacted<string>>
  readonly standby: Option.Option<Redacted.Redacted<string>>
  readonly sql: boolean
}

/** What is free for whoever is not root, where the directory is on this machine and may be looked at. */
const freeDisk = (directory: string): Effect.Effect<number | undefined> =>
  Effect.tryPromise(() => statfs(directory)).pipe(
    Effect.map(({ bavail, bsize }) => bavail * bsize),
    Effect.orElseSucceed(() => undefined)
  )

/** A session at another server, where one is named. */
const session = Effect.fnUntraced(function* (shared: Root.Shared, url: Option.Option<Redacted.Redacted<string>>) {
  return Option.isNone(url) ? undefined : PgWalSender.session(yield* Root.connection({ ...shared, url }))
})

/** What the flags ask for. With a target they stand for what `replicant copy` does. */
const planOf = Effect.fnUntraced(function* (flags: DoctorFlags, shared: Root.Shared) {
  const from = yield* Root.connection(shared)
  const { database, host, sslmode } = yield* Effect.fromResult(PgConfig.resolve(from))
  const target = yield* session(shared, Root.urlOf(flags.to, "TARGET_URL"))
  const copySlot = target === undefined ? undefined : Copy.defaultSlot(database)
  return {
    publications: flags.publication,
    tables: flags.table,
    slot: Option.getOrElse(flags.slot, () => copySlot),
    plugin: flags.plugin,
    createSlot: flags.create,
    snapshot: flags.snapshot || target !== undefined,
    connection: { host, sslmode },
    target,
    standby: yield* session(shared, Root.urlOf(flags.standby, "STANDBY_URL")),
    freeDisk: isLocal(host) ? freeDisk : undefined
  } satisfies Doctor.Plan
})

const exitCode = { well: exitCodes.ok, unwell: exitCodes.failed, unsure: exitCodes.unsure } as const

const runCommand = Effect.fnUntraced(function* (flags: DoctorFlags) {
  const shared = yield* Root.command
  const output = yield* Output
  if (flags.sql && shared.json) {
    return yield* new UsageError({
      message: "--sql and --json exclude each other",
      remedy: "the cures are in the JSON, too: findings[].cure.sql"
    })
  }
  const plan = yield* planOf(flags, shared)
  const report = yield* Doctor.run(plan, Copy.checks).pipe(Effect.provide(Root.walSender(shared)))
  const text = flags.sql
    ? Doctor.script(report)
    : shared.json
      ? `${JSON.stringify(Schema.encodeSync(Doctor.Report)(report))}\n`
      : formatReport(report, yield* Root.palette(shared))
  yield* output.write(text)
  const code = exitCode[Doctor.verdict(report)]
  if (code !== exitCodes.ok) return yield* new Verdict({ exitCode: code, failure: undefined })
})

export const command = Command.make(
  "doctor",
  {
    publication: Flag.String("publication").pipe(
      Flag.withDescription("What is streamed; again for more. Where no --table is named either: every publication"),
      Flag.atLeast(0)
    ),
    table: Flag.String("table").pipe(
      Flag.withMetavar("schema.table"),
      Flag.withDescription("A table that is published, or is to be; again for more"),
      Flag.atLeast(0)
    ),
    slot: Flag.String("slot").pipe(
      Flag.withDescription("The slot; otherwise every slot of the database, or with --to the copy's"),
      Flag.optional
    ),
    plugin: Flag.String("plugin").pipe(Flag.withDescription("The output plugin"), Flag.withDefault("pgoutput")),
    create: Root.switchFlag("create", "The slot is made where it is not there: that it is missing is no fault"),
    snapshot: Root.switchFlag("snapshot", "Rows that are there are copied first"),
    to: Root.urlFlag(
      "to",
      "Look at the target of a copy, too, as replicant copy would need it; TARGET_URL stands for it"
    ),
    standby: Root.urlFlag(
      "standby",
      "Look at a standby, too; a password goes better into STANDBY_URL, which stands for it"
    ),
    sql: Root.switchFlag("sql", "Print what mends it as one SQL script, and run nothing")
  },
  runCommand
).pipe(
  Command.withDescription("What is wrong with a server, or will be, and what mends it: looks, and changes nothing"),
  Command.withExamples([
    { command: "replicant doctor", description: "Everything of the database" },
    {
      command: "replicant doctor --publication orders --slot orders --snapshot",
      description: "What a stream with its first copy would meet; exit code 1 if something is wrong"
    },
    { command: "replicant doctor --sql > cures.sql", description: "What mends it, to be read and run" }
  ])
)
