/**
 * Secrets that are planted where secrets are, and programs that are listened to: for tests that look for them in what
 * is let out. `Emitted.ts` is what listens.
 */
import { assert } from "@effect/vitest"
import { type Change, nextLsn, type Replication, withLogicalStream } from "@replicant/core"
import { Cause, Effect, Exit, Fiber, Schedule, type Scope } from "effect"
import { type Emission, type Emitted, listen, printed } from "./Emitted.ts"
import { eventually } from "./eventually.ts"
import { fault } from "./Faults.ts"
import { logicalOptions, walSender } from "./Follow.ts"
import type { Server, ServerTestOptions } from "./Servers.ts"
import type { Workspace } from "./Workspace.ts"
/** Part of everything that is planted, and of nothing else. */
export const canary = "canary4711"
/** As a walsender would print the bytes of it. */
export const canaryHex = Buffer.from(canary).toString("hex")

/** A value that is a number. */
export const secretId = 471_147_114

export const leaks = (emitted: ReadonlyArray<Emission>, secrets: ReadonlyArray<string>): ReadonlyArray<string> =>
  emitted.flatMap(({ by, text }) =>
    secrets.filter((secret) => text.includes(secret)).map((secret) => `${secret} by ${by}: ${text.slice(0, 2000)}`)
  )

/**
 * A test whose body is listened to. Whatever it lets out must hold none of the secrets, and there must be something.
 */
export const listened = (
  title: string,
  body: (server: Server, emitted: Emitted) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options?: ServerTestOptions
): void => fault("X7", title, (server) => listenTo(server, (emitted) => body(server, emitted)), options)

export const listenTo = Effect.fnUntraced(function* (
  server: Server,
  body: (emitted: Emitted) => Effect.Effect<unknown, unknown, Scope.Scope>
) {
  const emitted = listen()
  yield* Effect.provide(body(emitted), emitted.layer)
  yield* emitted.readMetrics
  assert.deepStrictEqual(leaks(emitted.all, [canary, canaryHex, server.password]), [])
  for (const by of ["span", "metric"] as const)
    assert.isTrue(
      emitted.all.some((each) => each.by === by),
      `no ${by}`
    )
})

export const secrets = `
  CREATE TABLE secrets (id int PRIMARY KEY, word text, bytes bytea, json jsonb, words text[]);
  ALTER TABLE secrets REPLICA IDENTITY FULL, ALTER word SET STORAGE EXTERNAL;
  CREATE TABLE named (${canary.slice(0, 6)} text PRIMARY KEY)`

/** Every kind of change, each with the canary in it. */
export const statements = [
  `INSERT INTO secrets SELECT n, '${canary}', '${canary}', '{"${canary}": ["${canary}"]}', '{${canary}}' FROM generate_series(1, 40) n`,
  `UPDATE secrets SET word = repeat('${canary}', 400) WHERE id < 5`,
  "UPDATE secrets SET id = -id WHERE id < 5",
  "DELETE FROM secrets WHERE id < 0",
  `INSERT INTO named VALUES ('${canary}')`,
  `BEGIN; SELECT pg_logical_emit_message(true, 'p', '${canary}'); TRUNCATE secrets; COMMIT`,
  `SELECT pg_logical_emit_message(false, 'p', '${canary}')`,
  "INSERT INTO secrets (id) VALUES (0)"
]

/** Whether this is the last of them. */
const isLast = (change: Change): boolean => change._tag === "Insert" && change.row.id === 0

/** Runs a stream over the statements until it saw the last, or failed. Gives whether the canary arrived at all. */
export const throughout = Effect.fnUntraced(function* <E>(
  workspace: Workspace,
  emitted: Emitted,
  stream: (saw: (change: Change) => void) => Effect.Effect<never, E>
) {
  let isDone = false
  let hasSeen = false
  const fiber = yield* Effect.forkScoped(
    stream((change) => {
      if (isLast(change)) isDone = true
      else if (printed(change).some((text) => text.includes(canary))) hasSeen = true
    })
  )
  yield* eventually(
    Effect.map(workspace.isStreaming(), (isStreaming) => isStreaming || fiber.pollUnsafe() !== undefined),
    { what: "the stream began" }
  )
  for (const statement of statements) yield* workspace.sql(statement)
  yield* eventually(Effect.sync(() => isDone || fiber.pollUnsafe() !== undefined))
  const exit = yield* fiber.pollUnsafe() === undefined
    ? Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
    : Fiber.await(fiber)
  if (Exit.isFailure(exit)) emitted.failed(exit.cause)
  return { hasSeen, exit }
})

export const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined =>
  Exit.isFailure(exit) ? exit.cause.reasons.filter(Cause.isFailReason)[0]?.error : undefined

export const soon = { reconnect: Schedule.spaced("50 millis") }

/** A stream of the workspace, all of it acknowledged. */
export const streamOf = (
  workspace: Workspace,
  saw: (change: Change) => void,
  overrides: Partial<Replication.Options> = {}
) =>
  withLogicalStream({ ...logicalOptions(workspace), ...soon, ...overrides }, (change) =>
    Effect.sync(() => {
      saw(change)
      return nextLsn(change)
    })
  ).pipe(Effect.provide(walSender(workspace)))

/** A decoder that tells what it will not have. */
export const quoting = (text: string): never => {
  throw new Error(`cannot take ${text}`, { cause: new TypeError(text) })
}
