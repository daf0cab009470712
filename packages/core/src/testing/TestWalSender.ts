/**
 * A PostgreSQL in memory, as far as a logical-replication client sees one: it provides `WalSender`, and a test tells it
 * what was committed and what goes wrong. Its bytes go through the real decoders and the real stream.
 *
 * It keeps its slot as a server does, so that what was not confirmed comes again on the next connection. Every delay is
 * the `Clock`'s: on a `TestClock` nothing takes time.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import { WalSender } from "../server/WalSender.ts"
import { TestConnections, terminated } from "./TestConnections.ts"
import { strangerPid, type TestServerOptions, type TestSlot } from "./TestServer.ts"
import type { StatusUpdate } from "./TestSession.ts"
import type { TestEntry } from "./TestTransaction.ts"
import { decidingLsn, type WrittenMessage, type WrittenOf, type WrittenTransaction } from "./TestWal.ts"

/** The server in a test's hand. Controls of a slot are about the one in its options. */
export interface TestWalSenderShape {
  /**
   * Writes WAL, and sends it to who streams. Gives where each entry lies. Transactions written together have adjacent
   * commit records, the hardest case for who acknowledges them.
   */
  readonly write: <const Entries extends ReadonlyArray<TestEntry>>(
    ...entries: Entries
  ) => Effect.Effect<{ readonly [Index in keyof Entries]: WrittenOf<Entries[Index]> }>
  /** Wants a status update now, as a server does that is about to stop or has not heard of its client. */
  readonly demandStatus: Effect.Effect<void>

  /** Breaks every connection that streams or copies. What the client has not read is lost. */
  readonly drop: Effect.Effect<void>
  /**
   * Breaks the connection behind so many more bytes of a copy stream, which arrive. Without a stream, of the next one,
   * CopyBothResponse included.
   */
  readonly dropAfter: (bytes: number) => Effect.Effect<void>
  /**
   * Breaks the connection of a copy behind so many more rows, of all copies together, which arrive. Without a copy, of the
   * next one: a snapshot is taken up again, or begins anew.
   */
  readonly breakCopyAfter: (rows: number) => Effect.Effect<void>
  /** How long bytes are under way to the client from now on. */
  readonly delay: (duration: Duration.Input) => Effect.Effect<void>
  /** Refuses connections with this error: the next one, or `times` of them. */
  readonly refuse: (error: ReplicationError, times?: number) => Effect.Effect<void>

  /**
   * Stops as `pg_ctl stop -m fast`: every stream ends once its client has confirmed all, or received all if it has never
   * confirmed anything; meanwhile nobody gets in.
   */
  readonly stop: Effect.Effect<void>
  /** Dies: connections break, and slots are as of the last {@link checkpoint}. */
  readonly crash: Effect.Effect<void>
  /** Takes connections again. */
  readonly start: Effect.Effect<void>
  /** Makes what the slots have confirmed outlast a crash. */
  readonly checkpoint: Effect.Effect<void>

  /** Ends every ordinary session, as `pg_terminate_backend` would: a lease is lost, and the stream stands. */
  readonly endSessions: Effect.Effect<void>

  /** Another consumer, known to the test alone, takes the slot: ours is disconnected, and finds it in use. */
  readonly occupySlot: Effect.Effect<void>
  /** That consumer leaves. */
  readonly freeSlot: Effect.Effect<void>
  /** Gives the slot up, for `wal_removed` unless told otherwise, and ends who streams from it. */
  readonly invalidateSlot: (reason?: string) => Effect.Effect<void>

  /** The slot as it is now; `undefined` when there is none. */
  readonly slot: Effect.Effect<Readonly<TestSlot> | undefined>
  /** What the slot has confirmed; `0/0` when there is none. */
  readonly confirmedFlushLsn: Effect.Effect<Lsn.Lsn>
  /** The transactions and messages that would be sent again: not confirmed, in order, published or not. */
  readonly unconfirmed: Effect.Effect<ReadonlyArray<WrittenTransaction | WrittenMessage>>
  /** Every status update of every connection. */
  readonly statusUpdates: Effect.Effect<ReadonlyArray<StatusUpdate>>
  /** Every query and command of every connection. */
  readonly queries: Effect.Effect<ReadonlyArray<string>>
  /** How many connections were tried, refused ones too. */
  readonly attempts: Effect.Effect<number>
  /** Waits until the break has come that {@link dropAfter} or {@link breakCopyAfter} asked for. */
  readonly awaitBroken: Effect.Effect<void>
  /** Waits until somebody streams from the slot. */
  readonly awaitStreaming: Effect.Effect<void>
  /** Waits until all that is written now is confirmed. Moves no clock: adjust it first. */
  readonly awaitConfirmed: Effect.Effect<void>
}

