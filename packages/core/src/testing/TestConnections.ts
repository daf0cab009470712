/**
 * Who is connected to the test's server, by which way, and who is turned away: `WalSender.connect`, and what every change of
 * the server must do: wake those who wait for it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as PgTimestamp from "../PgTimestamp.ts"
import { concat } from "../pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { portableText } from "../protocol/ByteReader.ts"
import { ConnectionError, type ReplicationError } from "../ReplicationError.ts"
import { serverError } from "../refineServerError.ts"
import type { CopyBoth, QueryRow, ReplicantConnection, SqlSession } from "../server/WalSender.ts"
import { readStart } from "./StartReplication.ts"
import { TestBackend } from "./TestBackend.ts"
import { refusal } from "./TestCatalog.ts"
import { TestQuerySession } from "./TestQuerySession.ts"
import { TestServer, type TestServerOptions, type TestSlot } from "./TestServer.ts"
import { type StatusUpdate, TestSession } from "./TestSession.ts"
import { type Network, Wire } from "./Wire.ts"

/** A wait for an advisory lock, and the question behind it: as far as Replicant asks so. */
const lockWait = (text: string): { readonly key: string; readonly then: string } | undefined => {
  const [, key, then] =
    /^DO .*pg_advisory_lock\(pg_catalog\.hashtextextended\('([^']+)'.* END \$\$; (.+)$/s.exec(text) ?? []
  return key === undefined || then === undefined ? undefined : { key, then }
}

/** Whose walsender is to be ended to have its slot. */
const terminates = (text: string): number | undefined => {
  const pid = /^SELECT pg_catalog\.pg_terminate_backend\(s\.active_pid\).* s\.active_pid = (\d+)$/s.exec(text)?.[1]
  return pid === undefined ? undefined : Number(pid)
}

/** What a process is told that an administrator ends. */
export const terminated = {
  ...refusal("57P01", "terminating connection due to administrator command"),
  severity: "FATAL"
}

const closed = () => new ConnectionError({ reason: "Closed", detail: "the server closed the connection" })

export class TestConnections {
  readonly server: TestServer
  readonly network: Network
  readonly statuses: Array<StatusUpdate> = []
  readonly queries: Array<string> = []
  attempts = 0
  /** By the pid of their connection. */
  private readonly sessions = new Map<number, TestSession>()
  /** Those that copy, by the same. */
  private readonly readers = new Map<number, TestQuerySession>()
  private readonly backends = new Set<TestBackend>()
  private refusal: { readonly error: ReplicationError; left: number } | undefined
  private readonly waiting = new Set<() => void>()

  constructor(options: TestServerOptions) {
    this.server = new TestServer(options)
    const { maxReadBytes = 65_536 } = options
    this.network = { delay: 0, bytesLeft: undefined, copyRowsLeft: undefined, maxReadBytes }
  }

  /** The slot that the test's controls are about. */
  get slot(): TestSlot | undefined {
    return this.server.slots.get(this.server.options.slot)
  }

  get streaming(): ReadonlyArray<TestSession> {
    return [...this.sessions.values()].filter(({ isEnded }) => !isEnded)
  }

  /** Ends the walsender of that pid, by an administrator's hand. */
  private endWalSender(pid: number, now: number): ReadonlyArray<QueryRow> {
    const session = this.sessions.get(pid)
    if (session === undefined || session.isEnded) return []
    session.fail(terminated, now)
    return [{ pg_terminate_backend: "t" }]
  }

  /** Ends every ordinary session, by an administrator's hand. */
  endSessions(): void {
    for (const backend of this.backends) if (backend.kind === "sql") backend.break()
  }

  /** Breaks off every connection that streams or copies; or `all` there are. */
  breakOff(which: "busy" | "all"): void {
    for (const session of [...this.streaming, ...this.readers.values()]) session.disconnect("Reset")
    if (which === "all") for (const backend of this.backends) backend.break()
  }

