/**
 * What a database goes through: sessions side by side, each with transactions made of random statements over tables
 * that differ in how their rows are identified, stored and published. The statements are the seed's; how they
 * interleave is the server's. A transaction that loses a deadlock or a lock is lost here, before anybody could hear of
 * it.
 *
 * It knows nothing of replication: it leaves a database, and another one must come to equal it.
 */
import { quoteIdentifier, quoteLiteral } from "@replicant/core/driver"
import type { PgServerFailed, PgSession } from "@replicant/node/testing"
import { Effect, type Scope } from "effect"
import { Random } from "../../packages/core/test/support/Random.ts"
import {
  keptEdges,
  printedOnly,
  textOnlyEdges,
  textOnlyUserTypes,
  typeEdges,
  userTypes,
  withoutArrays
} from "./TypeEdges.ts"

export interface WorkloadOptions {
  readonly seed: number
  /** About how many statements all sessions make together: 2,000. */
  readonly statements?: number | undefined
  /** 4. */
  readonly sessions?: number | undefined
  /** `binary` leaves out the types that binary format does not know; all unless told otherwise. */
  readonly types?: "all" | "binary" | undefined
  /**
   * `kept` leaves out what the built-in decoders do not keep: explicit bounds of arrays, and what `JSON.parse` loses.
   */
  readonly values?: "all" | "kept" | undefined
  /** As what the partitioned table is published: a truncated leaf is not told of the root. */
  readonly partitions?: "leaves" | "root" | undefined
  /** `prepare` ends many transactions by PREPARE TRANSACTION: the server must have `max_prepared_transactions`. */
  readonly end?: "commit" | "prepare" | undefined
}

/** How the transactions ended. */
export interface WorkloadReport {
  readonly statements: number
  readonly committed: number
  readonly rolledBack: number
  /** Prepared first, then committed or rolled back. */
  readonly prepared: number
  /** Ended by a deadlock, a lock not had in time, or a key taken meanwhile. */
  readonly lost: number
}

type Choice = Pick<WorkloadOptions, "types" | "values">
type Edges = Readonly<Record<string, ReadonlyArray<string>>>

const edgesOf = ({ types, values }: Choice): Edges => {
  const all: Edges = {
    ...typeEdges,
    ...(types === "binary" ? {} : textOnlyEdges),
    ...(values === "kept" ? keptEdges : {})
  }
  return Object.fromEntries(
    Object.entries(all).map(([type, texts]) => [
      type,
      texts.filter((text) => printedOnly.get(type)?.includes(text) !== true)
    ])
  )
}

/** Arrays of `regtype` and their kin are text in either format, and so are those of the user's types. */
const arrayTypes = (edges: Edges) => Object.keys(edges).filter((type) => !withoutArrays.includes(type))

const columns = (types: ReadonlyArray<string>, suffix = "") =>
  types.map((type, index) => `c${index} ${type}${suffix}`).join(", ")

/** The second leaf was made by itself, with its columns in another order and one dropped: rows are sent as they lie. */
const partitioned = `
  CREATE TABLE places (region int NOT NULL, id int NOT NULL, note text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
  CREATE TABLE places_1 PARTITION OF places FOR VALUES IN (1);
  CREATE TABLE places_2 (gone int, note text, id int NOT NULL, region int NOT NULL, PRIMARY KEY (region, id));
  ALTER TABLE places_2 DROP COLUMN gone;
  ALTER TABLE places ATTACH PARTITION places_2 FOR VALUES IN (2);
  CREATE TABLE places_rest PARTITION OF places DEFAULT PARTITION BY RANGE (id);
  CREATE TABLE places_low PARTITION OF places_rest FOR VALUES FROM (MINVALUE) TO (50);
  CREATE TABLE places_high PARTITION OF places_rest FOR VALUES FROM (50) TO (MAXVALUE)`

/** The tables, for both sides alike. */
export const workloadTables = (choice: Choice): string => {
  const edges = edgesOf(choice)
  return [
    ...userTypes,
    ...textOnlyUserTypes,
    "CREATE TABLE items (id int PRIMARY KEY, n int, note text)",
    `CREATE TABLE parts (item int NOT NULL REFERENCES items ON UPDATE CASCADE ON DELETE CASCADE,
       seq int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (item * 2) STORED, note text, PRIMARY KEY (seq))`,
    `CREATE TABLE "Odd.""name" ("select" text, "__proto__" int NOT NULL, b varchar(20) NOT NULL, "0" numeric,
       PRIMARY KEY (b, "__proto__"))`,
    "CREATE TABLE coded (id int, code text NOT NULL, n int, CONSTRAINT coded_key UNIQUE (code))",
    "ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_key",
    "CREATE TABLE loose (n int, note text, big text)",
    "ALTER TABLE loose REPLICA IDENTITY FULL",
    "ALTER TABLE loose ALTER big SET STORAGE EXTERNAL",
    "CREATE TABLE docs (id int PRIMARY KEY, n int, body text, bytes bytea, doc jsonb)",
    "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL",
    partitioned,
    `CREATE TABLE scalars (id int PRIMARY KEY, ${columns(Object.keys(edges))})`,
    `CREATE TABLE arrays (id int, ${columns(arrayTypes(edges), "[]")})`,
    "ALTER TABLE arrays REPLICA IDENTITY FULL"
  ].join(";\n")
}

