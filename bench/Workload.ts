/** What is drained: a table, how it is filled, and how many changes a client must count. */

export interface Workload {
  readonly name: string
  readonly title: string
  /** Run before the slots are made. */
  readonly schema: string
  /** Run after: this is the backlog. One statement a text, each its own transaction unless it commits by itself. */
  readonly load: ReadonlyArray<string>
  /** Inserts, updates and deletes in it. */
  readonly changes: number
}

const wideTypes = [
  "int",
  "bigint",
  "text",
  "boolean",
  "timestamptz",
  "numeric(12,2)",
  "uuid",
  "double precision",
  "date",
  "jsonb"
]

const wideValues = [
  "i",
  "i::bigint * 1000003",
  "'a text of some thirty bytes ' || i",
  "i % 2 = 0",
  "timestamptz '2024-01-01 00:00:00Z' + i * interval '1 second'",
  "i / 7.0",
  "md5(i::text)::uuid",
  "i * 1.5",
  "date '2024-01-01' + i % 365",
  `'{"a": 1, "b": "two"}'`
]

const narrowColumns = "id int PRIMARY KEY, customer int, amount numeric(12,2), note text, paid boolean, at timestamptz"
const narrowRow =
  "i, i % 1000, i / 7.0, 'order number ' || i, i % 2 = 0, timestamptz '2024-01-01 00:00:00Z' + i * interval '1 second'"

/** Commits every `size` rows, in one call. */
const inTransactions = (rows: number, size: number, statement: string): string =>
  `DO $$ BEGIN FOR b IN 0..${Math.ceil(rows / size) - 1} LOOP ${statement
    .replaceAll("$from", `b * ${size} + 1`)
    .replaceAll("$to", `(b + 1) * ${size}`)}; COMMIT; END LOOP; END $$`

/** The workloads, at `scale` times their usual size. */
export const workloads = (scale = 1): ReadonlyArray<Workload> => {
  const n = (rows: number) => Math.max(100, Math.round((rows * scale) / 100) * 100)
  const wide = wideTypes.concat(wideTypes, wideTypes)
  return [
    {
      name: "narrow",
      title: "narrow rows, 100 a transaction",
      schema: `CREATE TABLE t (${narrowColumns})`,
      load: [inTransactions(n(500_000), 100, `INSERT INTO t SELECT ${narrowRow} FROM generate_series($from, $to) i`)],
      changes: n(500_000)
    },
    {
      name: "onerow",
      title: "one-row transactions",
      schema: `CREATE TABLE t (${narrowColumns})`,
      load: [inTransactions(n(100_000), 1, `INSERT INTO t SELECT ${narrowRow} FROM generate_series($from, $to) i`)],
      changes: n(100_000)
    },
    {
      name: "large",
      title: "one transaction of 500,000",
      schema: `CREATE TABLE t (${narrowColumns})`,
      load: [`INSERT INTO t SELECT ${narrowRow} FROM generate_series(1, ${n(500_000)}) i`],
      changes: n(500_000)
    },
    {
      name: "wide",
      title: "wide rows, 30 columns",
      schema: `CREATE TABLE t (${wide.map((type, index) => `c${index} ${type}`).join(", ")})`,
      load: [
        inTransactions(
          n(300_000),
          100,
          `INSERT INTO t SELECT ${wide.map((_, index) => wideValues[index % wideValues.length]).join(", ")} FROM generate_series($from, $to) i`
        )
      ],
      changes: n(300_000)
    },
    {
      name: "update",
      title: "updates, full identity",
      schema: `CREATE TABLE t (${narrowColumns}); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT ${narrowRow} FROM generate_series(1, ${n(200_000)}) i`,
      load: [inTransactions(n(200_000), 100, "UPDATE t SET amount = amount + 1 WHERE id BETWEEN $from AND $to")],
      changes: n(200_000)
    },
    {
      name: "values100k",
      title: "100 kB values",
      schema: "CREATE TABLE t (id int PRIMARY KEY, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL",
      load: [
        inTransactions(
          n(4000),
          10,
          "INSERT INTO t SELECT i, repeat(md5(i::text), 3200) FROM generate_series($from, $to) i"
        )
      ],
      changes: n(4000)
    }
  ]
}
