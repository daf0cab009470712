#!/usr/bin/env node
/**
 * The program `replicant`: runs the command, and turns how it ended into an exit code (docs/cli.md). The only place that
 * runs an effect.
 *
 * Ctrl-C and SIGTERM interrupt the command, which then ends in good order; a second one ends it where it stands.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Runtime from "effect/Runtime"
import * as Cli from "./Cli.ts"
import { Ending, exitCodes } from "./cli/Report.ts"

const signalCodes = { SIGINT: exitCodes.interrupted, SIGTERM: exitCodes.terminated } as const

let first: { readonly code: number; readonly at: number } | undefined

/** A Ctrl-C under npm comes twice, from the terminal and from npm: only one that comes later is a second one. */
const secondMillis = 1000

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (first === undefined) first = { code: signalCodes[signal], at: performance.now() }
    else if (performance.now() - first.at > secondMillis) process.exit(signalCodes[signal])
  })
}

const ending: Ending = { interruptedCode: undefined }

const teardown: Runtime.Teardown = (exit, onExit) =>
  onExit(Exit.isSuccess(exit) ? (exit.value as number) : (ending.interruptedCode ?? first?.code ?? exitCodes.failed))

Cli.run(process.argv.slice(2)).pipe(
  Effect.provide(NodeServices.layer),
  Effect.provideService(Ending, ending),
  NodeRuntime.runMain({ disableErrorReporting: true, teardown })
)