const literal = (text: string, type: string) => `${quoteLiteral(text)}::${type}`

const scalar = (random: Random, type: string, edges: Edges): string =>
  random.chance(20) ? `NULL::${type}` : literal(random.pick(edges[type]!), type)

const list = (random: Random, type: string, edges: Edges, length: number): string =>
  `ARRAY[${Array.from({ length }, () => scalar(random, type, edges)).join(", ")}]`

const array = (random: Random, type: string, edges: Edges, values: Choice["values"]): string => {
  const kind = random.below(10)
  if (kind === 0) return "NULL"
  if (kind === 1) return `'{}'::${type}[]`
  // Of json[], the values do not tell an array within the array from one within the JSON.
  if (kind === 2 && !type.startsWith("json")) {
    return `ARRAY[${list(random, type, edges, 2)}, ${list(random, type, edges, 2)}]::${type}[]`
  }
  if (kind === 3 && values !== "kept") {
    return `array_fill(${scalar(random, type, edges)}, ARRAY[2, 1], ARRAY[0, -3])::${type}[]`
  }
  return `${list(random, type, edges, 1 + random.below(3))}::${type}[]`
}

/** Text of some thousand characters, long enough to be stored out of line, and no two alike. */
const longText = (random: Random): string => `repeat('${random.uint32().toString(36)} ', ${400 + random.below(2000)})`

type Maker = (random: Random) => string

