/**
 * The store of dead letters as handlers and whoever decides about letters see it, over whatever keeps them. What rows have letters
 * is known here, and asked nowhere else.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import { type DeadLetter, type DeadLettersError, type Letter, type LetterName, nameText } from "./Letter.ts"
import { type Census, LetterBook } from "./LetterBook.ts"

/** What keeps letters: a file, a table. Each effect is durable when it has ended. */
export interface LetterStorage {
  /** All letters as they are now, whoever has changed them, without their changes. */
  readonly load: Effect.Effect<ReadonlyArray<Letter>, DeadLettersError>
  /** A letter's change; `undefined` where there is no such letter. */
  readonly read: (name: LetterName) => Effect.Effect<{ readonly change: unknown } | undefined, DeadLettersError>
  /** Writes a letter, in the place of one of its name. */
  readonly put: (letter: DeadLetter) => Effect.Effect<void, DeadLettersError>
  /** Writes all of a letter but its change, where it is there still: somebody may have dropped it. */
  readonly update: (letter: Letter) => Effect.Effect<void, DeadLettersError>
  /** These are to be tried again. */
  readonly mark: (names: ReadonlyArray<LetterName>) => Effect.Effect<void, DeadLettersError>
  /** These are gone: of what somebody has dropped nothing is to be left. */
  readonly remove: (
    names: ReadonlyArray<LetterName>,
    why: "handled" | "dropped"
  ) => Effect.Effect<void, DeadLettersError>
}

