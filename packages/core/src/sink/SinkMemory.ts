/**
 * A sink in memory, for tests: an engine that keeps all laws, and that can be full, stuck, killed and robbed of its tail.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Message } from "./Message.ts"
import { Sink, type SinkShape, type SinkWriter } from "./Sink.ts"
import { type SinkError, SinkFenced, SinkFull, SinkUnavailable } from "./SinkError.ts"

const name = "a sink in memory"

/** Writers that took one another's place. */
const familyOf = (epoch: string): string => epoch.split(".")[0]!

/** One append as it comes to the engine. */
export interface Append {
  readonly epoch: string
  /** What it is to be put behind; `undefined` for the beginning. */
  readonly after: string | undefined
  readonly batch: NonEmptyReadonlyArray<Message>
}

/** What such an engine is to tests. */
export interface MemoryShape {
  /** What readers see. */
  readonly messages: Effect.Effect<ReadonlyArray<Message>>
  /** Without room until told otherwise. */
  readonly setFull: (isFull: boolean) => Effect.Effect<void>
  /** It takes nothing and answers nothing until `resume`. */
  readonly stop: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** It ends as by kill -9 and is there again, with what it has stored. */
  readonly restart: Effect.Effect<void>
  /** It goes back to its first so many messages, as one that is restored. */
  readonly loseTail: (kept: number) => Effect.Effect<void>
}

/** The engine behind {@link memory}. */
export class Memory extends Context.Service<Memory, MemoryShape>()("@replicant/core/MemorySink") {}

/** The engine: what is stored, and who may append. */
export class MemoryEngine implements MemoryShape {
  protected stored: ReadonlyArray<Message> = []
  protected isFull = false
  private epoch = "0.0"
  private opened = 0
  private life = 0
  private readonly running = Latch.makeUnsafe(true)

  readonly messages = Effect.sync(() => this.stored)
  readonly stop = Effect.sync(() => this.running.closeUnsafe())
  readonly resume = Effect.sync(() => this.running.openUnsafe())
  readonly restart = Effect.sync(() => void this.life++)
  readonly setFull = (isFull: boolean) =>
    Effect.sync(() => {
      this.isFull = isFull
    })
  readonly loseTail = (kept: number) =>
    Effect.sync(() => {
      this.stored = this.stored.slice(0, kept)
      this.life++
    })

  /** Stores an append, or says why not. All that is asked at once is answered in one step. */
  protected admit({ after, batch, epoch }: Append): SinkError | undefined {
    if (epoch !== this.epoch) return new SinkFenced({ sink: name, detail: `writer ${this.epoch} has been opened` })
    if (after !== this.stored.at(-1)?.id) return new SinkFenced({ sink: name, detail: "the predecessor is another" })
    if (this.isFull) return new SinkFull({ sink: name, detail: "no room", remedy: "call setFull(false)" })
    this.stored = [...this.stored, ...batch]
    return undefined
  }

  /** A process's connection to it. */
  connect(): SinkShape {
    return {
      name,
      open: (epoch) =>
        Effect.andThen(
          this.running.await,
          Effect.suspend(() =>
            epoch === undefined || familyOf(epoch) === familyOf(this.epoch)
              ? Effect.succeed(this.writer(epoch))
              : Effect.fail(new SinkFenced({ sink: name, detail: `writer ${this.epoch} has been opened` }))
          )
        )
    }
  }

  private writer(instead: string | undefined): SinkWriter {
    const { life } = this
    const number = ++this.opened
    const epoch = `${instead === undefined ? number : familyOf(instead)}.${number}`
    this.epoch = epoch
    const closed = (detail: string) => new SinkUnavailable({ sink: name, reason: "Closed", detail })
    const last = this.stored.at(-1)
    let tail = last?.id
    let hasFailed = false
    const append = (batch: NonEmptyReadonlyArray<Message>) =>
      Effect.suspend(() => {
        const one: Append = { epoch, after: tail, batch }
        tail = batch.at(-1)!.id
        // On its way: others may begin meanwhile.
        return Effect.andThen(
          Effect.andThen(Effect.yieldNow, this.running.await),
          Effect.suspend(() => {
            if (hasFailed) return Effect.fail(closed("an earlier append has failed"))
            const error = life === this.life ? this.admit(one) : closed("the engine was restarted")
            hasFailed = error !== undefined
            return error === undefined ? Effect.void : Effect.fail(error)
          })
        )
      })
    return { mark: Option.fromUndefinedOr(last), append, maxInFlight: 4, epoch }
  }
}

/**
 * A sink for tests, and what it holds.
 *
 * @example
 * const test = Effect.gen(function* () {
 *   const { messages } = yield* Sink.Memory
 *   yield* Sink.run({ slot: "orders", plugin }).pipe(Effect.forkScoped)
 *   return yield* messages
 * }).pipe(Effect.provide(Sink.memory))
 */
export const memory: Layer.Layer<Sink | Memory> = Layer.effectContext(
  Effect.sync(() => {
    const engine = new MemoryEngine()
    return Context.make(Sink, engine.connect()).pipe(Context.add(Memory, engine))
  })
)