/** Statements by the table they are about. Ids are few, so that sessions meet. */
const makers = (options: WorkloadOptions): ReadonlyArray<readonly [weight: number, make: Maker]> => {
  const edges = edgesOf(options)
  const scalarTypes = Object.keys(edges)
  const listTypes = arrayTypes(edges)
  const id: Maker = (random) => String(random.below(120))
  const word: Maker = (random) =>
    quoteLiteral(random.pick(["", "a'b\\c", "naïve ☕", "NULL", random.uint32().toString(36)]))
  const odd = quoteIdentifier('Odd."name')
  const ids: Maker = (random) => `SELECT generate_series(${id(random)}, ${id(random)} + 5)`
  const region: Maker = (random) => String(1 + random.below(4))
  const scalarOf = (random: Random, index: number) => scalar(random, scalarTypes[index]!, edges)
  const arrayRow: Maker = (random) => listTypes.map((type) => array(random, type, edges, options.values)).join(", ")
  /** Rows of a table without a key: some of those that answer a condition. */
  const some = (table: string, condition: string, limit: number) =>
    `${table}.ctid = ANY (ARRAY(SELECT ctid FROM ${table} WHERE ${condition} LIMIT ${limit}))`
  return [
    [
      8,
      (r) =>
        `INSERT INTO items SELECT i, ${id(r)}, ${word(r)} FROM (${ids(r)}) s (i) ON CONFLICT (id) DO UPDATE SET n = items.n + 1`
    ],
    [6, (r) => `UPDATE items SET n = NULLIF(n, 3) + 1, note = ${word(r)} WHERE id BETWEEN ${id(r)} AND ${id(r)}`],
    [4, (r) => `UPDATE items SET id = id + 1000 WHERE id = ${id(r)}`],
    [
      3,
      (r) =>
        `UPDATE items SET id = id - 1000 WHERE id >= 1000 AND id % 3 = ${r.below(3)} AND NOT EXISTS (SELECT FROM items i WHERE i.id = items.id - 1000)`
    ],
    [4, (r) => `DELETE FROM items WHERE id = ${id(r)}`],
    [6, (r) => `INSERT INTO parts (item, note) SELECT id, ${word(r)} FROM items WHERE id % 7 = ${r.below(7)} LIMIT 5`],
    [3, (r) => `UPDATE parts SET note = ${word(r)} WHERE seq % 11 = ${r.below(11)}`],
    [2, (r) => `DELETE FROM parts WHERE seq % 5 = ${r.below(5)}`],
    [6, (r) => `INSERT INTO ${odd} VALUES (${word(r)}, ${id(r)}, ${word(r)}, ${id(r)}.50) ON CONFLICT DO NOTHING`],
    [5, (r) => `UPDATE ${odd} SET "select" = ${word(r)}, "0" = NULL WHERE "__proto__" % 9 = ${r.below(9)}`],
    [
      4,
      (r) =>
        `UPDATE ${odd} SET "__proto__" = "__proto__" + 1000, b = b || 'x' WHERE "__proto__" = ${id(r)} AND length(b) < 9`
    ],
    [3, (r) => `DELETE FROM ${odd} WHERE "__proto__" % 20 = ${r.below(20)}`],
    [
      5,
      (r) => `INSERT INTO coded VALUES (${id(r)}, ${quoteLiteral(`c${r.below(60)}`)}, ${id(r)}) ON CONFLICT DO NOTHING`
    ],
    [4, (r) => `UPDATE coded SET n = n + 1, id = NULL WHERE code = 'c${r.below(60)}'`],
    [3, (r) => `UPDATE coded SET code = code || '''' WHERE code = 'c${r.below(60)}'`],
    [2, (r) => `DELETE FROM coded WHERE n % 10 = ${r.below(10)}`],
    // Many rows of few values: most have a double.
    [6, (r) => `INSERT INTO loose SELECT n % 3, ${word(r)} FROM generate_series(1, ${1 + r.below(9)}) n`],
    [2, (r) => `INSERT INTO loose SELECT n % 5, NULL, ${longText(r)} FROM generate_series(1, ${1 + r.below(30)}) n`],
    [5, (r) => `UPDATE loose SET note = ${word(r)} WHERE ${some("loose", `n = ${r.below(5)}`, 4)}`],
    [2, (r) => `UPDATE loose SET big = ${longText(r)} WHERE ${some("loose", "big IS NOT NULL", 3)}`],
    [4, (r) => `DELETE FROM loose WHERE ${some("loose", `n = ${r.below(5)}`, 6)}`],
    [1, (r) => `DELETE FROM loose WHERE n = ${r.below(5)}`],
    [
      4,
      (r) => `INSERT INTO docs VALUES (${id(r)}, 0, ${longText(r)}, convert_to(${longText(r)}, 'UTF8'),
        jsonb_build_object('a', ${longText(r)})) ON CONFLICT (id) DO UPDATE SET n = docs.n + 1`
    ],
    [6, (r) => `UPDATE docs SET n = n + 1 WHERE id % 10 = ${r.below(10)}`],
    [3, (r) => `UPDATE docs SET bytes = NULL, body = ${longText(r)} WHERE id = ${id(r)}`],
    [3, (r) => `UPDATE docs SET id = id + 1000 WHERE id = ${id(r)}`],
    [2, (r) => `DELETE FROM docs WHERE id % 40 = ${r.below(40)}`],
    [6, (r) => `INSERT INTO places VALUES (${region(r)}, ${id(r)}, ${word(r)}) ON CONFLICT DO NOTHING`],
    [4, (r) => `UPDATE places SET note = ${word(r)} WHERE region = ${region(r)} AND id > ${id(r)}`],
    [4, (r) => `UPDATE places SET region = ${region(r)} WHERE id = ${id(r)}`],
    [3, (r) => `UPDATE places SET id = (id + 60) % 120 WHERE id = ${id(r)}`],
    [2, (r) => `DELETE FROM places WHERE id % 12 = ${r.below(12)}`],
    [
      6,
      (r) =>
        `INSERT INTO scalars VALUES (${id(r)}, ${scalarTypes.map((_, index) => scalarOf(r, index)).join(", ")}) ON CONFLICT DO NOTHING`
    ],
    [
      4,
      (r) => {
        const index = r.below(scalarTypes.length)
        return `UPDATE scalars SET c${index} = ${scalarOf(r, index)} WHERE id % 6 = ${r.below(6)}`
      }
    ],
    [1, (r) => `DELETE FROM scalars WHERE id % 15 = ${r.below(15)}`],
    [4, (r) => `INSERT INTO arrays VALUES (${r.below(30)}, ${arrayRow(r)})`],
    [
      3,
      (r) => {
        const index = r.below(listTypes.length)
        const value = array(r, listTypes[index]!, edges, options.values)
        return `UPDATE arrays SET c${index} = ${value} WHERE ${some("arrays", `id % 4 = ${r.below(4)}`, 3)}`
      }
    ],
    [2, (r) => `DELETE FROM arrays WHERE ${some("arrays", `id % 5 = ${r.below(5)}`, 4)}`],
    [
      // Seldom: what is truncated cannot be told apart any more at the end.
      0.25,
      (r) =>
        r.pick([
          "TRUNCATE items CASCADE",
          "TRUNCATE parts RESTART IDENTITY",
          "TRUNCATE loose, arrays",
          `TRUNCATE ${odd}, coded, docs`,
          "TRUNCATE places",
          options.partitions === "root" ? "TRUNCATE scalars" : "TRUNCATE ONLY places_2, places_low"
        ])
    ],
    [2, (r) => `SELECT pg_logical_emit_message(${r.chance(50)}, 'workload', ${word(r)})`]
  ]
}

