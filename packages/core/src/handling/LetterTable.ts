/**
 * Dead letters in a table of a database, a row for each, through effect's `SqlClient`: of PostgreSQL, SQLite, MySQL or MariaDB.
 * Whoever can write to the table may mark and drop them: `replicant dead-letters` does.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import { dialectOf, problemOf, unknownDialect } from "../checkpoint/SqlDialect.ts"
import { type DeadLetter, DeadLettersError, type Letter, type LetterName, LetterState } from "./Letter.ts"
import { DeadLetters, type LetterStorage, make } from "./LetterStore.ts"
import * as LetterText from "./LetterText.ts"
import type { SqlTable } from "./PositionTable.ts"

/** What databases say differently. */
interface Words {
  /** Texts that sort and compare by their bytes, and such as may be of any length. */
  readonly short: (length: number) => string
  readonly long: string
  readonly engine: string
  readonly orReplace: string
}

const columns = ["state", "kind", "table_name", "row_keys", "cause_tag", "cause_message", "attempts"] as const
const times = ["first_at", "last_at"] as const
const heads = ["slot", "id", ...columns, ...times].join(", ")

const assignments = (value: (column: string) => string): string =>
  [...columns, ...times, "change_text"].map((column) => `${column} = ${value(column)}`).join(", ")

const standard: Words = {
  short: (length) => `varchar(${length})`,
  long: "text",
  engine: "",
  orReplace: `ON CONFLICT (slot, id) DO UPDATE SET ${assignments((column) => `excluded.${column}`)}`
}

const binary = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

const mysql: Words = {
  short: (length) => `varchar(${length}) ${binary}`,
  long: `longtext ${binary}`,
  engine: "ENGINE = InnoDB",
  orReplace: `ON DUPLICATE KEY UPDATE ${assignments((column) => `VALUES(${column})`)}`
}

const postgres: Words = { ...standard, short: (length) => `varchar(${length}) COLLATE "C"`, long: 'text COLLATE "C"' }

const definition = ({ engine, long, short }: Words): string =>
  `(slot ${short(255)} NOT NULL, id ${short(64)} NOT NULL, state ${short(16)} NOT NULL, kind ${short(64)} NOT NULL,
    table_name ${long}, row_keys ${long} NOT NULL, cause_tag ${short(255)} NOT NULL, cause_message ${long} NOT NULL,
    attempts int NOT NULL, first_at bigint NOT NULL, last_at bigint NOT NULL, change_text ${long} NOT NULL,
    PRIMARY KEY (slot, id)) ${engine}`

/** No database takes a zero in a text, and nobody reads more of a message. */
const plain = (text: string, most: number): string => text.replaceAll("\u0000", " ").slice(0, most)

const isState = (value: unknown): value is LetterState => LetterState.literals.includes(value as LetterState)

const letterOf = (row: ReadonlyArray<unknown>): Letter | undefined => {
  const [slot, id, state, kind, table, keys, tag, message, attempts, firstAt, lastAt] = row
  if (typeof slot !== "string" || typeof id !== "string" || !isState(state)) return undefined
  return {
    slot,
    id,
    state,
    kind: String(kind),
    table: typeof table === "string" ? table : undefined,
    keys: JSON.parse(String(keys)) as ReadonlyArray<string>,
    cause: { tag: String(tag), message: String(message) },
    attempts: Number(attempts),
    firstAt: Number(firstAt),
    lastAt: Number(lastAt)
  }
}

const failed =
  (during: DeadLettersError["during"]) =>
  (error: SqlError | DeadLettersError): DeadLettersError =>
    isSqlError(error) ? new DeadLettersError({ during, problem: problemOf(error) }) : error

/** So many names in one statement: of parameters there may be few. */
const mostNames = 200

const parts = (names: ReadonlyArray<LetterName>): ReadonlyArray<ReadonlyArray<LetterName>> =>
  Array.from({ length: Math.ceil(names.length / mostNames) }, (_, part) =>
    names.slice(part * mostNames, (part + 1) * mostNames)
  )

