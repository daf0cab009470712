/**
 * `replicant dead-letters`: the changes that a program has parked, and what somebody decides about them. It decides; the program acts.
 * Values of rows are told by `show` alone, on standard output.
 */
import { DeadLetters } from "@replicant/core"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as DeadLetterFile from "../letters/DeadLetterFile.ts"
import * as PgSqlClient from "../pg/PgSqlClient.ts"
import { letterLines, summary, toJson } from "./LetterOutput.ts"
import { LettersFailed, UsageError } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"
import { type Column, formatTable, plural } from "./Table.ts"

const storeFlags = {
  file: Flag.String("file").pipe(
    Flag.withMetavar("PATH"),
    Flag.withDescription("The file that the program parks in: DeadLetterFile"),
    Flag.optional
  ),
  table: Flag.String("table").pipe(
    Flag.withDescription("The table of the database at --url that it parks in: DeadLetters.sql"),
    Flag.optional
  ),
  slot: Flag.String("slot").pipe(Flag.withDescription("Letters of this slot only"), Flag.optional)
}

interface StoreFlags {
  readonly file: Option.Option<string>
  readonly table: Option.Option<string>
  readonly slot: Option.Option<string>
}

/** What is wrong with a store, as a failure of the command. */
const asFailed = ({ message }: DeadLetters.DeadLettersError) =>
  Effect.fail(
    new LettersFailed({
      message,
      remedy:
        "name the store that the program parks in, --file PATH or --table NAME, with the right to read and to write it"
    })
  )

/** The store that the flags name, for as long as it is used. */
const withStore = <A>(
  { file, table }: StoreFlags,
  use: (store: DeadLetterFile.Decider) => Effect.Effect<A, DeadLetters.DeadLettersError | LettersFailed | UsageError>
) =>
  Effect.gen(function* () {
    if (Option.isSome(file) === Option.isSome(table)) {
      const message = Option.isSome(file)
        ? "--file and --table exclude each other"
        : "no store of dead letters is named"
      return yield* new UsageError({ message, remedy: "give --file PATH, or --table NAME with --url or DATABASE_URL" })
    }
    if (Option.isSome(file)) return yield* use(DeadLetterFile.open({ path: file.value }))
    const options = yield* Root.connection(yield* Root.command)
    const letters = Layer.provide(DeadLetters.sql({ table: Option.getOrThrow(table) }), PgSqlClient.layer(options))
    return yield* Effect.provide(Effect.flatMap(DeadLetters.DeadLetters, use), letters)
  }).pipe(Effect.catchTag("DeadLettersError", asFailed))

/** Those that the flags are about. */
const listed = (store: DeadLetterFile.Decider, { slot }: StoreFlags) =>
  Effect.map(store.list, (letters) => letters.filter((letter) => Option.isNone(slot) || letter.slot === slot.value))

