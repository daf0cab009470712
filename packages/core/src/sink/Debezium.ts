/**
 * Debezium's envelope, without schema blocks, for consumers that are there already: `before`, `after`, `source`, `op`, `ts_ms`,
 * and of an emitted message `message`. The public module `Debezium`.
 *
 * What is ours: numerics and times are text as in docs/values.md, whatever `decimal.handling.mode` would make of them; and a
 * column that was not sent is absent instead of a placeholder that could pass for a value. Source:
 * https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events
 */
import * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type { Encoder, Event } from "./Message.ts"
import { encodeRow, quote } from "./ValueJson.ts"

/** What Debezium calls a server: the first part of its topics. */
export interface Options {
  readonly name: string
}

const millis = (time: PgTimestamp.PgTimestamp | undefined): string =>
  time === undefined ? "null" : String(Math.floor(PgTimestamp.toMillis(time)))

/** Of a snapshot's rows Debezium says `true`. */
const encodeSource = (name: string, { op, origin, relation, source }: Event): string => {
  const where = `"version":"replicant","connector":"postgresql","name":${quote(name)},"ts_ms":${millis(origin.time)}`
  const table = relation === undefined ? "" : `,"schema":${quote(relation.schema)},"table":${quote(relation.name)}`
  const database = source.system === undefined ? "" : `,"db":${quote(source.system.database)}`
  return `{${where},"snapshot":"${op === "r"}"${database}${table},"txId":${origin.xid ?? null},"lsn":${origin.lsn}}`
}

const base64 = (bytes: Uint8Array): string => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))

const encodeMessage = ({ detail }: Event): string =>
  detail?._tag === "Message"
    ? `,"message":{"prefix":${quote(detail.prefix)},"content":"${base64(detail.content)}"}`
    : ""

/**
 * An encoder of Debezium's envelope.
 *
 * @example
 * Sink.handler({ encode: Debezium.encoder({ name: "shop" }), tombstones: true })
 */
export const encoder =
  ({ name }: Options): Encoder =>
  (event) => {
    const { after, before, id, key, op, origin } = event
    const old = before ?? (op === "d" ? key : undefined)
    const rows = `"before":${old === undefined ? "null" : encodeRow(old)},"after":${after === undefined ? "null" : encodeRow(after)}`
    const transaction = `"transaction":${origin.xid === undefined ? "null" : `{"id":"${origin.xid}:${Lsn.format(origin.lsn)}","total_order":${(event.ordinal ?? 0) + 1},"data_collection_order":null}`}`
    return `{${rows},"source":${encodeSource(name, event)},"op":"${op}","ts_ms":${millis(origin.time)},${transaction}${encodeMessage(event)},"replicant_id":"${id}"}`
  }
