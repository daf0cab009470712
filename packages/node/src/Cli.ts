/**
 * The command tree of `replicant`, and how a run of it ends: with an exit code, and when it failed with what went wrong
 * and the cure on standard error. `bin.ts` runs it.
 */
import { createRequire } from "node:module"
import { Lsn } from "@replicant/core"
import { formatVersion, identifySystem } from "@replicant/core/driver"
import * as Cause from "effect/Cause"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as CodegenCommand from "./cli/CodegenCommand.ts"
import * as CopyCommand from "./cli/CopyCommand.ts"
import * as DeadLettersCommand from "./cli/DeadLettersCommand.ts"
import * as DemoCommand from "./cli/DemoCommand.ts"
import * as DoctorCommand from "./cli/DoctorCommand.ts"
import * as LagCommand from "./cli/LagCommand.ts"
import { probeCodes } from "./cli/LagVerdict.ts"
import * as LiveLine from "./cli/LiveLine.ts"
import * as PublicationCommand from "./cli/PublicationCommand.ts"
import {
  type CommandError,
  exitCodeOf,
  exitCodes,
  type Failure,
  failureOf,
  failureOfDefect,
  formatFailure,
  logger,
  ReportFormat,
  type Verdict
} from "./cli/Report.ts"
import * as Root from "./cli/Root.ts"
import * as SlotCommand from "./cli/SlotCommand.ts"
import { Output, type OutputClosed } from "./cli/StandardOutput.ts"
import * as StreamCommand from "./cli/StreamCommand.ts"
import * as WatchCommand from "./cli/WatchCommand.ts"

/** Of this package, both as source and built. */
export const version: string = createRequire(import.meta.url)("../package.json").version

const identify = Command.make("identify", {}, () =>
  Effect.gen(function* () {
    const shared = yield* Root.command
    const output = yield* Output
    const found = yield* Root.withConnection((connection) =>
      Effect.map(identifySystem(connection), ({ xLogPos, ...system }) => ({
        ...system,
        xLogPos: Lsn.format(xLogPos),
        serverVersion: connection.serverVersion
      }))
    ).pipe(Effect.provide(Root.walSender(shared)))
    const { database, serverVersion, systemId, timeline, xLogPos } = found
    yield* output.write(
      shared.json
        ? `${JSON.stringify(found)}\n`
        : `system    ${systemId}\ntimeline  ${timeline}\nwal       ${xLogPos}\ndatabase  ${database}\nserver    PostgreSQL ${formatVersion(serverVersion)}\n`
    )
  })
).pipe(Command.withDescription("Which server answers, and how far its WAL reaches"))

export const command = Root.command.pipe(
  Command.withSubcommands([
    StreamCommand.command,
    identify,
    SlotCommand.command,
    WatchCommand.command,
    LagCommand.command,
    PublicationCommand.command,
    DeadLettersCommand.command,
    CopyCommand.command,
    DoctorCommand.command,
    CodegenCommand.command,
    DemoCommand.command
  ])
)

/** What the parser found wrong, in one line; where it knows a near name, that is the cure. */
const usageFailure = (error: CliError.CliError, path: ReadonlyArray<string>): Failure => {
  const [message = "", ...rest] = error.message.split("\n").map((line) => line.trim())
  const suggestion = rest.filter((line) => line !== "" && line !== "Did you mean this?")
  const cure = suggestion.length > 0 ? `did you mean ${suggestion.join(" or ")}?` : `${path.join(" ")} --help`
  return { tag: "UsageError", message, cure }
}

const fail = Effect.fnUntraced(function* (failure: Failure, exitCode: number): Effect.fn.Return<number> {
  const line = yield* LiveLine.Standard
  line.hide()
  line.writeLine(formatFailure(failure, yield* ReportFormat))
  return exitCode
})

/** A probe that was asked wrongly has not looked, and must not be taken for one that found something. */
const usageCode = (path: ReadonlyArray<string>): number => (path[1] === "lag" ? probeCodes.unknown : exitCodes.usage)

const onError = (error: CommandError | Verdict | OutputClosed | CliError.CliError): Effect.Effect<number> => {
  if (CliError.isCliError(error)) {
    if (error._tag !== "ShowHelp") return fail(usageFailure(error, ["replicant"]), exitCodes.usage)
    const [first] = error.errors
    // Without an error no command was named: the presenter has shown what there is.
    return first === undefined
      ? Effect.succeed(exitCodes.usage)
      : fail(usageFailure(first, error.commandPath), usageCode(error.commandPath))
  }
  // Whoever read our output has enough: that is how `| head` ends.
  if (error._tag === "OutputClosed") return Effect.succeed(exitCodes.ok)
  if (error._tag === "Verdict") {
    return error.failure === undefined ? Effect.succeed(error.exitCode) : fail(failureOf(error.failure), error.exitCode)
  }
  return fail(failureOf(error), exitCodeOf(error))
}

const onDefect = (cause: Cause.Cause<never>): Effect.Effect<number> =>
  Cause.hasInterruptsOnly(cause)
    ? Effect.failCause(cause)
    : Effect.andThen(Effect.logDebug(Cause.pretty(cause)), fail(failureOfDefect(cause), exitCodes.failed))

/** Help goes to standard output when it was asked for, else to standard error: it is no result. */
const presenter = Layer.succeed(CliOutput.Presenter, {
  present: Effect.fnUntraced(function* (event) {
    const output = yield* Output
    const formatter = CliOutput.defaultFormatter({ colors: output.isTerminal && (process.env.NO_COLOR ?? "") === "" })
    switch (event._tag) {
      case "Version":
        return yield* Effect.ignore(output.write(`${event.name} ${event.version}\n`))
      case "Help": {
        const text = formatter.formatHelpDoc(event.helpDoc)
        if (event.reason === "Requested") return yield* Effect.ignore(output.write(`${text}\n`))
        return (yield* LiveLine.Standard).writeLine(text)
      }
      case "InvalidInvocation":
        return // Told in one line by whoever catches the error.
    }
  })
})

const builtIns = CliConfig.layer({
  builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel]
})

/** Known before the arguments are parsed, so that what is wrong with them is told in the format asked for. */
const reportFormat = (args: ReadonlyArray<string>): ReportFormat =>
  args.includes("--json") || args.includes("--json=true") ? "json" : "text"

/** Runs the command and gives its exit code. Only an interruption comes as a failure. */
export const run = (args: ReadonlyArray<string>): Effect.Effect<number, never, Command.Environment> =>
  Command.runWith(command, { version })(args).pipe(
    Effect.as<number>(exitCodes.ok),
    Effect.catch(onError),
    Effect.catchCause(onDefect),
    Effect.provide([presenter, builtIns, Logger.layer([logger])]),
    Effect.provideService(ReportFormat, reportFormat(args))
  )
