/** The kit of laws: a sink that keeps them passes, and mistakes that were planted are found. */
import { assert, describe, it } from "@effect/vitest"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Message } from "../../src/sink/Message.ts"
import type { SinkShape, SinkWriter } from "../../src/sink/Sink.ts"
import { type SinkError, SinkFull } from "../../src/sink/SinkError.ts"
import { type Append, MemoryEngine } from "../../src/sink/SinkMemory.ts"
import { SinkLaws } from "../../src/testing/index.ts"

const subjectOf = (
  engine: MemoryEngine,
  connect: () => SinkShape = () => engine.connect()
): SinkLaws.Subject<never> => ({
  connect: Effect.sync(connect),
  read: Effect.map(engine.messages, (messages) => messages.map(({ id }) => id)),
  restart: engine.restart,
  stop: engine.stop,
  resume: engine.resume,
  fill: engine.setFull(true),
  empty: engine.setFull(false),
  loseTail: engine.loseTail
})

/** The laws that a subject breaks. */
const broken = (make: () => SinkLaws.Subject<never>) =>
  Effect.map(SinkLaws.check(Effect.sync(make)), (verdicts) =>
    [...verdicts].flatMap(([law, verdict]) => (verdict === undefined ? [] : [law]))
  )

type Appending = SinkWriter["append"]

/** A sink whose writers are made otherwise. */
const altered = (engine: MemoryEngine, alter: (writer: SinkWriter) => SinkWriter) => (): SinkShape => {
  const sink = engine.connect()
  return { ...sink, open: (epoch) => Effect.map(sink.open(epoch), alter) }
}

/** An engine without the chain: whoever appends what is later than its last is let in. */
class HighWater extends MemoryEngine {
  protected override admit({ batch }: Append): SinkError | undefined {
    if (this.isFull) return new SinkFull({ sink: "high water", detail: "no room", remedy: "none" })
    const last = this.stored.at(-1)?.id ?? ""
    this.stored = [...this.stored, ...batch.filter(({ id }) => id > last)]
    return undefined
  }
}

/** An engine that knows its last few messages again, and nothing else. */
class Window extends MemoryEngine {
  protected override admit({ batch }: Append): SinkError | undefined {
    if (this.isFull) return new SinkFull({ sink: "window", detail: "no room", remedy: "none" })
    const known = new Set(this.stored.slice(-5).map(({ id }) => id))
    this.stored = [...this.stored, ...batch.filter(({ id }) => !known.has(id))]
    return undefined
  }
}

describe("the laws of sinks", () => {
  it.effect("hold of the sink in memory, every one of them tried", () =>
    Effect.gen(function* () {
      const verdicts = yield* SinkLaws.check(Effect.sync(() => subjectOf(new MemoryEngine())))
      assert.deepStrictEqual(
        [...verdicts.keys()],
        SinkLaws.laws.map(({ name }) => name)
      )
      for (const [law, verdict] of verdicts) assert.isUndefined(verdict, `${law}: ${verdict}`)
    })
  )

  it.effect("say which of them cannot be tried", () =>
    Effect.gen(function* () {
      const { connect, read } = subjectOf(new MemoryEngine())
      const verdicts = yield* SinkLaws.check(Effect.succeed({ connect, read }))
      const untried = [...verdicts].filter(([, verdict]) => verdict === "untried").map(([law]) => law)
      assert.lengthOf(untried, SinkLaws.laws.filter(({ needs }) => needs.length > 0).length)
    })
  )

  const planted: ReadonlyArray<readonly [mistake: string, law: RegExp, make: () => SinkLaws.Subject<never>]> = [
    [
      "an append that ends before the engine has answered",
      /stuck has acknowledged nothing/,
      () => {
        const engine = new MemoryEngine()
        const early = (append: Appending) => (batch: NonEmptyReadonlyArray<Message>) =>
          Effect.asVoid(Effect.forkDetach(append(batch), { startImmediately: true }))
        return subjectOf(
          engine,
          altered(engine, (writer) => ({ ...writer, append: early(writer.append) }))
        )
      }
    ],
    [
      "a refusal that is taken for `already there`",
      /one that is refused takes all later ones/,
      () => {
        const engine = new MemoryEngine()
        const blind = (append: Appending) => (batch: NonEmptyReadonlyArray<Message>) => Effect.ignore(append(batch))
        return subjectOf(
          engine,
          altered(engine, (writer) => ({ ...writer, append: blind(writer.append) as Appending }))
        )
      }
    ],
    [
      "a mark that is kept in the process",
      /the mark is what was appended last/,
      () => {
        const engine = new MemoryEngine()
        return subjectOf(engine, () => {
          const sink = engine.connect()
          let mark: SinkWriter["mark"] = Option.none()
          const noted = (append: Appending) => (batch: NonEmptyReadonlyArray<Message>) =>
            Effect.andThen(
              append(batch),
              Effect.sync(() => {
                mark = Option.some({ id: batch.at(-1)!.id })
              })
            )
          return {
            ...sink,
            open: (epoch) =>
              Effect.map(sink.open(epoch), (writer) => ({ ...writer, mark, append: noted(writer.append) }))
          }
        })
      }
    ],
    [
      "a window in which duplicates are known, and no mark",
      /everything is there once and in order/,
      () => {
        const engine = new Window()
        return subjectOf(
          engine,
          altered(engine, (writer) => ({ ...writer, mark: Option.none() }))
        )
      }
    ],
    [
      "an append that does not name its predecessor",
      /one that is refused takes all later ones/,
      () => {
        const engine = new HighWater()
        // What failed before is nothing to it: each append is by itself.
        const alone = (batch: NonEmptyReadonlyArray<Message>) =>
          Effect.flatMap(engine.connect().open(), (writer) => writer.append(batch))
        return subjectOf(
          engine,
          altered(engine, (writer) => ({ ...writer, append: alone as Appending }))
        )
      }
    ]
  ]
  for (const [mistake, law, make] of planted) {
    it.effect(`find ${mistake}`, () =>
      Effect.gen(function* () {
        const found = yield* broken(make)
        assert.isTrue(
          found.some((name) => law.test(name)),
          `${mistake}: found by ${found.join("; ") || "none"}`
        )
      })
    )
  }

  it.effect("are told with what was seen", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const law = SinkLaws.laws.find(({ name }) => name === "the mark is what was appended last")!
      const markless = altered(engine, (writer) => ({ ...writer, mark: Option.none() }))
      const exit = yield* Effect.exit(Effect.scoped(law.holds(subjectOf(engine, markless))))
      assert.isTrue(Exit.isFailure(exit))
      assert.match(String(Exit.isFailure(exit) && exit.cause), /the mark is none instead of 0000000000010008-00000000/)
    })
  )
})
