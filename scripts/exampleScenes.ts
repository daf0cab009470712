/** What each program of `examples/` finds when it is run by `npm run example`. */
import { join } from "node:path"

/** What an example finds, and what happens meanwhile. */
export interface Scene {
  readonly tables: string
  /** The `count`th thing that happens. */
  readonly happens: (count: number) => string
  /** Beside DATABASE_URL; `directory` is gone when it ends. */
  readonly environment?: ((directory: string, url: string) => Readonly<Record<string, string>>) | undefined
  /** Where to look. */
  readonly look?: string | undefined
  /** A file in `directory` that it writes: shown as it grows. */
  readonly file?: string | undefined
}

const insertOrder = (count: number) => `INSERT INTO orders VALUES (${count}, 'tea', ${count}) ON CONFLICT DO NOTHING`

const orders: Pick<Scene, "tables" | "happens"> = {
  tables: "CREATE TABLE orders (id int PRIMARY KEY, note text, big bigint); CREATE PUBLICATION orders FOR TABLE orders",
  happens: (count) =>
    count % 3 === 0 ? `UPDATE orders SET note = 'coffee' WHERE id = ${count - 1}` : insertOrder(count)
}

export const scenes: { readonly [name: string]: Scene } = {
  "print-changes": orders,
  "cache-invalidation": orders,
  "audit-log": {
    ...orders,
    environment: (directory) => ({ AUDIT_LOG: join(directory, "audit.jsonl") }),
    file: "audit.jsonl"
  },
  sink: { ...orders, environment: (directory) => ({ SINK_FILE: join(directory, "sink.jsonl") }), file: "sink.jsonl" },
  cluster: {
    ...orders,
    tables: `${orders.tables}; SELECT pg_create_logical_replication_slot('orders_cluster', 'pgoutput')`
  },
  replica: {
    ...orders,
    environment: (_, url) => ({ REPLICA_URL: url.replace(/\/shop$/, "/replica") }),
    look: "both databases have the same rows"
  },
  "typed-tables": {
    tables: `CREATE TABLE orders (id int PRIMARY KEY, total numeric(9,2), note text);
      CREATE TABLE refunds (order_id int, amount numeric(9,2)); CREATE PUBLICATION shop FOR TABLE orders, refunds`,
    happens: (count) =>
      count % 3 === 0
        ? `INSERT INTO refunds VALUES (${count - 1}, ${count}.50)`
        : `INSERT INTO orders VALUES (${count}, ${count}.99, NULL)`
  },
  outbox: {
    tables: "CREATE TABLE orders (item text); CREATE PUBLICATION outbox",
    happens: (count) =>
      `SELECT pg_logical_emit_message(true, 'orders.placed',
        '{"item":"tea ${count}","placedAt":"2026-11-30T12:00:00.000Z"}')`
  },
  "search-index": {
    tables: `CREATE TABLE articles (id int PRIMARY KEY, title text NOT NULL, body text NOT NULL);
      INSERT INTO articles VALUES (1, 'Tea', 'green'); CREATE PUBLICATION articles FOR TABLE articles`,
    happens: (count) => `INSERT INTO articles VALUES (${count + 1}, 'Article ${count}', 'about tea')`,
    environment: (directory) => ({ INDEX_FILE: join(directory, "index.jsonl"), CHECKPOINTS: directory }),
    file: "index.jsonl",
    look: "each line is a bulk request"
  },
  "read-model": {
    tables: `CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL, status text NOT NULL);
      CREATE PUBLICATION orders FOR TABLE orders`,
    happens: (count) =>
      count % 3 === 0
        ? `UPDATE orders SET status = 'paid' WHERE id = ${count - 1}`
        : `INSERT INTO orders VALUES (${count}, 'Ann', ${count}.50, 'new')`,
    environment: (_, url) => ({ READ_MODEL_URL: url.replace(/\/shop$/, "/replica") }),
    look: "the database replica has order_list, and open_totals"
  },
  "live-page": {
    tables: `CREATE TABLE tickets (id int PRIMARY KEY, title text, status text);
      CREATE PUBLICATION tickets FOR TABLE tickets`,
    happens: (count) =>
      count % 3 === 0
        ? `UPDATE tickets SET status = 'done' WHERE id = ${count - 2}`
        : `INSERT INTO tickets VALUES (${count}, 'ticket ${count}', 'open')`,
    environment: () => ({ PORT: process.env.PORT ?? "3000" }),
    look: `open http://127.0.0.1:${process.env.PORT ?? "3000"}`
  }
}
