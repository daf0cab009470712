/**
 * The shop of the demonstration: four tables with the types that make a change interesting, and a writer that keeps shop.
 * It writes through `pg` like any other program, and knows nothing of replication.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

/** SQL text, run in one transaction. */
export type Sql = string

export const schema: Sql = `
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'cancelled');
CREATE TABLE customers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  email text NOT NULL UNIQUE,
  preferences jsonb NOT NULL DEFAULT '{}',
  joined timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE products (
  sku text PRIMARY KEY,
  title text NOT NULL,
  price numeric(10, 2) NOT NULL,
  stock integer NOT NULL,
  tags text[] NOT NULL DEFAULT '{}',
  manual text NOT NULL
);
-- Kept out of line: an update that leaves it alone does not send it.
ALTER TABLE products ALTER manual SET STORAGE EXTERNAL;
CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES customers,
  status order_status NOT NULL DEFAULT 'new',
  total numeric(12, 2) NOT NULL,
  placed timestamptz NOT NULL DEFAULT now(),
  note text
);
CREATE TABLE order_items (
  order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
  sku text NOT NULL REFERENCES products ON UPDATE CASCADE,
  quantity integer NOT NULL,
  price numeric(10, 2) NOT NULL,
  PRIMARY KEY (order_id, sku)
);
INSERT INTO customers (name, email, preferences)
  SELECT name, lower(name) || '@example.com', jsonb_build_object('newsletter', random() < 0.5)
  FROM unnest(ARRAY['Ada', 'Edgar', 'Grace', 'Barbara', 'Donald', 'Margaret', 'Michael', 'Radia']) AS name;
INSERT INTO products (sku, title, price, stock, tags, manual)
  SELECT 'SKU-' || lpad(n::text, 4, '0'), title, (5 + 95 * random())::numeric(10, 2), 1000,
    CASE WHEN n % 2 = 0 THEN ARRAY['kitchen', 'sale'] ELSE ARRAY['garden'] END, repeat(md5(n::text), 300)
  FROM unnest(ARRAY['Teapot', 'Kettle', 'Cup', 'Spade', 'Rake', 'Sieve', 'Lamp', 'Bench', 'Broom', 'Jar'])
    WITH ORDINALITY AS listed(title, n);
CREATE PUBLICATION shop FOR ALL TABLES;
`

/** The name of the publication that {@link schema} makes. */
export const publication = "shop"

/** Two to four products go into a new order. */
const placeOrder: Sql = `
WITH chosen AS (
  SELECT sku, price, 1 + floor(3 * random())::int AS quantity FROM products WHERE stock > 10
  ORDER BY random() LIMIT 2 + floor(3 * random())::int
), placed AS (
  INSERT INTO orders (customer_id, total, note)
  SELECT (SELECT id FROM customers ORDER BY random() LIMIT 1), sum(price * quantity),
    CASE WHEN random() < 0.3 THEN 'gift, please wrap' END FROM chosen RETURNING id
), sold AS (
  UPDATE products SET stock = stock - chosen.quantity FROM chosen WHERE products.sku = chosen.sku
)
INSERT INTO order_items (order_id, sku, quantity, price) SELECT placed.id, sku, quantity, price FROM placed, chosen`

const moveOn = (from: string, to: string): Sql => `
UPDATE orders SET status = '${to}' WHERE id IN (SELECT id FROM orders WHERE status = '${from}' ORDER BY id LIMIT 2)`

/** Rows that refer to it go first, by the foreign key's cascade. */
const forgetOrder: Sql = `
DELETE FROM orders WHERE id = (SELECT id FROM orders WHERE status IN ('shipped', 'cancelled') ORDER BY id LIMIT 1)`

/** The manual stays as it is, and is not sent. */
const changePrices: Sql = `
UPDATE products SET price = greatest(1, price + (2 * random() - 1)::numeric(10, 2)), stock = stock + 20
WHERE sku IN (SELECT sku FROM products ORDER BY random() LIMIT 2)`

/** A new key: the change tells the old one beside the row. */
const renumberProduct: Sql = `
UPDATE products SET sku = 'SKU-' || lpad((1 + floor(9999 * random()))::int::text, 4, '0')
WHERE sku = (SELECT sku FROM products ORDER BY random() LIMIT 1)`

const rewriteManual: Sql = `
UPDATE products SET manual = repeat(md5(random()::text), 300), tags = array_append(tags[1:2], 'new')
WHERE sku = (SELECT sku FROM products ORDER BY random() LIMIT 1)`

const welcomeCustomer: Sql = `
WITH number AS (SELECT floor(1e9 * random())::bigint AS n)
INSERT INTO customers (name, email, preferences)
SELECT 'Customer ' || n, 'c' || n || '@example.com', jsonb_build_object('language', 'en', 'since', n) FROM number`

const changePreferences: Sql = `
UPDATE customers SET preferences = preferences || jsonb_build_object('newsletter', random() < 0.5)
WHERE id = (SELECT id FROM customers ORDER BY random() LIMIT 1)`

/** What happens in the shop, the frequent things more than once. */
export const scenes: ReadonlyArray<Sql> = [
  placeOrder,
  moveOn("new", "paid"),
  placeOrder,
  changePrices,
  moveOn("paid", "shipped"),
  welcomeCustomer,
  placeOrder,
  renumberProduct,
  forgetOrder,
  moveOn("new", "cancelled"),
  changePreferences,
  rewriteManual
]

/**
 * Keeps shop until interrupted: one transaction after the other, every `everyMillis` on average. A transaction that
 * fails, since two keys met, is one that did not happen.
 */
export const keepShop = <E>(run: (sql: Sql) => Effect.Effect<unknown, E>, everyMillis: number): Effect.Effect<never> =>
  Effect.gen(function* () {
    for (let scene = 0; ; scene++) {
      yield* Effect.ignore(run(scenes[scene % scenes.length]!))
      yield* Effect.sleep(everyMillis * (yield* Random.nextBetween(0.5, 1.5)))
    }
  })
