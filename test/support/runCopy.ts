/**
 * A copy as a program of its own, to be killed: as the command is, with an option that the command does not have. Its one
 * argument is JSON. It says on standard error what it does.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Copy } from "@replicant/node"
import { Cause, Effect, Exit, Logger, Redacted } from "effect"

const { from, piecePages, publication, slot, to } = JSON.parse(process.argv[2] ?? "{}") as Record<string, string>

const logger = Logger.make(({ message }) => void process.stderr.write(`${[message].flat().join(" ")}\n`))

Copy.run({
  from: { url: Redacted.make(from ?? "") },
  to: { url: Redacted.make(to ?? "") },
  publications: [publication ?? ""],
  slot: slot ?? "",
  whenMissing: "create",
  piecePages: Number(piecePages)
}).pipe(
  Effect.tapError((error) => Effect.logError(`${error._tag}: ${error.message}`)),
  Effect.provide(Logger.layer([logger])),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) => onExit(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
  })
)
