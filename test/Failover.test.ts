/** `failover`: wherever a slot is made, standbys keep it too; and one that is there is made so before it is streamed from. */
import { assert, describe } from "@effect/vitest"
import { withLogicalStream } from "@replicant/core"
import { Effect, Fiber } from "effect"
import { copyOptions, startCopy } from "./support/Copying.ts"
import { eventually } from "./support/eventually.ts"
import { failureOf, follow, logicalOptions, walSender } from "./support/Follow.ts"
import { replicant } from "./support/Replicant.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)"

const isFailover = (workspace: Workspace, slot = workspace.slot) =>
  Effect.map(
    workspace.sql(`SELECT failover FROM pg_replication_slots WHERE slot_name = '${slot}'`),
    ([row]) => row?.failover as boolean | undefined
  )

const refused = { _tag: "UnsupportedByServer", neededVersion: 170_000, isRetryable: false } as const

describe("a slot that standbys keep", () => {
  onServer(
    "postgres",
    "[S11] is made by a stream, and one that is there is made so, or left, or undone; 17 and later",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        if (server.majorVersion < 17) {
          for (const snapshot of [undefined, "initial"] as const) {
            const createSlot = snapshot === undefined ? ("permanent" as const) : undefined
            assert.deepInclude(yield* failureOf(workspace, { failover: true, createSlot, snapshot } as object), refused)
            assert.isUndefined(yield* workspace.findSlot())
          }
          return
        }
        const temporary = yield* failureOf(workspace, { failover: true, createSlot: "temporary" })
        assert.deepInclude(temporary, { _tag: "InvalidOption", option: "failover" })
        for (const [failover, is] of [
          [true, true],
          [undefined, true],
          [false, false],
          [undefined, false],
          [true, true]
        ] as const) {
          const stream = yield* follow(workspace, { options: { failover } })
          assert.strictEqual(yield* isFailover(workspace), is)
          yield* stream.stop
        }
      })
  )

  onServer("postgres", "is made by a snapshot, and by a copy; 17 and later", (server) =>
    Effect.gen(function* () {
      if (server.majorVersion < 17) return
      const workspace = yield* makeWorkspace(server, { sql: table })
      const options = {
        ...logicalOptions(workspace),
        createSlot: undefined,
        snapshot: "initial",
        failover: true
      } as const
      const fiber = yield* withLogicalStream(options, () => Effect.succeed(undefined)).pipe(
        Effect.provide(walSender(workspace)),
        Effect.forkScoped
      )
      yield* Effect.raceFirst(eventually(workspace.isStreaming(workspace.slot)), Fiber.join(fiber))
      assert.isTrue(yield* isFailover(workspace))
      const target = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
      const source = yield* makeWorkspace(server, { sql: table })
      const copying = yield* startCopy({ ...copyOptions(source, target), failover: true })
      yield* copying.during(
        eventually(
          Effect.map(isFailover(source, copyOptions(source, target).slot), (is) => is === true),
          { what: "the copy's slot is kept on standbys" }
        )
      )
    })
  )

  onServer("postgres", "takes the place of one that is lost; 17 and later", (server) =>
    Effect.gen(function* () {
      if (server.majorVersion < 17) return
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, {
        options: { failover: true, createSlot: undefined, slotPolicy: { missing: "recreate" } }
      })
      yield* stream.saw("Gap", 1)
      yield* eventually(workspace.isStreaming(workspace.slot))
      assert.isTrue(yield* isFailover(workspace))
    })
  )

  onServer("postgres", "is made by the command with --failover; refused to 16", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const environment = { DATABASE_URL: workspace.url() }
      const args = [
        "stream",
        "--slot",
        workspace.slot,
        "--create",
        "--publication",
        workspace.publication,
        "--failover"
      ]
      const until = ["--until-lsn", yield* workspace.currentWalLsn]
      const ended = yield* replicant([...args, ...until], environment)
      if (server.majorVersion < 17) {
        assert.notStrictEqual(ended.code, 0)
        assert.include(ended.stderr, "FAILOVER")
        return assert.isUndefined(yield* workspace.findSlot())
      }
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.isTrue(yield* isFailover(workspace))
    })
  )
})
