/**
 * Processes of a PostgreSQL cluster under test: as whom they run, how one is run to its end, how one is kept running, and
 * the watchdog that ends it when we die without a word. It knows nothing of clusters, settings or connections.
 *
 * `node:child_process` rather than Effect's `ChildProcess`: PostgreSQL refuses to run as root, so a uid must be given.
 */
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/**
 * A cluster under test could not be made, started, stopped or asked.
 *
 * `log` is the end of what the failing program wrote to its standard error, `sqlState` what the server answered a query
 * with.
 */
export class PgServerFailed extends Schema.TaggedError<PgServerFailed>("@replicant/node/PgServerFailed")(
  "PgServerFailed",
  {
    stage: Schema.Literals(["Binaries", "Directory", "InitDb", "Start", "Stop", "Connect", "Query"]),
    problem: Schema.String,
    log: Schema.optional(Schema.String),
    sqlState: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    const log = this.log === undefined || this.log === "" ? "" : `\n${this.log}`
    return `${this.stage}: ${this.problem}${log}`
  }
}

/** Whose processes and files they are. */
export interface User {
  readonly uid: number
  readonly gid: number
}

/** `name:password:uid:gid:...`, as in passwd(5). */
const userInPasswd = (passwd: string, name: string): User | undefined => {
  const fields = passwd
    .split("\n")
    .find((line) => line.startsWith(`${name}:`))
    ?.split(":")
  const uid = Number(fields?.[2])
  const gid = Number(fields?.[3])
  return Number.isInteger(uid) && Number.isInteger(gid) && uid > 0 ? { uid, gid } : undefined
}

/** Whom root lends the server to: `postgres` where there is such a user, else `nobody`. */
export const unprivilegedUser = (passwd: string): User | undefined =>
  userInPasswd(passwd, "postgres") ?? userInPasswd(passwd, "nobody")

/** Whom to run the server as; `undefined` is ourselves, which will do unless we are root. */
export const serverUser: Effect.Effect<User | undefined, PgServerFailed> = Effect.suspend(() => {
  if (process.getuid?.() !== 0) return Effect.succeed(undefined)
  const user = unprivilegedUser(Fs.readFileSync("/etc/passwd", "utf8"))
  return user === undefined
    ? new PgServerFailed({
        stage: "Directory",
        problem: "PostgreSQL does not run as root, and /etc/passwd has neither postgres nor nobody to run it as"
      })
    : Effect.succeed(user)
})

/** A program, its arguments, and as whom it runs. */
export interface Command {
  readonly file: string
  readonly args: ReadonlyArray<string>
  readonly user: User | undefined
  /** A directory that the user may enter: ours may be closed to it. */
  readonly cwd: string
}

/**
 * Our environment without what PostgreSQL's programs would read from it (PGDATA, PGPORT, ...), with English messages and
 * UTC, so that a cluster is the same on every machine.
 */
const environment = (): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG"))),
  LC_ALL: "C",
  TZ: "UTC"
})

/**
 * `detached` gives the process a session of its own: a Ctrl-C in the terminal then reaches us alone, and we stop the
 * server in order rather than find it gone.
 */
const spawn = (command: Command): ChildProcess.ChildProcess =>
  ChildProcess.spawn(command.file, command.args, {
    cwd: command.cwd,
    detached: true,
    env: environment(),
    stdio: ["ignore", "pipe", "pipe"],
    ...command.user
  })

/** A process that was started, and what it says. */
export interface Running {
  /** `undefined` once it has ended, and all that it started with it; also if it never began. */
  readonly pid: () => number | undefined
  /** Resolves when it has ended. */
  readonly closed: Promise<Outcome>
}

export interface Outcome {
  /** Exit code; null when it died of a signal, or never began. */
  readonly code: number | null
  /** How it ended, in words: `exited with code 1`, `died of SIGKILL`, `spawn /x/postgres EACCES`. */
  readonly description: string
}

/**
 * Starts a process at once. Node's `close` comes when the last holder of its standard error has gone, and every backend
 * inherits the postmaster's: so `closed` means that backends orphaned by a killed postmaster are gone too.
 */
export const start = (command: Command, onOutput: (text: string) => void): Running => {
  const child = spawn(command)
  child.stdout?.setEncoding("utf8").on("data", onOutput)
  child.stderr?.setEncoding("utf8").on("data", onOutput)
  let isOpen = child.pid !== undefined
  const closed = new Promise<Outcome>((resolve) => {
    const close = (outcome: Outcome): void => {
      isOpen = false
      resolve(outcome)
    }
    child.on("error", (error) => {
      if (child.pid === undefined) close({ code: null, description: error.message })
    })
    child.on("close", (code, signal) =>
      close({ code, description: signal === null ? `exited with code ${code}` : `died of ${signal}` })
    )
  })
  return { pid: () => (isOpen ? child.pid : undefined), closed }
}

/** Sends a signal; false when the process has gone. */
export const signal = (running: Running, name: NodeJS.Signals): boolean => {
  const pid = running.pid()
  if (pid === undefined) return false
  try {
    return process.kill(pid, name)
  } catch {
    return false
  }
}

/** Runs a program to its end. Interrupted, it is killed, and its end awaited. */
export const run = (command: Command): Effect.Effect<Outcome & { readonly output: string }> =>
  Effect.callback((resume) => {
    let output = ""
    const running = start(command, (text) => {
      output += text
    })
    running.closed.then((outcome) => resume(Effect.succeed({ ...outcome, output })))
    return Effect.promise(() => {
      signal(running, "SIGKILL")
      return running.closed
    })
  })

/** Told the server's pid line by line; an empty line is "none". Its input ends when we do, however we die. */
const watchdogScript = `
trap '' HUP INT TERM
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
  tries=0
  while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
fi
rm -rf "$1"
`

/** Guards a directory and the process at work in it. */
export interface Watchdog {
  /** Names the process to end when we die; `undefined` is none. */
  readonly guard: (pid: number | undefined) => void
}

/**
 * A shell that waits for our end, by whatever death (SIGKILL and a Ctrl-C without handler included), then quits the server
 * and removes the directory. Also the scope's end is one, after the server's. On Windows, which has no such shell, it
 * guards nothing.
 */
export const watchdog = (directory: string): Effect.Effect<Watchdog, never, Scope.Scope> =>
  process.platform === "win32"
    ? Effect.succeed({ guard: () => undefined })
    : Effect.acquireRelease(
        Effect.sync(() => {
          // Nobody would read what it says, and a full pipe would stop it.
          const child = ChildProcess.spawn("/bin/sh", ["-c", watchdogScript, "watchdog", directory], {
            cwd: "/",
            detached: true,
            stdio: ["pipe", "ignore", "ignore"]
          })
          child.on("error", () => undefined) // Without a watchdog the server still stops with its scope.
          child.stdin.on("error", () => undefined)
          child.unref()
          if ("unref" in child.stdin && typeof child.stdin.unref === "function") child.stdin.unref()
          return child
        }),
        (child) =>
          Effect.callback<void>((resume) => {
            if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) {
              return resume(Effect.void)
            }
            child.ref()
            child.once("exit", () => resume(Effect.void))
            child.stdin.end()
          })
      ).pipe(Effect.map((child) => ({ guard: (pid) => void child.stdin.write(`${pid ?? ""}\n`) })))