  /** Sends what has been written to who streams. */
  advance(now: number): void {
    for (const session of this.streaming) session.advance(now)
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

  /** An ordinary session. */
  get openSession(): Effect.Effect<SqlSession, ReplicationError, Scope.Scope> {
    return Effect.map(this.open("sql"), ({ query, serverVersion }) => ({ query, serverVersion }))
  }

  /** A walsender's. */
  get connect(): Effect.Effect<ReplicantConnection, ReplicationError, Scope.Scope> {
    return this.open("replication")
  }

  /** Opens a connection, or says why nobody gets in. */
  private readonly open = Effect.fnUntraced({ self: this }, function* (kind: TestBackend["kind"]): Effect.fn.Return<
    ReplicantConnection,
    ReplicationError,
    Scope.Scope
  > {
    const refused = yield* this.change(() => {
      this.attempts++
      return this.closedDoor()
    })
    if (refused !== undefined) return yield* Effect.fail(refused)
    const scope = yield* Scope.Scope
    const backend = new TestBackend(this.server, kind)
    const { pid } = backend
    this.backends.add(backend)
    // With the connection, as a socket closes: what it said goodbye with before that has come.
    yield* Effect.addFinalizer(() =>
      this.change(() => {
        this.sessions.get(pid)?.disconnect("Reset")
        this.readers.get(pid)?.disconnect("Reset")
        this.readers.delete(pid)
        this.backends.delete(backend)
        backend.end()
      })
    )
    return {
      serverVersion: this.server.serverVersion,
      slices: portableText,
      query: (text: string) => Effect.tap(this.query(text, backend), () => this.awaitIdleness(backend, scope)),
      copyBoth: (command: string) =>
        command.startsWith("START_REPLICATION ") ? this.stream(command, pid, scope) : this.read(command, backend)
    }
  })

  private closedDoor(): ReplicationError | undefined {
    if (this.server.state === "down") return new ConnectionError({ reason: "Refused", detail: "nobody listens" })
    if (this.server.state === "stopping") {
      return serverError({ ...refusal("57P03", "the database system is shutting down"), severity: "FATAL" }, "Connect")
    }
    if (this.refusal === undefined || this.refusal.left <= 0) return undefined
    this.refusal.left--
    return this.refusal.error
  }

  private readonly query = Effect.fnUntraced(
    { self: this },
    function* (text: string, backend: TestBackend): Effect.fn.Return<ReadonlyArray<QueryRow>, ReplicationError> {
      backend.asked++
      backend.isIdle = false
      const wait = lockWait(text)
      if (wait !== undefined) {
        const isOver = () => backend.isBroken || this.server.isLockFree(wait.key, backend.pid)
        yield* Effect.timeoutOption(this.until(isOver), backend.lockTimeout)
      }
      const waitsFor = /^DROP_REPLICATION_SLOT "([^"]+)" WAIT$/.exec(text)?.[1]
      if (waitsFor !== undefined) {
        yield* this.until(() => this.server.slots.get(waitsFor)?.activePid === undefined)
      }
      const answered = yield* this.change((now) => {
        this.queries.push(text)
        if (this.server.state === "down" || backend.isBroken) return undefined
        backend.isIdle = true
        const terminated = terminates(text)
        if (terminated !== undefined) return this.endWalSender(terminated, now)
        const rows = backend.run(wait?.then ?? text, PgTimestamp.fromMillis(now))
        this.advance(now)
        return rows
      })
      if (answered === undefined) return yield* closed()
      return "sqlState" in answered ? yield* serverError(answered, "Query") : answered
    }
  )

  /** Ends a session that has been idle for as long as it was told that it may be. */
  private awaitIdleness(backend: TestBackend, scope: Scope.Scope): Effect.Effect<void> {
    const { asked, idleTimeout } = backend
    if (idleTimeout === 0) return Effect.void
    const end = this.change(() => {
      if (backend.asked === asked && backend.isIdle) backend.break()
    })
    return Effect.asVoid(Effect.forkIn(Effect.delay(end, idleTimeout), scope))
  }

  /** Rows of COPY, and other answers, as bytes. */
  private read(command: string, backend: TestBackend): Effect.Effect<CopyBoth> {
    const wire = new Wire(this.network)
    const { network } = this
    const session = new TestQuerySession({ backend, wire, network, onQuery: (text) => this.queries.push(text) })
    this.readers.set(backend.pid, session)
    const told = (tell: (now: number) => void) =>
      this.change((now) => {
        tell(now)
        this.advance(now)
      })
    const copy: CopyBoth = {
      pull: wire.pull,
      // As of a socket: what has broken is told to who reads.
      send: (bytes) => told((now) => session.receive(bytes, now))
    }
    return Effect.as(
      told((now) => {
        if (this.server.state === "down" || backend.isBroken) session.disconnect("Closed")
        else session.ask(command, now)
      }),
      copy
    )
  }

  private readonly stream = Effect.fnUntraced(
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
