/**
 * The soak's load: sessions that commit small and large transactions, roll back, nest savepoints, update around TOAST,
 * change their tables, write messages and prepare. Each transaction ends with a row in `commits` that tells its number
 * and how many rows it changed; so what was committed is known by asking the server, whatever became of the connection.
 */
import { type PgServerShape, PgSession } from "@replicant/node/testing"
import { Effect, Schedule } from "effect"
import type { Committed } from "./Ledger.ts"

export const sessions = 4

const createTable = (session: number): string =>
  `CREATE TABLE work_${session} (id bigint PRIMARY KEY, n int, note text, large text);
   ALTER TABLE work_${session} ALTER large SET STORAGE EXTERNAL`

export const schema = [
  "CREATE TABLE commits (number bigint PRIMARY KEY, rows int NOT NULL)",
  ...Array.from({ length: sessions }, (_, session) => createTable(session))
].join("; ")

const below = (limit: number): number => Math.floor(Math.random() * limit)

interface Work {
  readonly statements: ReadonlyArray<string>
  readonly rows: number
  readonly end: "COMMIT" | "ROLLBACK" | "PREPARE"
}

/** A session's next ids and numbers; none is used twice, whatever became of its transaction. */
class Numbers {
  private readonly session: number
  private count = 0

  constructor(session: number) {
    this.session = session
  }

  next(): string {
    return String(this.session * 1e12 + ++this.count)
  }

  /** The first of `length` ids. */
  ids(length: number): number {
    const first = this.session * 1e12 + this.count + 1
    this.count += length
    return first
  }
}

const insert = (session: number, first: number, count: number, large = "NULL"): string =>
  `INSERT INTO work_${session} SELECT i, 0, 'note ' || i, ${large} FROM generate_series(${first}, ${first + count - 1}) i`

type Maker = (session: number, numbers: Numbers) => Omit<Work, "end">

const small: Maker = (session, numbers) => {
  const count = 1 + below(5)
  return { statements: [insert(session, numbers.ids(count), count)], rows: count }
}

const large: Maker = (session, numbers) => {
  const count = 1000 + below(10_000)
  const first = numbers.ids(count)
  const half = Math.floor(count / 2)
  return {
    statements: [
      insert(session, first, count),
      `DELETE FROM work_${session} WHERE id BETWEEN ${first} AND ${first + half - 1}`
    ],
    rows: count + half
  }
}

const savepoints: Maker = (session, numbers) => {
  const statements: Array<string> = []
  let rows = 0
  for (let depth = 0; depth < 3 + below(30); depth++) {
    const isKept = below(3) > 0
    statements.push("SAVEPOINT s", insert(session, numbers.ids(2), 2), isKept ? "RELEASE s" : "ROLLBACK TO s")
    if (isKept) rows += 2
  }
  return { statements, rows }
}

const toast: Maker = (session, numbers) => {
  const id = numbers.ids(1)
  return {
    statements: [
      insert(session, id, 1, `repeat('toast', ${2000 + below(20_000)})`),
      `UPDATE work_${session} SET n = n + 1 WHERE id = ${id}`,
      `UPDATE work_${session} SET n = n + 1 WHERE id = ${id}`
    ],
    rows: 3
  }
}

const ddl: Maker = (session, numbers) => {
  const id = numbers.ids(2)
  return {
    statements: [
      insert(session, id, 1),
      `ALTER TABLE work_${session} DROP COLUMN IF EXISTS added`,
      `ALTER TABLE work_${session} ADD COLUMN added int DEFAULT ${below(1000)}`,
      insert(session, id + 1, 1).replace("NULL FROM", "NULL, 7 FROM")
    ],
    rows: 2
  }
}

const message: Maker = (session, numbers) => ({
  statements: [
    `SELECT pg_logical_emit_message(${below(2) === 0}, 'soak', 'a message')`,
    insert(session, numbers.ids(1), 1)
  ],
  rows: 1
})

const truncate: Maker = (session) => ({ statements: [`TRUNCATE work_${session}`], rows: 0 })

