/**
 * Observes one stream: keeps what an observation needs beyond the moment (since when it is in its state, when all was last
 * done), looks once a second, and has the server asked where the stream cannot tell.
 *
 * The server is asked only while somebody looks, and while there is a connection to it: a program that reads neither metrics nor
 * health costs it nothing, and no connection is taken from a stream that is connecting.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { NextLsn } from "../change/NextLsn.ts"
import { millisOf } from "../MonotonicTime.ts"
import type { Consumers } from "../replication/Consumers.ts"
import { retried } from "../replication/Measures.ts"
import { makeParking, type Parking } from "../replication/Parking.ts"
import { askServer } from "../replication/ServerFacts.ts"
import { Vitals } from "../replication/Vitals.ts"
import * as WalProgress from "../replication/WalProgress.ts"
import { WalSender } from "../server/WalSender.ts"
import { isSnapshotError, type SnapshotError } from "../snapshot/SnapshotError.ts"
import { Series } from "./Gauges.ts"
import type { Handler } from "./Handler.ts"
import * as Health from "./Health.ts"
import type { Options } from "./LogicalStreamOptions.ts"
import {
  type Facts,
  isCaughtUp,
  isConnected,
  isFollowing,
  type Observation,
  observationOf,
  provenAt
} from "./Observation.ts"
import type { StreamState } from "./StreamState.ts"

/** How often it looks. */
const lookInterval = 1000

/** Who has looked so lately is still there: twice the longest usual interval of a scraper. */
const attention = 120_000

/** How long the server may take to answer. */
const askDeadline = 2000

/** While the stream follows, its own word is checked this often; milliseconds. */
const checkInterval = 10_000

/** An answer so fresh is not asked for again by who wants the truth now. */
const freshAnswer = 1000

export class Observer {
  readonly vitals = new Vitals()
  /** What the handler parks. */
  readonly parking: Parking
  /** To whom a handler that is a broadcast gives what comes. */
  readonly consumers: Consumers = new Map()
  private readonly options: Options
  private readonly clock: Clock.Clock
  private readonly readState: () => StreamState
  private readonly asking = Semaphore.makeUnsafe(1)
  private progress: WalProgress.WalProgressRef = Ref.makeUnsafe(WalProgress.initial())
  private systemId: string | undefined
  private walSender: WalSender["Service"] | undefined
  private series: Series | undefined
  private begunAt: number
  private stateTag: StreamState["_tag"] = "Idle"
  private stateSince: number
  private hasEnded = false
  private followedAt: number | undefined
  private caughtUpAt: number | undefined
  private lastFailure: Facts["lastFailure"]
  private lookedAt: number | undefined
  private askedAt: number | undefined
  private status: Health.Status = "ok"
  private okSince: number

  constructor(options: Options, clock: Clock.Clock, readState: () => StreamState) {
    this.options = options
    this.parking = makeParking(options.slot)
    this.clock = clock
    this.readState = readState
    this.begunAt = this.now()
    this.stateSince = this.begunAt
    this.okSince = clock.currentTimeMillisUnsafe()
  }

  private now(): number {
    return millisOf(this.clock)
  }

  /** The stream enters a state, or is in it still. */
  entered(state: StreamState): void {
    if (state._tag === "Streaming") this.systemId = state.systemId
    if (state._tag === this.stateTag) return
    // A copy that is done has moved its position.
    if (this.stateTag === "Copying" && state._tag !== "Reconnecting") this.vitals.attempts = 0
    this.stateTag = state._tag
    this.stateSince = this.now()
    if (state._tag === "Stopped") this.series?.settle()
  }

  /** Somebody acknowledges now. */
  acknowledging(): void {
    this.vitals.acknowledging(this.now())
  }

  /** A run begins, of which that is the progress. */
  begins(progress: WalProgress.WalProgressRef): void {
    this.progress = progress
    this.begunAt = this.now()
    this.hasEnded = false
    this.followedAt = undefined
    this.caughtUpAt = undefined
    this.lastFailure = undefined
    this.vitals.attempts = 0
  }

  /** It has come to its end, as a snapshot by itself does. */
  readonly ends: Effect.Effect<void> = Effect.sync(() => {
    this.hasEnded = true
  })

  /** It has failed. What a program's own failure says is not ours to tell: it may hold a row. */
  readonly fails = (error: unknown): Effect.Effect<void> =>
    Effect.sync(() => {
      this.lastFailure = isSnapshotError(error)
        ? { tag: error._tag, message: error.message, remedy: error.remedy, at: this.now() }
        : { tag: "HandlerFailed", message: "by a failure of the program's own", at: this.now() }
    })

  /** Another attempt follows, the n-th at its position. */
  retries(error: SnapshotError, attempt: number): Effect.Effect<void> {
    this.vitals.attempts = attempt
    return Effect.andThen(this.fails(error), retried(error))
  }

  private get facts(): Facts {
    const { begunAt, caughtUpAt, followedAt, hasEnded, lastFailure, stateSince, vitals } = this
    const progress = Ref.getUnsafe(this.progress)
    const at = this.clock.currentTimeMillisUnsafe()
    const memory = { begunAt, stateSince, hasEnded, followedAt, caughtUpAt, lastFailure }
    const { consumers, parking } = this
    const told = { vitals, parking, consumers, progress }
    return { slot: this.options.slot, now: this.now(), at, state: this.readState(), ...told, ...memory }
  }

