/** Two declared messages, and messages made by hand, in the transaction of `../table/shop.ts`. */
import * as Schema from "effect/Schema"
import type { Begin, Message } from "../../src/change/Change.ts"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as OutboxMessage from "../../src/outbox/OutboxMessage.ts"
import { begin } from "../table/shop.ts"

export const OrderPlaced = OutboxMessage.make(
  "orders.placed",
  Schema.Struct({ id: Schema.BigInt, placedAt: Schema.Date, tags: Schema.Array(Schema.String) })
)
export const OrderCancelled = OutboxMessage.make("orders.cancelled", Schema.Struct({ id: Schema.BigInt }))

export const placed = { id: 9_007_199_254_740_993n, placedAt: new Date(86_400_000), tags: ["tea", "é €"] }
export const placedJson =
  '{"id":"9007199254740993","placedAt":"1970-01-02T00:00:00.000Z","tags":["tea","\\u00e9 \\u20ac"]}'

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** A message of the shop's transaction. */
export const emitted = (prefix: string, text: string, of: Begin = begin): Message => ({
  _tag: "Message",
  transactional: true,
  begin: of,
  ordinal: 1,
  lsn: Lsn.fromString("0/120")!,
  prefix,
  content: utf8(text),
  nextLsn: undefined
})

const run = new Run()

/** A message outside any transaction. */
export const standalone = (prefix: string, text: string): Message => ({
  ...emitted(prefix, text),
  transactional: false,
  begin: undefined,
  ordinal: 0,
  nextLsn: NextLsn.deliver(Lsn.fromString("0/120")!, run)
})
