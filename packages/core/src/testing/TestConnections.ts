/**
 * Who is connected to the test's server, by which way, and who is turned away: `WalSender.connect`, and what every change of
 * the server must do: wake those who wait for it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { concat } from "../pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { portableText } from "../protocol/ByteReader.ts"
import { ConnectionError, type ReplicationError } from "../ReplicationError.ts"
import { serverError } from "../refineServerError.ts"
import type { CopyBoth, QueryRow, ReplicantConnection } from "../server/WalSender.ts"
import { readStart } from "./StartReplication.ts"
import { answer, endSession, refusal } from "./TestCatalog.ts"
import { TestServer, type TestServerOptions, type TestSlot } from "./TestServer.ts"
import { type StatusUpdate, TestSession } from "./TestSession.ts"
import { type Network, Wire } from "./Wire.ts"

const closed = () => new ConnectionError({ reason: "Closed", detail: "the server closed the connection" })

export class TestConnections {
  readonly server: TestServer
  readonly network: Network
  readonly statuses: Array<StatusUpdate> = []
  readonly queries: Array<string> = []
  attempts = 0
  /** By the pid of their connection. */
  private readonly sessions = new Map<number, TestSession>()
  private refusal: { readonly error: ReplicationError; left: number } | undefined
  private readonly waiting = new Set<() => void>()

  constructor(options: TestServerOptions) {
    this.server = new TestServer(options)
    this.network = { delay: 0, bytesLeft: undefined, maxReadBytes: options.maxReadBytes ?? 65_536 }
  }

  /** The slot that the test's controls are about. */
  get slot(): TestSlot | undefined {
    return this.server.slots.get(this.server.options.slot)
  }

  get streaming(): ReadonlyArray<TestSession> {
    return [...this.sessions.values()].filter(({ isEnded }) => !isEnded)
  }

  /** Changes the server at this moment of the clock, and wakes who waits for what it is now. */
  change<A>(change: (now: number) => A): Effect.Effect<A> {
    return Effect.map(Clock.currentTimeMillis, (now) => {
      const result = change(now)
      if (this.server.state === "stopping" && this.streaming.length === 0) {
        this.server.checkpoint()
        this.server.state = "down"
      }
      for (const wake of [...this.waiting]) wake()
      return result
    })
  }

  /** Waits until `holds` does. */
  until(holds: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const wake = () => {
        if (!holds()) return
        this.waiting.delete(wake)
        resume(Effect.void)
      }
      this.waiting.add(wake)
      wake()
      return Effect.sync(() => this.waiting.delete(wake))
    })
  }

  /** Turns so many connections away. */
  refuse(error: ReplicationError, times: number): void {
    this.refusal = { error, left: times }
  }

  /** Opens a connection, or says why nobody gets in. */
  readonly connect: Effect.Effect<ReplicantConnection, ReplicationError, Scope.Scope> = Effect.gen(
    { self: this },
    function* () {
      const refused = yield* this.change(() => {
        this.attempts++
        return this.closedDoor()
      })
      if (refused !== undefined) return yield* Effect.fail(refused)
      const scope = yield* Scope.Scope
      const pid = this.server.nextPid()
      // With the connection, as a socket closes: what it said goodbye with before that has come.
      yield* Effect.addFinalizer(() =>
        this.change(() => {
          this.sessions.get(pid)?.disconnect("Reset")
          endSession(this.server, pid)
        })
      )
      return {
        serverVersion: this.server.serverVersion,
        slices: portableText,
        query: (text: string) => this.query(text, pid),
        copyBoth: (command: string) => this.copyBoth(command, pid, scope)
      }
    }
  )

  private closedDoor(): ReplicationError | undefined {
    if (this.server.state === "down") return new ConnectionError({ reason: "Refused", detail: "nobody listens" })
    if (this.server.state === "stopping") {
      return serverError({ ...refusal("57P03", "the database system is shutting down"), severity: "FATAL" }, "Connect")
    }
    if (this.refusal === undefined || this.refusal.left <= 0) return undefined
    this.refusal.left--
    return this.refusal.error
  }

  private readonly query = Effect.fnUntraced({ self: this }, function* (text: string, pid: number): Effect.fn.Return<
    ReadonlyArray<QueryRow>,
    ReplicationError
  > {
    const waitsFor = /^DROP_REPLICATION_SLOT "([^"]+)" WAIT$/.exec(text)?.[1]
    if (waitsFor !== undefined) {
      yield* this.until(() => this.server.slots.get(waitsFor)?.activePid === undefined)
    }
    const answered = yield* this.change(() => {
      this.queries.push(text)
      return this.server.state === "down" ? undefined : answer(this.server, text, pid)
    })
    if (answered === undefined) return yield* closed()
    return "sqlState" in answered ? yield* serverError(answered, "Query") : answered
  })

  private readonly copyBoth = Effect.fnUntraced(
    { self: this },
    function* (command: string, pid: number, scope: Scope.Scope): Effect.fn.Return<CopyBoth, ReplicationError> {
      const wire = new Wire(this.network)
      const session = yield* this.change((now) => {
        this.queries.push(command)
        return this.startSession(command, pid, wire, now)
      })
      if (session === undefined) return { pull: wire.pull, send: () => Effect.void }
      yield* Effect.forkIn(this.watch(session), scope)
      return {
        pull: wire.pull,
        send: (bytes) =>
          Effect.flatMap(
            this.change((now) => (session.isEnded ? closed() : session.receive(bytes, now))),
            (failure) => (failure === undefined ? Effect.void : Effect.fail(failure))
          )
      }
    }
  )

  /** A stream, or its refusal as the bytes of an error. */
  private startSession(command: string, pid: number, wire: Wire, now: number): TestSession | undefined {
    const started = readStart(this.server, command)
    if ("sqlState" in started) {
      wire.push(concat([BackendMessage.errorResponse(started), BackendMessage.readyForQuery]), now)
      return undefined
    }
    started.slot.activePid = pid
    const session = new TestSession({
      server: this.server,
      wire,
      started,
      now,
      onStatus: (status) => this.statuses.push(status)
    })
    this.sessions.set(pid, session)
    return session
  }

  /** The walsender's own clockwork, for as long as it streams. */
  private readonly watch = Effect.fnUntraced({ self: this }, function* (session: TestSession) {
    while (!session.isEnded) {
      const millis = session.nextWatch(yield* Clock.currentTimeMillis)
      if (millis === undefined) return
      yield* Effect.sleep(millis)
      yield* this.change((now) => session.watch(now))
    }
  })
}