  private healthOf(seen: Observation): Health.Health {
    const health = Health.of(seen, this.options.health, this.okSince)
    if (health.status === this.status) return health
    this.status = health.status
    if (health.status !== "ok") return health
    this.okSince = seen.at
    return { ...health, since: seen.at }
  }

  /** Somebody looks. */
  private look(): Observation {
    this.lookedAt = this.now()
    return observationOf(this.remember())
  }

  /** What can be known at this moment alone. */
  private remember(): Facts {
    const { facts } = this
    if (!isFollowing(facts)) return facts
    this.followedAt = provenAt(facts)
    if (isCaughtUp(facts)) this.caughtUpAt = this.followedAt
    return { ...facts, followedAt: this.followedAt, caughtUpAt: this.caughtUpAt }
  }

  /** How it is, as far as it is known without asking anybody. */
  readonly seen: Effect.Effect<Observation> = Effect.sync(() => this.look())

  /** How it is, the server asked where the stream itself cannot tell. */
  readonly observe: Effect.Effect<Observation> = Effect.andThen(
    Effect.suspend(() => this.ask(freshAnswer)),
    this.seen
  )

  readonly health: Effect.Effect<Health.Health> = Effect.sync(() => this.healthOf(this.look()))

  /** Asks, unless the last answer is younger than that. */
  private ask(milliseconds: number): Effect.Effect<void> {
    const question = Effect.suspend(() => {
      const { walSender } = this
      const { server } = this.vitals
      const isFresh = server !== undefined && this.now() - server.at < milliseconds
      if (walSender === undefined || isFresh || this.askInterval === 0 || !isConnected(this.readState())) {
        return Effect.void
      }
      this.askedAt = this.now()
      const asked = { slot: this.options.slot, systemId: this.systemId }
      return Effect.map(Effect.provideService(askServer(asked, askDeadline), WalSender, walSender), (found) => {
        if (found !== undefined && this.walSender === walSender) this.vitals.server = found
      })
    })
    return this.asking.withPermits(1)(question)
  }

  private get askInterval(): number {
    const { askInterval = "5 seconds" } = this.options.timing ?? {}
    return Duration.toMillis(Duration.fromInputUnsafe(askInterval))
  }

  /** Whether the stream cannot tell by itself how far the server's WAL goes, and was not told lately. */
  private isInDoubt(facts: Facts): boolean {
    const { liveAt, server } = facts.vitals
    const knownAt = Math.max(server?.at ?? 0, isFollowing(facts) ? (liveAt ?? 0) : 0)
    return facts.now - knownAt >= (isFollowing(facts) ? Math.max(checkInterval, this.askInterval) : this.askInterval)
  }

  /** What is to be done once a second; whether the server is to be asked. */
  private tick(): boolean {
    const facts = this.remember()
    this.series?.settle()
    const isLookedAt = this.lookedAt !== undefined && facts.now - this.lookedAt < attention
    const isDue = this.askedAt === undefined || facts.now - this.askedAt >= this.askInterval
    return isLookedAt && isDue && this.askInterval > 0 && isConnected(facts.state) && this.isInDoubt(facts)
  }

  /** Observes for as long as the scope lives; the series stay behind it, and tell of a stream that has stopped. */
  readonly running: Effect.Effect<void, never, WalSender | Scope.Scope> = Effect.gen({ self: this }, function* () {
    const context = yield* Effect.context<WalSender>()
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        this.walSender = Context.get(context, WalSender)
        this.series = new Series(context as Context.Context<never>, {
          vitals: this.vitals,
          read: () => {
            const seen = observationOf(this.remember())
            return { seen, health: this.healthOf(seen).status }
          },
          onLook: () => {
            this.lookedAt = this.now()
          }
        })
      }),
      () =>
        Effect.sync(() => {
          this.walSender = undefined
        })
    )
    yield* Effect.suspend(() => (this.tick() ? Effect.forkChild(this.ask(0)) : Effect.void)).pipe(
      Effect.andThen(Effect.sleep(lookInterval)),
      Effect.forever,
      Effect.forkScoped
    )
  })

  /** The same handler, with a note of when it is at something, and of what it has ended. */
  noted<C, E, R>(handler: Handler<C, E, R>): Handler<C, E, R> {
    const { vitals } = this
    const during = <A, F, S>(effect: Effect.Effect<A, F, S>): Effect.Effect<A, F, S> =>
      Effect.suspend(() => {
        vitals.handling(this.now())
        return Effect.onExit(effect, () => Effect.sync(() => vitals.ended(this.now())))
      })
    return {
      unfit: handler.unfit,
      make: (session) =>
        Effect.map(
          during(handler.make(session)),
          (consume) => (read) =>
            Effect.tap(during(consume(read)), () =>
              Effect.sync(() => {
                // Of a read that is cut short a part may have been left out.
                if (!session.isOver()) vitals.handledThrough(lastOf(read))
              })
            )
        )
    }
  }
}

/** The last unit of a read, as the stream hands it over; of rows there is none. */
const lastOf = (read: object) => ("last" in read ? (read as { readonly last?: NextLsn | undefined }).last : undefined)