/** A transaction as it will be tried: each entry one round trip. */
interface PlannedTransaction {
  readonly statements: ReadonlyArray<string>
  readonly end: "commit" | "rollback" | "prepare"
}

/** Savepoints within savepoints, some kept, some rolled back to, some left open. */
const planTransaction = (random: Random, options: WorkloadOptions, make: Maker): PlannedTransaction => {
  const statements: Array<string> = []
  const length = 1 + random.below(random.chance(10) ? 20 : 6)
  let depth = 0
  for (let count = 0; count < length; count++) {
    if (random.chance(15)) statements.push(`SAVEPOINT s${++depth}`)
    statements.push(make(random))
    if (depth > 0 && random.chance(20)) {
      // Rolling back to a savepoint keeps it; releasing it does not.
      if (random.chance(50)) statements.push(`ROLLBACK TO s${depth}`)
      else statements.push(`RELEASE s${depth--}`)
    }
  }
  const end = random.chance(10) ? "rollback" : options.end === "prepare" && random.chance(40) ? "prepare" : "commit"
  return { statements, end }
}

/**
 * What sessions that get in each other's way are told: deadlock, a row moved to another partition, lock not available,
 * and a key that was taken, or whose row was deleted, meanwhile.
 */
const collisions = new Set(["40P01", "40001", "55P03", "23505", "23503"])

const orLost = <A>(effect: Effect.Effect<A, PgServerFailed>): Effect.Effect<A | "lost", PgServerFailed> =>
  Effect.catchIf(
    effect,
    (error) => collisions.has(error.sqlState ?? ""),
    () => Effect.succeed("lost" as const)
  )

/** One session's share, transaction after transaction. What it has prepared waits while it goes on. */
const runSession = Effect.fnUntraced(function* (
  session: PgSession.PgSession,
  random: Random,
  options: WorkloadOptions & { readonly statements: number; readonly name: string }
) {
  const weighted = makers(options).flatMap(([weight, make]) => Array.from({ length: weight * 4 }, () => make))
  const report = { statements: 0, committed: 0, rolledBack: 0, prepared: 0, lost: 0 }
  let waiting: string | undefined
  const decide = Effect.suspend(() => {
    if (waiting === undefined) return Effect.void
    const gid = quoteLiteral(waiting)
    waiting = undefined
    return session.query(random.chance(75) ? `COMMIT PREPARED ${gid}` : `ROLLBACK PREPARED ${gid}`)
  })
  // A session waits for one that waits for it no longer than a moment.
  yield* session.query("SET deadlock_timeout = '10ms'; SET lock_timeout = '50ms'; SET timezone = 'UTC'")
  while (report.statements < options.statements) {
    const { end, statements } = planTransaction(random, options, (inner) => inner.pick(weighted)(inner))
    const outcome = yield* orLost(
      Effect.forEach(["BEGIN", ...statements], (statement) => session.query(statement), { discard: true })
    )
    report.statements += statements.length
    if (outcome === "lost") {
      report.lost += 1
      yield* session.query("ROLLBACK")
    } else if (end === "rollback") {
      report.rolledBack += 1
      yield* session.query("ROLLBACK")
    } else if (end === "commit") {
      report.committed += 1
      yield* session.query("COMMIT")
    } else {
      const gid = `${options.name} ${report.prepared++}`
      yield* session.query(`PREPARE TRANSACTION ${quoteLiteral(gid)}`)
      yield* decide
      waiting = gid
      continue
    }
    if (random.chance(50)) yield* decide
  }
  yield* decide
  return report
})

/** Runs the whole workload. Fails on any error of the server's that is no collision between sessions. */
export const runWorkload = Effect.fnUntraced(function* (
  connect: Effect.Effect<PgSession.PgSession, PgServerFailed, Scope.Scope>,
  options: WorkloadOptions
): Effect.fn.Return<WorkloadReport, PgServerFailed, Scope.Scope> {
  const { seed, sessions = 4, statements = 2000 } = options
  const reports = yield* Effect.forEach(
    Array.from({ length: sessions }, (_, index) => index),
    Effect.fnUntraced(function* (index) {
      const session = yield* connect
      return yield* runSession(session, new Random(seed + index * 7919), {
        ...options,
        statements: statements / sessions,
        name: `workload ${seed}/${index}`
      })
    }),
    { concurrency: "unbounded" }
  )
  const sum = (key: keyof WorkloadReport) => reports.reduce((total, report) => total + report[key], 0)
  return {
    statements: sum("statements"),
    committed: sum("committed"),
    rolledBack: sum("rolledBack"),
    prepared: sum("prepared"),
    lost: sum("lost")
  }
})
