/**
 * The laws that a store of dead letters must keep, as a kit for whoever writes one: each law is an effect that fails with
 * {@link LawBroken}, run against what really keeps the letters.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { DeadLetter, Letter, LetterName } from "../handling/Letter.ts"
import type { DeadLettersShape } from "../handling/LetterStore.ts"
import { encode } from "../handling/LetterText.ts"
import { LawBroken } from "./SinkLaws.ts"

/** A store, new and empty for each law. */
export interface Subject<E = unknown> {
  /** The store as another process has it: nothing that is in memory is shared. */
  readonly connect: Effect.Effect<DeadLettersShape, E, Scope.Scope>
  /** The store as one has it that decides about letters while the program runs. Left out, it is `connect`. */
  readonly decide?:
    | Effect.Effect<Pick<DeadLettersShape, "list" | "find" | "retry" | "drop">, E, Scope.Scope>
    | undefined
  /** What keeps the letters takes nothing any more, until `mend`. */
  readonly fail?: Effect.Effect<void, E> | undefined
  readonly mend?: Effect.Effect<void, E> | undefined
}

/** One law. */
export interface Law {
  readonly name: string
  /** What the subject must be able to do. */
  readonly needs: ReadonlyArray<"fail" | "mend">
  readonly holds: <E>(subject: Subject<E>) => Effect.Effect<void, LawBroken | E | Error, Scope.Scope>
}

interface Expect {
  readonly that: (holds: boolean, problem: string) => Effect.Effect<void, LawBroken>
  /** These letters, in this order, and no others. */
  readonly listed: (
    store: Pick<DeadLettersShape, "list">,
    expected: ReadonlyArray<Letter>
  ) => Effect.Effect<void, LawBroken | Error>
}

/** A change with whatever values there are, without a column that was not sent. */
const change = (n: number): unknown => ({
  _tag: "Update",
  row: {
    n,
    big: 9_007_199_254_740_993n,
    bytes: new Uint8Array([0, 255, 16]),
    none: new Uint8Array(0),
    float: Number.NaN,
    negative: -0,
    far: Number.NEGATIVE_INFINITY,
    at: new Date(86_400_000),
    numeric: "12345678901234567890.10",
    null: null,
    text: 'a\u0000"\\\n\u009b\ud83d\ude00',
    list: [[1n, null], []],
    $: "a member of that name",
    nested: { $: { $: 1 } }
  },
  unchanged: ["document"],
  old: undefined
})

/** The `n`-th change of the slot `laws`: of row `key`. */
export const letter = (n: number, key: string, more: Partial<DeadLetter> = {}): DeadLetter => ({
  slot: "laws",
  id: `${n.toString(16).toUpperCase().padStart(16, "0")}-00000000`,
  state: "failed",
  kind: "Update",
  table: '["public","t.\\"x"]',
  keys: [key],
  cause: { tag: "Refused", message: "it's no good: \u00e9\n" },
  attempts: 1,
  firstAt: 1_790_000_000_000 + n,
  lastAt: 1_790_000_000_000 + n,
  change: change(n),
  ...more
})

/** One that was not tried. */
const follower = (n: number, key: string): DeadLetter =>
  letter(n, key, { state: "waiting", cause: { tag: "Follows", message: "" }, attempts: 0 })

const headOf = ({ change: _, ...head }: DeadLetter): Letter => head

const textOf = (value: unknown): string => {
  const text = encode(value)
  return Result.isSuccess(text) ? text.success : "what has no form"
}

/** Members in one order. */
const canonical = (head: Letter): string =>
  textOf(Object.fromEntries(Object.entries(head).sort(([left], [right]) => (left < right ? -1 : 1))))

const tell = (letters: ReadonlyArray<Letter>): string =>
  letters.length > 6 ? `${letters.length} letters` : letters.map(canonical).join("\n")

const law = (
  name: string,
  needs: Law["needs"],
  body: (subject: Subject<never>, expect: Expect) => Effect.Effect<void, LawBroken | Error, Scope.Scope>
): Law => ({
  name,
  needs,
  holds: (subject) => {
    const that = (holds: boolean, problem: string) =>
      holds ? Effect.void : Effect.fail(new LawBroken({ law: name, problem }))
    return body(subject as Subject<never>, {
      that,
      listed: ({ list }, expected) =>
        Effect.flatMap(list, (found) => {
          const isSame =
            found.length === expected.length &&
            found.every((head, index) => canonical(head) === canonical(expected[index]!))
          return that(isSame, `kept is\n${tell(found)}\ninstead of\n${tell(expected)}`)
        })
    })
  }
})

