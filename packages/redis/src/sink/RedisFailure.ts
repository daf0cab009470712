/** What a failure of a Redis client means to a sink: told by the word that a reply begins with, or by the socket's. */
import { type SinkError, SinkFull, SinkRefused, SinkUnavailable } from "@replicant/core/sink"
import type * as Redis from "effect/persistence/Redis"

/** Replies that pass: it is starting, failing over, or busy. */
const passing = /^(?:LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|READONLY|NOREPLICAS|UNKILLABLE)\b/

const textOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** The failure as a sink tells it. */
export const fromRedis = (sink: string, { cause }: Redis.RedisError): SinkError => {
  const detail = textOf(cause)
  const code = String((cause as { readonly code?: unknown } | undefined)?.code ?? "")
  if (/^(?:NOAUTH|WRONGPASS)\b|invalid username-password/i.test(detail)) {
    const remedy = "give the client its user name and password: its options, or the URL"
    return new SinkRefused({ sink, reason: "Authentication", detail, remedy })
  }
  if (/^NOPERM\b/.test(detail)) {
    const remedy = "ACL SETUSER … ~<keys> +@scripting +@stream +@hash +type"
    return new SinkRefused({ sink, reason: "Permission", detail, remedy })
  }
  if (/\bOOM command not allowed\b/.test(detail)) {
    const remedy = "raise maxmemory, or let streams be trimmed (`maxLength`): what is missing is appended then"
    return new SinkFull({ sink, detail, remedy })
  }
  if (/^MISCONF\b/.test(detail))
    return new SinkFull({ sink, detail, remedy: "see Redis' log: it cannot write to its disk, which mostly is full" })
  if (passing.test(detail)) return new SinkUnavailable({ sink, reason: "NotReady", detail })
  if (/^(?:CERT_|ERR_TLS_|ERR_SSL_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_)/.test(code))
    return new SinkRefused({
      sink,
      reason: "Tls",
      detail,
      remedy: "see the client's `socket.tls`, `ca` and `servername`"
    })
  if (code === "ECONNREFUSED" || code === "ENOTFOUND") return new SinkUnavailable({ sink, reason: "Refused", detail })
  // A reply begins with a word in capitals. All else is the connection's.
  if (/^[A-Z]{3,} /.test(detail)) {
    const remedy = "see that Redis is 7 or later, and that the keys of the sink are its alone"
    return new SinkRefused({ sink, reason: "Setup", detail, remedy })
  }
  return new SinkUnavailable({ sink, reason: "Closed", detail })
}
