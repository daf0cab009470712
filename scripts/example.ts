/**
 * `npm run example NAME`: a program of `examples/` against a database of its own, in which something happens. With DATABASE_URL set
 * it is run against that one, and nothing is written there.
 */
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { PgServer } from "@replicant/node/testing"
import { Console, Effect, FileSystem, Schedule } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { type Scene, scenes } from "./exampleScenes.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

const examples = readdirSync(join(root, "examples"))
  .filter((name) => name.endsWith(".ts"))
  .map((name) => name.slice(0, -".ts".length))

const run = (name: string, args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>) =>
  Effect.flatMap(ChildProcessSpawner.ChildProcessSpawner, (spawner) =>
    spawner.exitCode(
      ChildProcess.make(process.execPath, [join(root, "examples", `${name}.ts`), ...args], {
        env: environment,
        extendEnv: true,
        stdin: "inherit",
        stdout: "inherit",
        stderr: "inherit"
      })
    )
  )

/** What comes to a file, on standard output. */
const shown = Effect.fnUntraced(function* (path: string) {
  const files = yield* FileSystem.FileSystem
  let length = 0
  const look = Effect.gen(function* () {
    const text = yield* Effect.orElseSucceed(files.readFileString(path), () => "")
    process.stdout.write(text.slice(length))
    length = text.length
  })
  yield* Effect.repeat(look, Schedule.spaced("300 millis"))
})

/** A server of its own, with something that happens once a second, until the program ends. */
const played = Effect.fnUntraced(function* (name: string, args: ReadonlyArray<string>, scene: Scene) {
  const files = yield* FileSystem.FileSystem
  yield* Console.error("note: starting PostgreSQL in a temporary directory")
  const server = yield* PgServer.make({ settings: { autovacuum: "off" } })
  for (const database of ["shop", "replica"]) {
    yield* server.query(`CREATE DATABASE ${database}`)
    yield* server.query(scene.tables, database)
  }
  const url = server.url("shop")
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "replicant-example-" })
  if (scene.look !== undefined) yield* Console.error(`note: ${scene.look}`)
  let count = 0
  yield* Effect.suspend(() => server.query(scene.happens(++count), "shop")).pipe(
    Effect.repeat(Schedule.spaced("1 second")),
    Effect.forkScoped
  )
  if (scene.file !== undefined) yield* Effect.forkScoped(shown(join(directory, scene.file)))
  return yield* run(name, args, { DATABASE_URL: url, ...scene.environment?.(directory, url) })
}, Effect.scoped)

const [, , name = "", ...args] = process.argv
const scene = scenes[name]

const main =
  scene === undefined || !examples.includes(name)
    ? Effect.as(Console.error(`npm run example NAME, of:\n  ${examples.join("\n  ")}`), 2)
    : process.env.DATABASE_URL === undefined
      ? played(name, args, scene)
      : run(name, args, {})

Effect.flatMap(main, (code) =>
  Effect.sync(() => {
    process.exitCode = code
  })
).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
