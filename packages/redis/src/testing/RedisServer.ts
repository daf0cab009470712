/**
 * A Redis for tests: on a directory and a free port of its own on 127.0.0.1, each write on the disk before it is answered, gone
 * with its scope. It runs the `redis-server` of the machine, and is stopped, frozen and killed by its pid.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { randomInt } from "node:crypto"
import * as Fs from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"

/** It could not be started. */
export class RedisServerFailed extends Data.TaggedError("RedisServerFailed")<{ readonly problem: string }> {
  override get message(): string {
    return this.problem
  }
}

/** How it is run. */
export interface RedisServerOptions {
  /** `redis-server` of the PATH unless told otherwise. */
  readonly program?: string | undefined
  /** More of its command line: `["--requirepass", "secret"]`. */
  readonly args?: ReadonlyArray<string> | undefined
}

/** A running Redis, and the ways to disturb it. */
export interface RedisServerShape {
  readonly port: number
  readonly url: string
  /** Where its files are. */
  readonly directory: string
  /** SIGKILL, and waits until it is gone. */
  readonly kill: Effect.Effect<void>
  /** Starts it again on the same port and directory. */
  readonly start: Effect.Effect<void, RedisServerFailed>
  /** SIGSTOP, and waits until it stands still: it answers nothing. */
  readonly freeze: Effect.Effect<void>
  /** SIGCONT. */
  readonly thaw: Effect.Effect<void>
  /** Sends a command on a connection of its own, and gives the first line of the answer. */
  readonly send: (...command: ReadonlyArray<string>) => Effect.Effect<string, RedisServerFailed>
}

const canListen = (port: number): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const server = Net.createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(true))))
  })

/** Below those that the system hands out for outgoing connections, which could take it during a restart. */
const freePort: Effect.Effect<number, RedisServerFailed> = Effect.suspend(() => {
  const port = randomInt(15_000, 32_000)
  return Effect.flatMap(canListen(port), (isFree) =>
    isFree ? Effect.succeed(port) : new RedisServerFailed({ problem: `port ${port} is taken` })
  )
}).pipe(Effect.retry({ times: 50 }))

const ask = (port: number, command: ReadonlyArray<string>): Effect.Effect<string, RedisServerFailed> =>
  Effect.callback((resume) => {
    let answer = ""
    const socket = Net.connect(port, "127.0.0.1", () => {
      const parts = command.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`)
      socket.write(`*${command.length}\r\n${parts.join("")}`)
    })
    socket.setEncoding("utf8").on("data", (text) => {
      answer += text
      if (!answer.includes("\r\n")) return
      socket.destroy()
      resume(Effect.succeed(answer.split("\r\n")[0]!))
    })
    socket.on("error", (cause) => resume(new RedisServerFailed({ problem: cause.message })))
    return Effect.sync(() => socket.destroy())
  })

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

const make = Effect.fnUntraced(function* ({ args = [], program = "redis-server" }: RedisServerOptions) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "replicant-redis-"))),
    (made) => Effect.sync(() => Fs.rmSync(made, { recursive: true, force: true }))
  )
  const port = yield* freePort
  let child: ChildProcess | undefined
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void child?.kill(name))
  const kill = Effect.suspend(() =>
    child === undefined ? Effect.void : Effect.andThen(signal("SIGKILL"), exited(child))
  )
  const start = Effect.suspend(() => {
    let said = ""
    const settings = ["--port", String(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
    const durable = ["--appendonly", "yes", "--appendfsync", "always"]
    const started = spawn(program, [...settings, ...durable, ...args], { stdio: ["ignore", "pipe", "pipe"] })
    child = started
    for (const stream of [started.stdout, started.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        said = (said + text).slice(-2000)
      })
    }
    started.on("error", (cause) => {
      said += cause.message
    })
    const ended = Effect.flatMap(
      exited(started),
      () => new RedisServerFailed({ problem: `redis-server ended: ${said}` })
    )
    // Without a password it says PONG, with one that it wants one.
    const ready = ask(port, ["PING"]).pipe(
      Effect.filterOrFail(
        (answer) => /^(?:\+PONG|-NOAUTH)/.test(answer),
        (answer) => new RedisServerFailed({ problem: answer })
      ),
      Effect.retry(Schedule.spaced("20 millis")),
      Effect.asVoid
    )
    return Effect.raceFirst(ready, ended).pipe(
      Effect.timeoutOrElse({
        duration: "60 seconds",
        orElse: () => new RedisServerFailed({ problem: `redis-server did not start: ${said}` })
      })
    )
  })
  const freeze = Effect.gen(function* () {
    yield* signal("SIGSTOP")
    while (!standsStill(child?.pid ?? 0)) yield* Effect.sleep("1 millis")
  })
  yield* Effect.addFinalizer(() => kill)
  yield* start
  return RedisServer.of({
    port,
    directory,
    url: `redis://127.0.0.1:${port}`,
    kill,
    start,
    freeze,
    thaw: signal("SIGCONT"),
    send: (...command) => ask(port, command)
  })
})

/** A Redis for tests. */
export class RedisServer extends Context.Service<RedisServer, RedisServerShape>()("@replicant/redis/RedisServer") {
  /** Whether the machine has the program. */
  static isInstalled(program = "redis-server"): boolean {
    return spawnSync(program, ["--version"]).status === 0
  }

  /** One in the scope. */
  static make(options: RedisServerOptions = {}): Effect.Effect<RedisServerShape, RedisServerFailed, Scope.Scope> {
    return make(options)
  }

  /**
   * One as a Layer.
   *
   * @example
   * Effect.gen(function* () {
   *   const server = yield* RedisServer
   *   yield* server.kill
   *   yield* server.start
   * }).pipe(Effect.provide(RedisServer.layer()))
   */
  static layer(options: RedisServerOptions = {}): Layer.Layer<RedisServer, RedisServerFailed> {
    return Layer.effect(RedisServer, make(options))
  }
}
