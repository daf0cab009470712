/**
 * Whether so much fails that it cannot be the changes' fault: a dependency that is down, and answers as if it were. Then nothing more is
 * given up until what fails is handled.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Metrics from "../replication/Metrics.ts"
import { CurrentParking } from "../replication/Parking.ts"

/** How many letters in how long a time are more than changes can be at fault for. */
export interface BreakerOptions {
  readonly letters: number
  readonly within: Duration.Input
}

const usual: BreakerOptions = { letters: 100, within: "1 minute" }

export class Breaker {
  /** When the last letters were written, in milliseconds of the clock. */
  private times: Array<number> = []
  private held = false
  private readonly letters: number
  private readonly within: number

  constructor({ letters, within }: BreakerOptions = usual) {
    this.letters = letters
    this.within = Duration.toMillis(Duration.fromInputUnsafe(within))
  }

  /** Nothing is given up now. */
  readonly isOpen = (): boolean => this.held

  /** A letter was written for a change that failed. */
  readonly parked = Effect.gen({ self: this }, function* () {
    const now = yield* Clock.currentTimeMillis
    this.times.push(now)
    while (this.times[0]! < now - this.within) this.times.shift()
    if (this.held || this.times.length < this.letters) return
    this.held = true
    ;(yield* CurrentParking).stoppedSince = now
    yield* Metric.update(Metrics.parkingStopped, 1)
    const found = `${this.letters} changes were parked within ${this.within} ms`
    yield* Effect.logError(`${found}: that is taken for an outage, and no more are until what fails now is handled`)
  })

  /** What was held back is handled. Others prove nothing: they may ask nobody. */
  readonly handled = Effect.suspend(() => {
    if (!this.held) return Effect.void
    this.held = false
    this.times = []
    return Effect.gen(function* () {
      ;(yield* CurrentParking).stoppedSince = undefined
      yield* Metric.update(Metrics.parkingStopped, 0)
      yield* Effect.logInfo("changes are parked again")
    })
  })
}
