/**
 * Whether a copy is well. While its stream runs that is the stream's to say: a target that holds a write up shows there as a
 * handler that is stuck. Between two attempts there is no stream, and the copy itself brings nothing.
 */
import { Health, type Observation } from "@replicant/core/operations"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** What it is told by. */
export interface Facts {
  /** Milliseconds of Unix time. */
  readonly at: number
  readonly phase: "Idle" | "Running" | "Stopped"
  /** The stream's, while one runs. */
  readonly stream: Health.Health | undefined
  /** For how long there has been none. */
  readonly withoutSeconds: number
  /** Failures since an attempt has proved itself. */
  readonly failures: number
  readonly lastFailure: { readonly says: string; readonly agoSeconds: number } | undefined
}

const { attempts, notRun, notStreaming } = Health.defaultThresholds

/** What a stream cannot tell, since there is none or the next one does not know of the one before. */
const ownReasons = (facts: Facts): ReadonlyArray<Health.Reason> => {
  const { at, failures, lastFailure, phase, stream, withoutSeconds } = facts
  const after = lastFailure === undefined ? "" : `, after ${lastFailure.says}`
  const reason = (code: Health.Code, isFailing: boolean, forSeconds: number, says: string): Health.Reason => ({
    code,
    status: isFailing ? "failing" : "degraded",
    since: Math.round(at - forSeconds * 1000),
    says
  })
  if (phase === "Stopped") return [reason("Stopped", true, withoutSeconds, `the copy has stopped${after}`)]
  if (phase === "Idle") {
    return [reason("NotRun", withoutSeconds >= notRun.failing, withoutSeconds, "the copy has not been run")]
  }
  const reasons: Array<Health.Reason> = []
  if (stream === undefined) {
    const isFailing = withoutSeconds >= notStreaming.failing
    reasons.push(reason("NotStreaming", isFailing, withoutSeconds, `the copy begins, and brings nothing${after}`))
  }
  if (failures >= attempts.degraded) {
    const says = `attempts fail one after the other${after}`
    reasons.push(reason("NotGettingOn", failures >= attempts.failing, lastFailure?.agoSeconds ?? 0, says))
  }
  return reasons
}

/** The stream's health, and the copy's own reasons beside it. */
export const healthOf = (facts: Facts): Health.Health =>
  Health.fromReasons([...ownReasons(facts), ...(facts.stream?.reasons ?? [])], facts.stream?.since ?? facts.at)

const secondsBetween = (since: bigint, now: bigint): number => Number(now - since) / 1e9

/** An attempt that lasted this long has proved itself: the failures before it count no more. */
const proven = 30

/** What is asked of the stream. */
interface Observable {
  readonly health: Effect.Effect<Health.Health>
  readonly observe: Effect.Effect<Observation>
}

/** One copy, as it notes what becomes of it. */
export class CopyHealth {
  private readonly clock: Clock.Clock
  private phase: Facts["phase"] = "Idle"
  private stream: Observable | undefined
  private withoutSince: bigint
  private attemptSince = 0n
  private failures = 0
  private lastFailure: { readonly says: string; readonly at: bigint } | undefined

  constructor(clock: Clock.Clock) {
    this.clock = clock
    this.withoutSince = this.now()
  }

  private now(): bigint {
    return this.clock.monotonicTimeNanosUnsafe()
  }

  private get hasProved(): boolean {
    return secondsBetween(this.attemptSince, this.now()) >= proven
  }

  /** It is run, or has ended. */
  enters(phase: "Running" | "Stopped"): void {
    if (phase === "Running") {
      this.failures = 0
      this.lastFailure = undefined
    }
    this.phase = phase
    this.withoutSince = this.now()
  }

  /** An attempt begins. */
  begins(): void {
    this.attemptSince = this.now()
  }

  /** It has failed, and another may follow: whether it had proved itself, and the how many-th it is since one has. */
  fails(says: string): { readonly hasGotOn: boolean; readonly attempt: number } {
    const hasGotOn = this.hasProved
    this.failures = hasGotOn ? 1 : this.failures + 1
    this.lastFailure = { says, at: this.now() }
    return { hasGotOn, attempt: this.failures }
  }

  /** While that runs, its stream tells how it is. */
  during<A, E, R>(stream: Observable, run: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.stream = stream
      return Effect.ensuring(
        run,
        Effect.sync(() => {
          this.stream = undefined
          this.withoutSince = this.now()
        })
      )
    })
  }

  readonly observe: Effect.Effect<Observation | undefined> = Effect.suspend(
    (): Effect.Effect<Observation | undefined> => this.stream?.observe ?? Effect.undefined
  )

  readonly health: Effect.Effect<Health.Health> = Effect.gen({ self: this }, function* () {
    const stream = this.stream === undefined ? undefined : yield* this.stream.health
    const now = this.now()
    const { lastFailure, phase } = this
    return healthOf({
      at: this.clock.currentTimeMillisUnsafe(),
      phase,
      stream,
      withoutSeconds: secondsBetween(this.withoutSince, now),
      failures: stream !== undefined && this.hasProved ? 0 : this.failures,
      lastFailure:
        lastFailure === undefined
          ? undefined
          : { says: lastFailure.says, agoSeconds: secondsBetween(lastFailure.at, now) }
    })
  })
}
