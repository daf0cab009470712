/**
 * The laws that a sink must keep, as a kit for whoever writes one: each law is an effect that fails with {@link LawBroken}, run
 * against a real engine. Laws for which the engine cannot be brought into the state that they are of say so by `needs`.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { errorId } from "../ErrorForm.ts"
import * as Lsn from "../Lsn.ts"
import type { Message } from "../sink/Message.ts"
import * as Place from "../sink/Place.ts"
import type { SinkShape, SinkWriter } from "../sink/Sink.ts"

/** A law does not hold. */
export class LawBroken extends Schema.TaggedError<LawBroken>(errorId("LawBroken"))("LawBroken", {
  law: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.law}: ${this.problem}`
  }
}

/** A sink and its engine, new and empty for each law. */
export interface Subject<E = unknown> {
  /** The sink as another process has it: nothing that is in memory is shared. */
  readonly connect: Effect.Effect<SinkShape, E, Scope.Scope>
  /** The places of what is stored, in the order in which readers see it. */
  readonly read: Effect.Effect<ReadonlyArray<string>, E>
  /** The engine is killed, and started again. */
  readonly restart?: Effect.Effect<void, E> | undefined
  /** The engine takes nothing and answers nothing, until `resume`. */
  readonly stop?: Effect.Effect<void, E> | undefined
  readonly resume?: Effect.Effect<void, E> | undefined
  /** The engine has no room, until `empty`. */
  readonly fill?: Effect.Effect<void, E> | undefined
  readonly empty?: Effect.Effect<void, E> | undefined
  /** The engine goes back to its first so many messages. */
  readonly loseTail?: ((kept: number) => Effect.Effect<void, E>) | undefined
}

/** One law. */
export interface Law {
  readonly name: string
  /** What the subject must be able to do. */
  readonly needs: ReadonlyArray<Exclude<keyof Subject, "connect" | "read">>
  readonly holds: <E>(subject: Subject<E>) => Effect.Effect<void, LawBroken | E | Error, Scope.Scope>
}

/** The `n`-th message: three to a transaction. */
const message = (n: number): Message => ({
  id: Place.within(Lsn.make(0x1_0000n + BigInt(Math.floor(n / 3)) * 8n)!, n % 3),
  systemId: "7000000000000000001",
  op: "c",
  to: "laws",
  key: `["${n}"]`,
  value: `{"op":"c","key":{"n":${n}},"after":{"n":${n}},"before":null}`
})

const messages = (from: number, to: number): NonEmptyReadonlyArray<Message> =>
  Array.from({ length: to - from + 1 }, (_, index) => message(from + index)) as never

const ids = (from: number, to: number): ReadonlyArray<string> => messages(from, to).map(({ id }) => id)

const tell = (places: ReadonlyArray<string>): string =>
  places.length > 12 ? `${places.length} messages from ${places[0]} to ${places.at(-1)}` : `[${places.join(" ")}]`

/** Gives each law its name, and a way to break. */
const law = (
  name: string,
  needs: Law["needs"],
  body: (
    subject: Subject<never>,
    expect: {
      readonly that: (holds: boolean, problem: string) => Effect.Effect<void, LawBroken>
      readonly stored: (expected: ReadonlyArray<string>) => Effect.Effect<void, LawBroken>
      readonly marked: (writer: SinkWriter, expected: string | undefined) => Effect.Effect<void, LawBroken>
    }
  ) => Effect.Effect<void, LawBroken | Error, Scope.Scope>
): Law => ({
  name,
  needs,
  holds: (subject) => {
    const that = (holds: boolean, problem: string) =>
      holds ? Effect.void : Effect.fail(new LawBroken({ law: name, problem }))
    const same = (left: ReadonlyArray<string>, right: ReadonlyArray<string>) =>
      left.length === right.length && left.every((place, index) => place === right[index])
    const expect = {
      that,
      stored: (expected: ReadonlyArray<string>) =>
        Effect.flatMap((subject as Subject<never>).read, (found) =>
          that(same(found, expected), `stored is ${tell(found)} instead of ${tell(expected)}`)
        ),
      marked: ({ mark }: SinkWriter, expected: string | undefined) => {
        const found = Option.getOrUndefined(mark)?.id
        return that(found === expected, `the mark is ${found ?? "none"} instead of ${expected ?? "none"}`)
      }
    }
    return body(subject as Subject<never>, expect)
  }
})

/** Another process opens the sink. */
const open = (subject: Subject<never>) => Effect.flatMap(subject.connect, (sink) => sink.open())

/** Whole numbers below a limit, the same in each run. */
const numbers = (seed: number) => {
  let state = seed
  return (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((state / 0x1_0000_0000) * limit)
  }
}

/** All laws. */
export const laws: ReadonlyArray<Law> = [
  law("the mark is what was appended last", [], (subject, expect) =>
    Effect.gen(function* () {
      const first = yield* open(subject)
      yield* expect.marked(first, undefined)
      yield* first.append(messages(0, 2))
      yield* first.append(messages(3, 3))
      yield* expect.stored(ids(0, 3))
      yield* expect.marked(yield* open(subject), message(3).id)
    })
  ),
  law("of appends under way one that is refused takes all later ones with it", ["fill", "empty"], (subject, expect) =>
    Effect.gen(function* () {
      const writer = yield* open(subject)
      yield* writer.append(messages(0, 2))
      yield* subject.fill!
      const refused = [messages(3, 5), messages(6, 8)].map((batch) => writer.append(batch))
      const exits = yield* Effect.all(refused.map(Effect.exit), { concurrency: "unbounded" })
      yield* subject.empty!
      const later = yield* Effect.exit(writer.append(messages(9, 11)))
      for (const [index, exit] of [...exits, later].entries())
        yield* expect.that(Exit.isFailure(exit), `append ${index + 2} was said to be stored`)
      yield* expect.stored(ids(0, 2))
      const again = yield* open(subject)
      yield* expect.marked(again, message(2).id)
      yield* again.append(messages(3, 11))
      yield* expect.stored(ids(0, 11))
    })
  ),
  law("a writer is refused once another has been opened", [], (subject, expect) =>
    Effect.gen(function* () {
      const zombie = yield* subject.connect
      const first = yield* zombie.open()
      yield* first.append(messages(0, 0))
      const second = yield* open(subject)
      yield* expect.marked(second, message(0).id)
      const refused = yield* Effect.flip(first.append(messages(1, 1))).pipe(
        Effect.catch(() => expect.that(false, "an append of the earlier one was stored"))
      )
      yield* expect.that(refused?._tag === "SinkFenced", `it failed with ${refused?._tag} instead of SinkFenced`)
      yield* second.append(messages(1, 2))
      const reopened = yield* Effect.exit(Effect.scoped(zombie.open(first.epoch)))
      yield* expect.that(Exit.isFailure(reopened), "the earlier one could take its place again")
      yield* second.append(messages(3, 3))
      yield* expect.stored(ids(0, 3))
    })
  ),
  law("an opening whose answer was lost shuts nobody out", [], (subject, expect) =>
    Effect.gen(function* () {
      const sink = yield* subject.connect
      const first = yield* sink.open()
      yield* first.append(messages(0, 0))
      yield* sink.open(first.epoch)
      // What became of the second is not known here: all that is, is the first.
      const third = yield* Effect.mapError(
        sink.open(first.epoch),
        (error) => new Error(`it is shut out: ${error.message}`)
      )
      yield* expect.marked(third, message(0).id)
      yield* third.append(messages(1, 1))
      yield* expect.stored(ids(0, 1))
    })
  ),
  law("an append that is cut off leaves a prefix of itself", [], (subject, expect) =>
    Effect.gen(function* () {
      for (let round = 0; round < 5; round++) {
        const before = (yield* subject.read).length
        yield* Effect.scoped(
          Effect.gen(function* () {
            const writer = yield* open(subject)
            const fiber = yield* Effect.forkChild(writer.append(messages(before, before + 499)), {
              startImmediately: true
            })
            yield* Effect.yieldNow
            yield* Fiber.interrupt(fiber)
          })
        )
        const writer = yield* open(subject)
        const stored = yield* subject.read
        yield* expect.stored(stored.length === 0 ? [] : ids(0, stored.length - 1))
        yield* expect.marked(writer, stored.at(-1))
        yield* expect.stored(stored)
      }
    })
  ),
  law("resent from its mark on, everything is there once and in order", [], (subject, expect) =>
    Effect.gen(function* () {
      const [count, next] = [400, numbers(1)]
      for (let from = 0, rounds = 0; from < count; rounds++) {
        yield* expect.that(rounds < 200, "it does not get on from its mark")
        yield* Effect.scoped(
          Effect.gen(function* () {
            const writer = yield* open(subject)
            const mark = Option.getOrUndefined(writer.mark)?.id
            from = mark === undefined ? 0 : messages(0, count).findIndex(({ id }) => id === mark) + 1
            const underWay: Array<Fiber.Fiber<void, unknown>> = []
            for (let batch = 0, until = next(8); batch <= until && from < count; batch++) {
              const to = Math.min(from + next(9), count - 1)
              const append = Effect.forkChild(writer.append(messages(from, to)), { startImmediately: true })
              underWay.push(yield* append)
              if (underWay.length >= writer.maxInFlight)
                yield* Fiber.await(underWay[underWay.length - writer.maxInFlight]!)
              from = to + 1
            }
            // Some of them end, the others are cut off.
            for (const fiber of underWay) yield* next(4) === 0 ? Fiber.interrupt(fiber) : Fiber.await(fiber)
          })
        )
        if (from >= count) from = Math.min(from, (yield* subject.read).length)
      }
      yield* expect.stored(ids(0, count - 1))
    })
  ),
  law("what is acknowledged outlives the engine's death", ["restart"], (subject, expect) =>
    Effect.gen(function* () {
      const writer = yield* open(subject)
      yield* writer.append(messages(0, 49))
      yield* subject.restart!
      yield* expect.stored(ids(0, 49))
      const again = yield* open(subject)
      yield* expect.marked(again, message(49).id)
      yield* again.append(messages(50, 50))
      yield* expect.stored(ids(0, 50))
    })
  ),
  law("an engine that is stuck has acknowledged nothing", ["stop", "resume"], (subject, expect) =>
    Effect.gen(function* () {
      const writer = yield* open(subject)
      yield* writer.append(messages(0, 0))
      yield* subject.stop!
      const fiber = yield* Effect.forkChild(Effect.exit(writer.append(messages(1, 1))), { startImmediately: true })
      for (let turn = 0; turn < 100; turn++) yield* Effect.yieldNow
      const early = fiber.pollUnsafe()
      yield* subject.resume!
      yield* expect.that(early === undefined, "an append ended while it was stuck")
      const exit = yield* Fiber.join(fiber)
      yield* expect.that(Exit.isSuccess(exit), "the append failed though the engine went on")
      yield* expect.stored(ids(0, 1))
    })
  ),
  law("an engine that has lost its tail does not hide it", ["loseTail"], (subject, expect) =>
    Effect.gen(function* () {
      const writer = yield* open(subject)
      yield* writer.append(messages(0, 4))
      yield* subject.loseTail!(2)
      yield* expect.stored(ids(0, 1))
      yield* expect.marked(yield* open(subject), message(1).id)
    })
  )
]

/** What came of one law. `undefined` where it holds; `"untried"` where the subject cannot be brought there. */
export type Verdicts = ReadonlyMap<string, LawBroken | "untried" | undefined>

/** Tries all laws, each on a subject of its own. */
export const check = <E, R>(
  make: Effect.Effect<Subject<E>, E, R | Scope.Scope>
): Effect.Effect<Verdicts, E | Error, Exclude<R, Scope.Scope>> =>
  Effect.map(
    Effect.forEach(laws, ({ holds, name, needs }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const subject = yield* make
          if (needs.some((need) => subject[need] === undefined)) return [name, "untried"] as const
          const broken = yield* Effect.match(holds(subject), {
            onSuccess: () => undefined,
            onFailure: (error) =>
              error instanceof LawBroken ? error : new LawBroken({ law: name, problem: `failed with ${error}` })
          })
          return [name, broken] as const
        })
      )
    ),
    (entries) => new Map<string, LawBroken | "untried" | undefined>(entries)
  ) as Effect.Effect<Verdicts, E | Error, Exclude<R, Scope.Scope>>