/** Letters in a table. */
const storageOf = (client: SqlClient.SqlClient, { table }: SqlTable, words: Words): LetterStorage => {
  const name = client(table)
  const literal = (text: string) => client.literal(text)
  /** Of one slot or several. */
  const each = (
    names: ReadonlyArray<LetterName>,
    write: (slot: string, ids: ReadonlyArray<string>) => Effect.Effect<unknown, SqlError>
  ) =>
    Effect.forEach(
      Map.groupBy(names, ({ slot }) => slot),
      ([slot, named]) =>
        Effect.forEach(parts(named), (part) =>
          write(
            slot,
            part.map(({ id }) => id)
          )
        ),
      { discard: true }
    )
  const headOf = ({ attempts, cause, firstAt, keys, kind, lastAt, state, table: of }: Letter) => ({
    state,
    kind,
    table_name: of ?? null,
    row_keys: JSON.stringify(keys),
    cause_tag: plain(cause.tag, 255),
    cause_message: plain(cause.message, 10_000),
    attempts,
    first_at: firstAt,
    last_at: lastAt
  })
  return {
    // Values and no names: a client may be told to rename the columns of its results.
    load: client`SELECT ${literal(heads)} FROM ${name}`.values.pipe(
      Effect.mapError(failed("list")),
      Effect.flatMap((rows) => {
        const letters = rows.map(letterOf)
        const isWhole = letters.every((letter) => letter !== undefined)
        return isWhole
          ? Effect.succeed(letters)
          : Effect.fail(new DeadLettersError({ during: "list", problem: "a row of the table is no letter" }))
      })
    ),
    read: ({ id, slot }) =>
      client`SELECT change_text FROM ${name} WHERE slot = ${slot} AND id = ${id}`.values.pipe(
        Effect.mapError(failed("find")),
        Effect.flatMap(([row]) =>
          row === undefined
            ? Effect.undefined
            : Effect.map(Effect.fromResult(LetterText.decode(String(row[0]))), (change) => ({ change }))
        )
      ),
    put: (letter: DeadLetter) =>
      Effect.flatMap(Effect.fromResult(LetterText.encode(letter.change)), (text) => {
        const head = headOf(letter)
        return client`INSERT INTO ${name} (${literal(heads)}, change_text)
          VALUES (${letter.slot}, ${letter.id}, ${head.state}, ${head.kind}, ${head.table_name}, ${head.row_keys},
            ${head.cause_tag}, ${head.cause_message}, ${head.attempts}, ${head.first_at}, ${head.last_at}, ${text})
          ${literal(words.orReplace)}`
      }).pipe(Effect.mapError(failed("park")), Effect.asVoid),
    update: (letter) => {
      const head = headOf(letter)
      return client`UPDATE ${name} SET state = ${head.state}, cause_tag = ${head.cause_tag},
          cause_message = ${head.cause_message}, attempts = ${head.attempts}, last_at = ${head.last_at}
        WHERE slot = ${letter.slot} AND id = ${letter.id}`.pipe(Effect.mapError(failed("park")), Effect.asVoid)
    },
    mark: (names) =>
      each(names, (slot, ids) => {
        return client`UPDATE ${name} SET state = 'marked' WHERE slot = ${slot} AND ${client.in("id", ids)}`
      }).pipe(Effect.mapError(failed("retry"))),
    remove: (names) =>
      each(names, (slot, ids) => {
        return client`DELETE FROM ${name} WHERE slot = ${slot} AND ${client.in("id", ids)}`
      }).pipe(Effect.mapError(failed("drop")))
  }
}

/**
 * Keeps them in a table of the program's {@link SqlClient.SqlClient}. Several slots may share one; of each slot one program parks.
 *
 * @example
 * const letters = DeadLetters.sql({ table: "replicant_dead_letters", createTable: "ifMissing" })
 */
export const sql = (options: SqlTable): Layer.Layer<DeadLetters, DeadLettersError, SqlClient.SqlClient> =>
  Layer.effect(
    DeadLetters,
    Effect.gen(function* () {
      const client = yield* SqlClient.SqlClient
      const dialect = dialectOf(client)
      if (dialect === undefined) return yield* new DeadLettersError({ during: "open", problem: unknownDialect })
      const words = dialect === "mysql" ? mysql : dialect === "postgres" ? postgres : standard
      // Refused to who may not create, and by PostgreSQL to one of two that ask at once, although the table is there.
      const create = client`CREATE TABLE IF NOT EXISTS ${client(options.table)} ${client.literal(definition(words))}`
      if (options.createTable === "ifMissing") yield* Effect.ignore(create)
      return yield* make(storageOf(client, options, words))
    })
  )