/** The letters of these ids: each must be there, once. */
const named = Effect.fnUntraced(function* (
  store: DeadLetterFile.Decider,
  flags: StoreFlags,
  ids: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<DeadLetters.Letter>, DeadLetters.DeadLettersError | LettersFailed | UsageError> {
  const letters = yield* listed(store, flags)
  const found: Array<DeadLetters.Letter> = []
  for (const id of new Set(ids)) {
    const [letter, ...others] = letters.filter((each) => each.id === id)
    if (letter === undefined) {
      return yield* new LettersFailed({
        message: `there is no dead letter ${id}`,
        remedy: "replicant dead-letters list"
      })
    }
    if (others.length > 0) {
      return yield* new UsageError({ message: `several slots have a letter ${id}`, remedy: "add --slot NAME" })
    }
    found.push(letter)
  }
  return found
})

const columns: ReadonlyArray<Column<DeadLetters.Letter>> = [
  { heading: "id", value: ({ id }) => id },
  { heading: "slot", value: ({ slot }) => slot },
  { heading: "state", value: ({ state }) => state },
  { heading: "kind", value: ({ kind }) => kind },
  { heading: "table", value: (letter) => summary(letter).table },
  { heading: "failed of", value: ({ cause }) => cause.tag },
  { heading: "attempts", value: ({ attempts }) => `${attempts}`, align: "right" },
  { heading: "last", value: (letter) => summary(letter).lastAt }
]

const list = Command.make("list", storeFlags, (flags) =>
  Effect.gen(function* () {
    const { json } = yield* Root.command
    const output = yield* Output
    const letters = yield* withStore(flags, (store) => listed(store, flags))
    yield* output.write(json ? `${JSON.stringify(letters.map(toJson))}\n` : formatTable(columns, letters))
  })
).pipe(Command.withDescription("Every dead letter, in the order in which they are tried again; no values of rows"))

const id = Argument.String("id").pipe(Argument.withDescription("As `list` has it"))

const show = Command.make("show", { ...storeFlags, id }, ({ id: wanted, ...flags }) =>
  Effect.gen(function* () {
    const { json } = yield* Root.command
    const output = yield* Output
    const letter = yield* withStore(
      flags,
      Effect.fnUntraced(function* (store) {
        const [found] = yield* named(store, flags, [wanted])
        const whole = yield* store.find(found!)
        if (whole !== undefined) return whole
        return yield* new LettersFailed({
          message: `the dead letter ${wanted} has just gone`,
          remedy: "replicant dead-letters list"
        })
      })
    )
    yield* output.write(letterLines(letter, json ? "json" : "text"))
  })
).pipe(Command.withDescription("One letter with its change: prints values of the row"))

const ids = Argument.String("id").pipe(
  Argument.withDescription("As `list` has it; again for more"),
  Argument.variadic({ min: 0 })
)

const all = Flag.Boolean("all").pipe(
  Flag.withoutNegation,
  Flag.withDescription("All of them; with --slot, of that slot"),
  Flag.withDefault(false)
)

/** Which letters are decided about. */
const chosen = (store: DeadLetterFile.Decider, flags: StoreFlags, names: ReadonlyArray<string>, isAll: boolean) => {
  if (isAll === names.length > 0) {
    const message = isAll ? "--all and ids exclude each other" : "no dead letter is named"
    return Effect.fail(
      new UsageError({ message, remedy: "give ids, as replicant dead-letters list has them, or --all" })
    )
  }
  return isAll ? listed(store, flags) : named(store, flags, names)
}

const retry = Command.make("retry", { ...storeFlags, ids, all }, ({ all: isAll, ids: names, ...flags }) =>
  Effect.gen(function* () {
    const { json } = yield* Root.command
    const output = yield* Output
    const marked = yield* withStore(
      flags,
      Effect.fnUntraced(function* (store) {
        // What only follows is taken by itself, once what it follows has gone.
        const letters = yield* chosen(store, flags, names, isAll)
        return yield* store.retry(isAll ? letters.filter(({ state }) => state === "failed") : letters)
      })
    )
    const says = `${plural(marked, "letter")} marked: the program tries them within seconds, or when it starts`
    yield* output.write(json ? `${JSON.stringify({ marked })}\n` : `${says}\n`)
  })
).pipe(Command.withDescription("Marks letters to be tried again by the program that parked them"))

const drop = Command.make(
  "drop",
  {
    ...storeFlags,
    ids,
    all,
    yes: Flag.Boolean("yes").pipe(
      Flag.withoutNegation,
      Flag.withDescription("With --all: drop them, though nobody has named one"),
      Flag.withDefault(false)
    )
  },
  ({ all: isAll, ids: names, yes, ...flags }) =>
    Effect.gen(function* () {
      const { json } = yield* Root.command
      const output = yield* Output
      const dropped = yield* withStore(
        flags,
        Effect.fnUntraced(function* (store) {
          const letters = yield* chosen(store, flags, names, isAll)
          if (isAll && !yes) {
            return yield* new UsageError({
              message: `${plural(letters.length, "letter")} would be dropped: their changes are handled by nobody, ever`,
              remedy: "add --yes to drop them, or name some"
            })
          }
          return yield* store.drop(letters)
        })
      )
      const says = `${plural(dropped, "letter")} dropped; what waited behind is handled by the program`
      yield* output.write(json ? `${JSON.stringify({ dropped })}\n` : `${says}\n`)
    })
).pipe(Command.withDescription("Drops letters for ever: their changes are handled by nobody"))

export const command = Command.make("dead-letters").pipe(
  Command.withSubcommands([list, show, retry, drop]),
  Command.withDescription("What a program has parked: list, show, retry, drop"),
  Command.withExamples([
    { command: "replicant dead-letters list --table replicant_dead_letters", description: "In a table" },
    { command: "replicant dead-letters retry --file dead-letters.jsonl --all", description: "In a file" }
  ])
)
