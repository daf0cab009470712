/**
 * The W3C trace parent, `00-<trace id>-<span id>-<flags>`: how one process tells another which span it works for.
 *
 * Source: https://www.w3.org/TR/trace-context/#traceparent-header
 */

/** What a trace parent says of a span. */
export interface SpanIdentity {
  /** 32 hex digits. */
  readonly traceId: string
  /** 16 hex digits. */
  readonly spanId: string
  readonly sampled: boolean
}

const pattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/
const zeros = /^0+$/

/**
 * The span that a trace parent names; `undefined` for what is none, which is to be ignored. Versions to come may append
 * fields.
 */
export const fromString = (text: string): SpanIdentity | undefined => {
  const [, version, traceId, spanId, flags, more] = pattern.exec(text) ?? []
  if (traceId === undefined || spanId === undefined || version === "ff") return undefined
  if (zeros.test(traceId) || zeros.test(spanId) || (version === "00" && more !== undefined)) return undefined
  return { traceId, spanId, sampled: (Number.parseInt(flags!, 16) & 1) === 1 }
}

/** The trace parent of a span; `undefined` when its tracer has other identifiers than W3C's. */
export const format = ({ sampled, spanId, traceId }: SpanIdentity): string | undefined => {
  const text = `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
  return fromString(text) === undefined ? undefined : text
}
