/**
 * A NATS with JetStream for tests: on a directory and a free port of its own on 127.0.0.1, gone with its scope. It runs the
 * `nats-server` of the machine, and is stopped, frozen and killed by its pid.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { randomInt } from "node:crypto"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

/** It could not be started. */
export class NatsServerFailed extends Data.TaggedError("NatsServerFailed")<{ readonly problem: string }> {
  override get message(): string {
    return this.problem
  }
}

/** How it is run. */
export interface NatsServerOptions {
  /** `nats-server` of the PATH unless told otherwise. */
  readonly program?: string | undefined
  /** More of its configuration: `authorization { user: shop, password: secret }`. */
  readonly config?: string | undefined
}

/** A running NATS, and the ways to disturb it. */
export interface NatsServerShape {
  readonly port: number
  readonly url: string
  /** Where its files are. */
  readonly directory: string
  /** SIGKILL, and waits until it is gone. */
  readonly kill: Effect.Effect<void>
  /** Starts it again on the same port and directory. */
  readonly start: Effect.Effect<void, NatsServerFailed>
  /** SIGSTOP, and waits until it stands still: it answers nothing. */
  readonly freeze: Effect.Effect<void>
  /** SIGCONT. */
  readonly thaw: Effect.Effect<void>
}

/** `2.9.10`; `undefined` where the machine has none. */
const versionOf = (program: string): string | undefined =>
  /v(\d+\.\d+\.\d+)/.exec(String(spawnSync(program, ["--version"]).stdout ?? ""))?.[1]

/** Each write is on the disk before it is acknowledged, where the server knows how: 2.10 and later. */
const syncOf = (version: string): string => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > 2 || minor >= 10 ? "sync_interval: always" : ""
}

const exited = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) resume(Effect.void)
    else child.once("exit", () => resume(Effect.void)).once("error", () => resume(Effect.void))
  })

/** Whether each thread of a process stands still; where `/proc` tells nothing, a signal that was sent is all there is. */
const standsStill = (pid: number): boolean => {
  try {
    const threads = Fs.readdirSync(`/proc/${pid}/task`)
    return threads.every((id) => /\) [TZX] /.test(Fs.readFileSync(`/proc/${pid}/task/${id}/stat`, "latin1")))
  } catch {
    return true
  }
}

/** Runs it until it says that it is ready, or ends. */
const run = (program: string, config: string, onStart: (child: ChildProcess) => void) =>
  Effect.callback<void, NatsServerFailed>((resume) => {
    const child = spawn(program, ["--config", config], { stdio: ["ignore", "pipe", "pipe"] })
    onStart(child)
    let said = ""
    const fail = (why: string) => resume(Effect.fail(new NatsServerFailed({ problem: `nats-server ${why}: ${said}` })))
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        said = (said + text).slice(-2000)
        if (said.includes("Server is ready")) resume(Effect.void)
      })
    }
    child.once("error", (cause) => fail(`did not start, ${cause.message}`)).once("exit", () => fail("ended"))
  }).pipe(
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => new NatsServerFailed({ problem: "nats-server did not start within a minute" })
    })
  )

const make = Effect.fnUntraced(function* ({ config = "", program = "nats-server" }: NatsServerOptions) {
  const version = versionOf(program)
  if (version === undefined) return yield* new NatsServerFailed({ problem: `there is no ${program}` })
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "replicant-nats-"))),
    (made) => Effect.sync(() => Fs.rmSync(made, { recursive: true, force: true }))
  )
  const file = Path.join(directory, "nats.conf")
  let child: ChildProcess | undefined
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void child?.kill(name))
  const kill = Effect.suspend(() =>
    child === undefined ? Effect.void : Effect.andThen(signal("SIGKILL"), exited(child))
  )
  const start = run(program, file, (started) => {
    child = started
  })
  const freeze = Effect.gen(function* () {
    yield* signal("SIGSTOP")
    while (!standsStill(child?.pid ?? 0)) yield* Effect.sleep("1 millis")
  })
  yield* Effect.addFinalizer(() => kill)
  // Below those that the system hands out for outgoing connections, which could take it during a restart. It may be taken.
  const port = yield* Effect.suspend(() => {
    const chosen = randomInt(15_000, 32_000)
    const store = `jetstream { store_dir: "${directory}", ${syncOf(version)} }`
    Fs.writeFileSync(file, `listen: "127.0.0.1:${chosen}"\n${store}\n${config}\n`)
    return Effect.as(start, chosen)
  }).pipe(Effect.retry({ times: 5 }))
  const url = `nats://127.0.0.1:${port}`
  return NatsServer.of({ port, url, directory, kill, start, freeze, thaw: signal("SIGCONT") })
})

/** A NATS for tests. */
export class NatsServer extends Context.Service<NatsServer, NatsServerShape>()("@replicant/nats/NatsServer") {
  /** Whether the machine has the program. */
  static isInstalled(program = "nats-server"): boolean {
    return versionOf(program) !== undefined
  }

  /** One in the scope. */
  static make(options: NatsServerOptions = {}): Effect.Effect<NatsServerShape, NatsServerFailed, Scope.Scope> {
    return make(options)
  }

  /**
   * One as a Layer.
   *
   * @example
   * Effect.gen(function* () {
   *   const server = yield* NatsServer
   *   yield* server.kill
   *   yield* server.start
   * }).pipe(Effect.provide(NatsServer.layer()))
   */
  static layer(options: NatsServerOptions = {}): Layer.Layer<NatsServer, NatsServerFailed> {
    return Layer.effect(NatsServer, make(options))
  }
}