const fromConnections = (connections: TestConnections): TestWalSenderShape => {
  const { network, server } = connections
  /** Ends the streams of the slot, by an administrator's hand. */
  const terminate = (slot: TestSlot, now: number) => {
    for (const session of connections.streaming) if (session.slot === slot) session.fail(terminated, now)
  }
  const confirmed = () => connections.slot?.confirmedFlushLsn ?? Lsn.zero
  const missing = () => new TypeError(`there is no slot "${server.options.slot}"`)
  const changeSlot = (change: (slot: TestSlot, now: number) => void): Effect.Effect<void> =>
    connections.change((now) => {
      const { slot } = connections
      if (slot === undefined) throw missing()
      change(slot, now)
    })
  return {
    write: <const Entries extends ReadonlyArray<TestEntry>>(...entries: Entries) =>
      connections.change((now) => {
        const written = server.write(entries, PgTimestamp.fromMillis(now))
        connections.advance(now)
        return written as unknown as { readonly [Index in keyof Entries]: WrittenOf<Entries[Index]> }
      }),
    demandStatus: connections.change((now) => {
      for (const session of connections.streaming) session.keepAlive(now, "demand")
    }),
    drop: connections.change(() => connections.breakOff("busy")),
    dropAfter: (bytes) =>
      connections.change(() => {
        network.bytesLeft = bytes
      }),
    breakCopyAfter: (rows) =>
      connections.change(() => {
        network.copyRowsLeft = rows
      }),
    delay: (duration) =>
      connections.change(() => {
        network.delay = Duration.toMillis(Duration.fromInputUnsafe(duration))
      }),
    refuse: (error, times = 1) => connections.change(() => connections.refuse(error, times)),
    stop: connections.change((now) => {
      if (server.state !== "running") return
      server.state = "stopping"
      connections.advance(now)
    }),
    crash: connections.change(() => {
      server.state = "down"
      connections.breakOff("all")
      server.recover()
    }),
    start: connections.change(() => {
      server.state = "running"
    }),
    checkpoint: connections.change(() => server.checkpoint()),
    endSessions: connections.change(() => connections.endSessions()),
    occupySlot: changeSlot((slot, now) => {
      terminate(slot, now)
      slot.activePid = strangerPid
    }),
    freeSlot: changeSlot((slot) => {
      if (slot.activePid === strangerPid) slot.activePid = undefined
    }),
    invalidateSlot: (reason = "wal_removed") =>
      changeSlot((slot, now) => {
        terminate(slot, now)
        slot.invalidationReason = reason
      }),
    slot: connections.change(() => connections.slot && { ...connections.slot }),
    confirmedFlushLsn: connections.change(confirmed),
    unconfirmed: connections.change(() =>
      server.wal.entries.filter(
        (entry): entry is WrittenTransaction | WrittenMessage =>
          entry._tag !== "Unpublished" && decidingLsn(entry) >= confirmed()
      )
    ),
    statusUpdates: connections.change(() => [...connections.statuses]),
    queries: connections.change(() => [...connections.queries]),
    attempts: connections.change(() => connections.attempts),
    awaitBroken: connections.until(() => network.bytesLeft === undefined && network.copyRowsLeft === undefined),
    awaitStreaming: connections.until(() => connections.streaming.some(({ slot }) => slot === connections.slot)),
    awaitConfirmed: Effect.flatMap(
      connections.change(() => server.wal.end),
      (end) => connections.until(() => confirmed() >= end)
    )
  }
}

/**
 * A PostgreSQL in memory.
 *
 * @example
 * it.effect("stores what was committed", () =>
 *   Effect.gen(function*() {
 *     const server = yield* TestWalSender
 *     yield* Effect.forkChild(followOrders)
 *     yield* server.write(tx(insert(Orders, { id: 1, total: "9.50" })))
 *     yield* TestClock.adjust("1 second")
 *     yield* server.awaitConfirmed
 *   }).pipe(Effect.provide(TestWalSender.layer({ slot: "orders", publications: ["orders"] })))
 * )
 */
export class TestWalSender extends Context.Service<TestWalSender, TestWalSenderShape>()(
  "@replicant/core/testing/TestWalSender"
) {
  /** A server of its own, and `WalSender` to reach it. */
  static readonly layer = (options: TestServerOptions): Layer.Layer<TestWalSender | WalSender> =>
    Layer.unwrap(
      Effect.sync(() => {
        const connections = new TestConnections(options)
        return Layer.merge(
          Layer.succeed(TestWalSender, fromConnections(connections)),
          Layer.succeed(WalSender, WalSender.of({ connect: connections.connect, openSession: connections.openSession }))
        )
      })
    )
}