/** What dead letters are to a program. */
export interface DeadLettersShape {
  /**
   * The letter is durable when this has ended: the change counts as handled then. A letter of its name that is there already takes
   * its cause and counts its attempts in, and stays as it is where this one was not tried at all.
   */
  readonly park: (letter: DeadLetter) => Effect.Effect<void, DeadLettersError>
  /** Whether no row is held at all, as is usual: then nobody need be told by what a change is named. */
  readonly isEmpty: Effect.Effect<boolean>
  /** Whether a letter stands before this change on one of its rows. Asked for every row, and answered from memory. */
  readonly holds: (change: LetterName, keys: ReadonlyArray<string>) => Effect.Effect<boolean>
  /** All letters, in the order in which their changes were delivered, without the changes. */
  readonly list: Effect.Effect<ReadonlyArray<Letter>, DeadLettersError>
  readonly find: (name: LetterName) => Effect.Effect<DeadLetter | undefined, DeadLettersError>
  /** A letter's change alone, whatever else has become of it. */
  readonly read: LetterStorage["read"]
  /** These are to be tried again: the handler that holds them takes them. Gives how many there were. */
  readonly retry: (names: ReadonlyArray<LetterName>) => Effect.Effect<number, DeadLettersError>
  /** These are dropped for ever. What waits behind them is handled then. Gives how many there were. */
  readonly drop: (names: ReadonlyArray<LetterName>) => Effect.Effect<number, DeadLettersError>
  /** Drops the letters of this key, or all: what comes of these rows from now on is handled again. */
  readonly clear: (key?: string) => Effect.Effect<void, DeadLettersError>
  /** Looks what others have marked and dropped. */
  readonly refresh: Effect.Effect<void, DeadLettersError>
  /** Those of a slot, in order, as they were when last looked. */
  readonly known: (slot: string) => Effect.Effect<ReadonlyArray<Letter>>
  /** How many a slot has, as far as is known. */
  readonly census: (slot: string) => Effect.Effect<Census>
  /** A letter while it is tried: its rows are held, also where somebody drops it meanwhile. `undefined` where it is gone. */
  readonly whileTried: <A, E, R>(
    name: LetterName,
    use: (letter: Letter) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A | undefined, E, R>
  /** A letter that was tried and is handled: it is gone. */
  readonly handled: (letter: Letter) => Effect.Effect<void, DeadLettersError>
  /** A letter that was tried and failed again. One that was dropped meanwhile is not written anew. */
  readonly failed: (letter: Letter) => Effect.Effect<void, DeadLettersError>
}

/**
 * Keeps dead letters, in the order in which their changes were delivered.
 *
 * A change may be parked again after a crash, as it may be delivered again: a letter is known by its slot and its `id`.
 */
export class DeadLetters extends Context.Service<DeadLetters, DeadLettersShape>()("@replicant/core/DeadLetters") {}

const isSameRow = (left: Letter, right: Letter): boolean => JSON.stringify(left.keys) === JSON.stringify(right.keys)

/** The name of a letter, where another row's has it: rows of snapshots are told by a number. */
const apart = (book: LetterBook, letter: DeadLetter): DeadLetter => {
  let own = letter
  for (let found = book.get(own); found !== undefined && own.id.includes("!") && !isSameRow(found, own); ) {
    own = { ...own, id: `${own.id}+` }
    found = book.get(own)
  }
  return own
}

/**
 * A store of dead letters over what keeps them. It is the only one that parks there; others may mark and drop.
 *
 * @example
 * const layerOf = (storage: DeadLetters.LetterStorage) => Layer.effect(DeadLetters.DeadLetters, DeadLetters.make(storage))
 */
export const make = Effect.fnUntraced(function* (
  storage: LetterStorage
): Effect.fn.Return<DeadLettersShape, DeadLettersError> {
  const book = new LetterBook()
  const turn = Semaphore.makeUnsafe(1)
  const load = Effect.map(storage.load, (letters) => book.replace(letters))
  yield* load
  /** Nobody looks between what is stored and what is known of it. */
  const inTurn = <A, E, R>(effect: Effect.Effect<A, E, R>) => turn.withPermit(effect)
  const present = (names: ReadonlyArray<LetterName>) => names.filter((name) => book.get(name) !== undefined)
  /** As it is stored now: whoever decides may have looked a while ago. */
  const decide = (
    names: ReadonlyArray<LetterName>,
    write: (names: ReadonlyArray<LetterName>) => Effect.Effect<void, DeadLettersError>
  ) =>
    inTurn(
      Effect.gen(function* () {
        yield* load
        const found = present(names)
        if (found.length === 0) return 0
        yield* write(found)
        yield* load
        return found.length
      })
    )
  return {
    park: (given) =>
      inTurn(
        Effect.suspend(() => {
          const letter = apart(book, given)
          const before = book.get(letter)
          if (before !== undefined && letter.state === "waiting") return Effect.void
          const kept =
            before === undefined
              ? letter
              : { ...letter, attempts: before.attempts + letter.attempts, firstAt: before.firstAt }
          const { change: _, ...head } = kept
          const known = Effect.sync(() => book.set(head))
          // Cut off amid it, it may be there: its row is held until somebody has looked.
          return Effect.andThen(
            Effect.onInterrupt(storage.put(kept), () => known),
            known
          )
        })
      ),
    isEmpty: Effect.sync(() => book.isEmpty),
    holds: (change, keys) => Effect.sync(() => book.holds(change, keys)),
    list: inTurn(
      Effect.andThen(
        load,
        Effect.sync(() => book.all)
      )
    ),
    find: (name) =>
      inTurn(
        Effect.gen(function* () {
          yield* load
          const letter = book.get(name)
          const found = letter === undefined ? undefined : yield* storage.read(name)
          return letter === undefined || found === undefined ? undefined : { ...letter, change: found.change }
        })
      ),
    read: storage.read,
    retry: (names) => decide(names, storage.mark),
    drop: (names) => decide(names, (found) => storage.remove(found, "dropped")),
    clear: (key) =>
      inTurn(
        Effect.gen(function* () {
          yield* load
          const cleared = book.all.filter(({ keys }) => key === undefined || keys.includes(key))
          yield* storage.remove(cleared, "dropped")
          yield* load
        })
      ),
    refresh: inTurn(load),
    known: (slot) => Effect.sync(() => book.of(slot)),
    census: (slot) => Effect.sync(() => book.census(slot)),
    whileTried: (name, use) =>
      Effect.suspend(() => {
        const letter = book.get(name)
        if (letter === undefined) return Effect.undefined
        book.hold(letter)
        return Effect.ensuring(
          use(letter),
          Effect.sync(() => book.release(letter))
        )
      }),
    handled: (letter) =>
      inTurn(
        Effect.andThen(
          storage.remove([letter], "handled"),
          Effect.sync(() => book.delete(letter))
        )
      ),
    failed: (letter) =>
      inTurn(
        Effect.andThen(
          storage.update(letter),
          Effect.sync(() => {
            if (book.get(letter) !== undefined) book.set(letter)
          })
        )
      )
  }
})

/** Letters in the program's memory. */
const memoryStorage = (): LetterStorage => {
  const letters = new Map<string, DeadLetter>()
  return {
    load: Effect.sync(() => [...letters.values()].map(({ change: _, ...letter }) => letter)),
    read: (name) => Effect.sync(() => letters.get(nameText(name))),
    put: (letter) => Effect.sync(() => void letters.set(nameText(letter), letter)),
    update: (letter) =>
      Effect.sync(() => {
        const before = letters.get(nameText(letter))
        if (before !== undefined) letters.set(nameText(letter), { ...letter, change: before.change })
      }),
    mark: (names) =>
      Effect.sync(() => {
        for (const name of names) {
          const letter = letters.get(nameText(name))
          if (letter !== undefined) letters.set(nameText(name), { ...letter, state: "marked" })
        }
      }),
    remove: (names) =>
      Effect.sync(() => {
        for (const name of names) letters.delete(nameText(name))
      })
  }
}

/**
 * Keeps them for as long as the program runs, and **loses them with it**, though they have been acknowledged: for tests, and
 * where a lost change does no harm.
 */
export const memory: Layer.Layer<DeadLetters> = Layer.effect(
  DeadLetters,
  Effect.orDie(Effect.suspend(() => make(memoryStorage())))
)