const deciding = (subject: Subject<never>) => subject.decide ?? subject.connect

const same = (store: Pick<DeadLettersShape, "find">, expected: DeadLetter, { that }: Expect) =>
  Effect.flatMap(store.find(expected), (found) =>
    that(textOf(found?.change) === textOf(expected.change), `the change of ${expected.id} is another`)
  )

/** All laws. */
export const laws: ReadonlyArray<Law> = [
  law("what is parked outlives the process, whole and in the order of delivery", [], (subject, expect) =>
    Effect.gen(function* () {
      const letters = [letter(3, "a"), letter(1, "b"), follower(2, "b"), letter(4, "c", { table: undefined, keys: [] })]
      yield* Effect.scoped(
        Effect.gen(function* () {
          const store = yield* subject.connect
          for (const each of letters) yield* store.park(each)
        })
      )
      const again = yield* subject.connect
      const sorted = [letters[1]!, letters[2]!, letters[0]!, letters[3]!]
      yield* expect.listed(again, sorted.map(headOf))
      for (const each of letters) yield* same(again, each, expect)
      yield* expect.that((yield* again.find(letter(9, "a"))) === undefined, "a letter was found that was never parked")
    })
  ),
  law("a change that is parked again, as after a crash, is there once, and its attempts count", [], (subject, expect) =>
    Effect.gen(function* () {
      const first = letter(1, "a")
      yield* Effect.scoped(Effect.flatMap(subject.connect, ({ park }) => park(first)))
      const store = yield* subject.connect
      const again = letter(1, "a", { attempts: 2, firstAt: 1_800_000_000_000, lastAt: 1_800_000_000_000 })
      yield* store.park(again)
      const expected = { ...headOf(again), attempts: 3, firstAt: first.firstAt }
      yield* expect.listed(store, [expected])
      yield* store.park(follower(1, "a"))
      yield* expect.listed(store, [expected])
      yield* expect.listed(yield* subject.connect, [expected])
    })
  ),
  law("a row is held from its letter on, not before it, and in its slot alone", [], (subject, expect) =>
    Effect.gen(function* () {
      const parked = letter(5, "a", { keys: ["a", "b"] })
      yield* Effect.scoped(Effect.flatMap(subject.connect, ({ park }) => park(parked)))
      const store = yield* subject.connect
      const holds = (n: number, keys: ReadonlyArray<string>, held: boolean, more: Partial<LetterName> = {}) =>
        Effect.flatMap(store.holds(letter(n, "", more), keys), (isHeld) =>
          expect.that(isHeld === held, `${n} of ${keys} ${held ? "is not" : "is"} held`)
        )
      yield* holds(6, ["a"], true)
      yield* holds(6, ["z", "b"], true)
      yield* holds(5, ["a"], true)
      yield* holds(4, ["a"], false)
      yield* holds(6, ["A"], false)
      yield* holds(6, ["a "], false)
      yield* holds(6, [], false)
      yield* holds(6, ["a"], false, { slot: "Laws" })
      yield* store.handled(parked)
      yield* holds(6, ["a"], false)
    })
  ),
  law("whoever decides meanwhile is obeyed: what is marked is told, what is dropped is gone", [], (subject, expect) =>
    Effect.gen(function* () {
      const store = yield* subject.connect
      const letters = [letter(1, "a"), letter(2, "b"), letter(3, "c", { slot: "other" })]
      for (const each of letters) yield* store.park(each)
      const decides = yield* deciding(subject)
      yield* same(decides, letters[0]!, expect)
      const marked = yield* decides.retry([letters[0]!, letter(9, "a")])
      const dropped = yield* decides.drop([letters[1]!, letter(2, "b", { slot: "other" })])
      yield* expect.that(marked === 1 && dropped === 1, `${marked} were marked and ${dropped} dropped, not one each`)
      yield* store.refresh
      const kept = [{ ...headOf(letters[0]!), state: "marked" as const }, headOf(letters[2]!)]
      yield* expect.listed(store, kept)
      yield* expect.that(!(yield* store.holds(letter(9, "b"), ["b"])), "a row is held whose letter is dropped")
      yield* expect.listed(yield* subject.connect, kept)
    })
  ),
  law("what fails again stays, and what was dropped meanwhile is not written anew", [], (subject, expect) =>
    Effect.gen(function* () {
      const store = yield* subject.connect
      const [first, second] = [letter(1, "a"), letter(2, "b")]
      yield* store.park(first)
      yield* store.park(second)
      const decides = yield* deciding(subject)
      yield* decides.retry([first, second])
      yield* store.refresh
      yield* decides.drop([second])
      const cause = { tag: "Other", message: "" }
      const failed = (given: DeadLetter) => ({ ...headOf(given), attempts: 2, cause, lastAt: 1_900_000_000_000 })
      yield* store.failed(failed(first))
      yield* store.failed(failed(second))
      yield* store.refresh
      yield* expect.listed(store, [failed(first)])
      yield* same(store, first, expect)
      const again = yield* subject.connect
      yield* expect.listed(again, [failed(first)])
      yield* same(again, first, expect)
      yield* again.handled(first)
      yield* expect.listed(yield* subject.connect, [])
    })
  ),
  law("a row is held while its letter is tried, also where that is dropped meanwhile", [], (subject, expect) =>
    Effect.gen(function* () {
      const store = yield* subject.connect
      yield* store.park(letter(1, "a"))
      const decides = yield* deciding(subject)
      yield* store.whileTried(letter(1, "a"), () =>
        Effect.gen(function* () {
          yield* decides.drop([letter(1, "a")])
          yield* store.refresh
          yield* expect.that(yield* store.holds(letter(2, "a"), ["a"]), "it is let go amid its trial")
        })
      )
      yield* expect.that(!(yield* store.holds(letter(2, "a"), ["a"])), "it is held though nothing is there")
    })
  ),
  law(
    "letters by the thousand are marked and dropped at once, and the store is as it was without them",
    [],
    (subject, expect) =>
      Effect.gen(function* () {
        const store = yield* subject.connect
        const many = Array.from({ length: 1000 }, (_, n) => letter(n, `${n % 10}`, { change: { _tag: "Insert", n } }))
        for (const each of many) yield* store.park(each)
        const decides = yield* deciding(subject)
        yield* expect.that((yield* decides.retry(many)) === 1000, "not all are marked")
        yield* expect.that((yield* decides.drop(many.slice(1))) === 999, "not all are dropped")
        yield* store.refresh
        const left = [{ ...headOf(many[0]!), state: "marked" as const }]
        yield* expect.listed(store, left)
        const again = yield* subject.connect
        yield* expect.listed(again, left)
        yield* again.clear("0")
        yield* expect.listed(yield* subject.connect, [])
      })
  ),
  law(
    "a letter that cannot be stored is told, and is there once when it has been parked again",
    ["fail", "mend"],
    (subject, expect) =>
      Effect.gen(function* () {
        const store = yield* subject.connect
        yield* store.park(letter(1, "a"))
        yield* subject.fail!
        const exit = yield* Effect.exit(store.park(letter(2, "b")))
        yield* subject.mend!
        yield* expect.that(Exit.isFailure(exit), "it was said to be parked")
        yield* store.park(letter(2, "b"))
        const both = [headOf(letter(1, "a")), headOf(letter(2, "b"))]
        yield* expect.listed(store, both)
        yield* expect.listed(yield* subject.connect, both)
      })
  ),
  law("a change that no text can hold is refused by the name of its column, and by no value", [], (subject, expect) =>
    Effect.gen(function* () {
      const store = yield* subject.connect
      const row = { secret: new Map([["secret value", 1]]) }
      const exit = yield* Effect.flip(store.park(letter(1, "a", { change: { _tag: "Insert", row } }))).pipe(
        Effect.catch(() => Effect.undefined)
      )
      yield* expect.that(exit?.during === "encode" && !exit.isRetryable, "it was taken, or is to be tried again")
      yield* expect.that(exit?.message.includes("row.secret") === true, `nobody finds it: ${exit?.message}`)
      yield* expect.that(exit?.message.includes("secret value") !== true, "a value is told")
      yield* expect.listed(store, [])
    })
  )
]