/** Under the same name with another OID; and without the columns that were dropped, of which a table has no end. */
const replace: Maker = (session, numbers) => ({
  statements: [`DROP TABLE work_${session}`, createTable(session), insert(session, numbers.ids(1), 1)],
  rows: 1
})

/** Makers by weight. An insert names no columns, so it must suit a table with or without the added one. */
const makers: ReadonlyArray<readonly [number, Maker]> = [
  [600, small],
  [4, large],
  [60, savepoints],
  [60, toast],
  [15, ddl],
  [60, message],
  [3, truncate],
  [3, replace]
]

const pick = (session: number, numbers: Numbers): Work => {
  let at = below(makers.reduce((sum, [weight]) => sum + weight, 0))
  const [, maker] = makers.find(([weight]) => {
    at -= weight
    return at < 0
  })!
  const end = below(10) === 0 ? "ROLLBACK" : below(15) === 0 ? "PREPARE" : "COMMIT"
  return { ...maker(session, numbers), end }
}

/** What the writers did, for the live line. */
export interface Written {
  committed: number
  rolledBack: number
  prepared: number
  lost: number
}

/** Prepared by a session that was cut off meanwhile: either way will do. */
const decidePrepared = Effect.fnUntraced(function* (session: PgSession.PgSession, prefix: string) {
  const gids = yield* session.query(
    `SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE '${prefix}%'`
  )
  for (const { gid } of gids) yield* session.query(`${below(3) === 0 ? "ROLLBACK" : "COMMIT"} PREPARED '${gid}'`)
})

const runWork = Effect.fnUntraced(function* (
  session: PgSession.PgSession,
  work: Work,
  number: string,
  prefix: string,
  written: Written
) {
  yield* session.query(["BEGIN", ...work.statements, `INSERT INTO commits VALUES (${number}, ${work.rows})`].join("; "))
  if (work.end === "PREPARE") {
    yield* session.query(`PREPARE TRANSACTION '${prefix}${number}'`)
    yield* decidePrepared(session, prefix)
    written.prepared++
  } else {
    yield* session.query(work.end)
    if (work.end === "COMMIT") written.committed++
    else written.rolledBack++
  }
})

/** One session's share, for ever: whatever ends the connection, it begins anew. */
const runSession = (
  server: PgServerShape,
  database: string,
  index: number,
  options: { readonly written: Written; readonly isHeld: () => boolean }
) => {
  const numbers = new Numbers(index + 1)
  const prefix = `soak ${index} `
  return Effect.scoped(
    Effect.gen(function* () {
      const session = yield* PgSession.connect(server.url(database))
      yield* decidePrepared(session, prefix)
      while (true) {
        if (options.isHeld()) yield* Effect.sleep("100 millis")
        else {
          const work = pick(index, numbers)
          yield* runWork(session, work, numbers.next(), prefix, options.written)
          yield* Effect.sleep(below(8))
        }
      }
    })
  ).pipe(
    Effect.tapError(() =>
      Effect.sync(() => {
        options.written.lost++
      })
    ),
    Effect.retry(Schedule.spaced("100 millis"))
  )
}

/** All sessions, until interrupted. While `isHeld` they begin nothing: the consumers are far behind. */
export const runLoad = (
  server: PgServerShape,
  database: string,
  options: { readonly written: Written; readonly isHeld: () => boolean }
) =>
  Effect.forEach(
    Array.from({ length: sessions }, (_, index) => index),
    (index) => runSession(server, database, index, options),
    { concurrency: "unbounded", discard: true }
  )

/** Ends what is still prepared, marks the end by a last transaction, and tells all that was committed. */
export const finishLoad = Effect.fnUntraced(function* (server: PgServerShape, database: string) {
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const session = yield* PgSession.connect(server.url(database))
      yield* decidePrepared(session, "soak ")
      yield* session.query("INSERT INTO commits VALUES (0, 0)")
      const rows = yield* session.query("SELECT number, rows FROM commits")
      return new Map(rows.map(({ number, rows }) => [String(number), Number(rows)])) as Committed
    })
  )
})
