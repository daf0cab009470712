/**
 * The message of our own: what change data capture has in common, as one JSON object of a shape that stays (docs/sinks.md).
 * Values are as docs/values.md has them. A column that was not sent is absent, and named in `unchanged`: never null, and
 * never a placeholder. The public module `Envelope`.
 */
import type { Relation } from "../change/Relation.ts"
import * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type { Encoder, Event, Origin, Source } from "./Message.ts"
import { encodeContent, encodeRow, encodeValue, jsonNulls, quote } from "./ValueJson.ts"

const sources = new WeakMap<Source, string>()

/** What all of a session's messages say of where they come from. */
const sourceText = (source: Source): string => {
  let text = sources.get(source)
  if (text === undefined) {
    const { slot, system } = source
    const where =
      system === undefined
        ? ""
        : `"system":"${system.systemId}","timeline":${system.timeline},"database":${quote(system.database)},`
    text = `"source":{${where}"slot":${quote(slot)}`
    sources.set(source, text)
  }
  return text
}

const relations = new WeakMap<Relation, string>()

const relationText = (relation: Relation): string => {
  let text = relations.get(relation)
  if (text === undefined) {
    text = `,"schema":${quote(relation.schema)},"table":${quote(relation.name)}`
    relations.set(relation, text)
  }
  return text
}

/** Of all changes of one transaction the same. */
const origins = new WeakMap<Origin, string>()

const originText = (origin: Origin): string => {
  let text = origins.get(origin)
  if (text === undefined) {
    const xid = origin.xid === undefined ? "" : `,"xid":${origin.xid}`
    const time = origin.time === undefined ? "" : `,"time":"${PgTimestamp.format(origin.time)}"`
    text = `,"lsn":"${Lsn.format(origin.lsn)}"${xid}${time}`
    origins.set(origin, text)
  }
  return text
}

/** Where it comes from: the member `source`. */
const encodeSource = ({ isLast, ordinal, origin, relation, source }: Event): string => {
  const place = ordinal === undefined ? "" : `,"ordinal":${ordinal},"last":${isLast}`
  return `${sourceText(source)}${relation === undefined ? "" : relationText(relation)}${originText(origin)}${place}}`
}

const tableNames = (tables: ReadonlyArray<{ readonly relation: Relation }>): string =>
  tables.map(({ relation }) => `{"schema":${quote(relation.schema)},"table":${quote(relation.name)}}`).join(",")

/** What is told of an op beside rows: members, each with a comma before. */
const encodeDetail = (detail: Event["detail"]): string => {
  switch (detail?._tag) {
    case undefined:
      return ""
    case "Truncate":
      return `,"cascade":${detail.cascade},"restartIdentity":${detail.restartIdentity}`
    case "Message":
      return `,"prefix":${quote(detail.prefix)},"transactional":${detail.transactional},${encodeContent(detail.content)}`
    case "Gap":
      return `,"gap":{"reason":${quote(detail.reason)},"lastLsn":${detail.lastLsn === undefined ? null : `"${Lsn.format(detail.lastLsn)}"`},"consistentPoint":"${Lsn.format(detail.consistentPoint)}"}`
    case "End":
      return `,"count":${detail.count}`
    case "Snapshot":
      return `,"snapshot":{"state":"${detail.state}","attempt":${detail.of.attempt},"consistentPoint":"${Lsn.format(detail.of.consistentPoint)}","tables":[${tableNames(detail.of.tables)}]}`
    case "Table":
      return `,"snapshot":{"state":"${detail.state}"}`
  }
}

/**
 * A change as JSON.
 *
 * @example
 * Envelope.encode(event) // => {"op":"c","key":{"id":1},"after":{"id":1,"total":"9.90"},"before":null,"source":{...}}
 */
export const encode: Encoder = (event) => {
  const { after, before, key, op, relation, unchanged } = event
  let text = `{"op":"${op}"`
  if (relation !== undefined && op !== "t" && op !== "s") {
    text += `,"key":${key === undefined ? "null" : encodeRow(key)}`
    text += `,"after":${after === undefined ? "null" : encodeRow(after)}`
    text += `,"before":${before === undefined ? "null" : encodeRow(before)}`
    if (unchanged.length > 0) text += `,"unchanged":${encodeValue(unchanged)}`
    text += jsonNulls({ after, before })
  }
  return `${text}${encodeDetail(event.detail)},${encodeSource(event)}}`
}
