/** What a failure of NATS or of its client means to a sink: told by codes and by what kind of error it is, never by its text. */
import { type SinkError, SinkFull, SinkRefused, SinkRejected, SinkUnavailable } from "@replicant/core/sink"

/** An answer of JetStream that is an error. */
export interface ApiError {
  readonly code: number
  readonly err_code?: number | undefined
  readonly description?: string | undefined
}

/** An answer to who appended, which names its predecessor, and stands where another does. */
export const isOfChain = ({ err_code }: ApiError): boolean =>
  // Another last id, another last sequence, and how current servers call that.
  err_code === 10_070 || err_code === 10_071 || err_code === 10_164

/** Of what it has too little: memory, the disk, or what its account or the stream may take. */
const full = new Set([10_002, 10_023, 10_028, 10_047, 10_077])

/** A message that is larger than may be. */
const large = new Set([10_054, 10_097])

/** An error of JetStream, as a sink tells it; `message` is what it was about. */
export const fromApi = (
  sink: string,
  { code, description = "no reason", err_code = 0 }: ApiError,
  message?: { readonly id: string; readonly size: number } | undefined
): SinkError => {
  const detail = `${description} (${err_code})`
  if (message !== undefined && large.has(err_code)) return new SinkRejected({ sink, ...message, detail })
  if (full.has(err_code)) {
    const remedy =
      "raise the stream's or the account's limits, or make room on the disk: what is missing is appended then"
    return new SinkFull({ sink, detail, remedy })
  }
  // It is starting, or has no leader; or there is too much on its way.
  if (code === 503 || code === 429 || code === 408) return new SinkUnavailable({ sink, reason: "NotReady", detail })
  if (err_code === 10_059) {
    const remedy =
      'make it: nats stream add SHOP --subjects "shop.>" --storage file --retention limits; or give `createStream`'
    return new SinkRefused({ sink, reason: "Setup", detail, remedy })
  }
  const remedy =
    "see that JetStream is enabled for the account, and that the stream takes messages and is the sink's alone"
  return new SinkRefused({ sink, reason: "Setup", detail, remedy })
}

const field = (cause: unknown, name: string): unknown =>
  (cause as { readonly [name: string]: unknown } | undefined)?.[name]

/** The code of a socket's error, which the client puts into one or two of its own. */
const socketCode = (cause: unknown): string => {
  const code = field(cause, "code")
  if (typeof code === "string") return code
  const inner = field(cause, "cause")
  return inner === undefined || inner === cause ? "" : socketCode(inner)
}

/** A failure of the client, or what it was told, as a sink tells it. */
export const fromNats = (sink: string, cause: unknown): SinkError => {
  const name = String(field(cause, "name"))
  const detail = cause instanceof Error ? cause.message : String(cause)
  // Thrown by its client's manager, with the answer in it.
  const apiError = field(cause, "apiError")
  if (typeof apiError === "function") return fromApi(sink, apiError.call(cause) as ApiError)
  const inner = name === "RequestError" ? field(cause, "cause") : undefined
  if (inner !== undefined && inner !== cause) return fromNats(sink, inner)
  switch (name) {
    case "AuthorizationError":
    case "UserAuthenticationExpiredError": {
      const remedy = "give `connection` a user and password, a token, or an authenticator that is still good"
      return new SinkRefused({ sink, reason: "Authentication", detail, remedy })
    }
    case "PermissionViolationError": {
      const what = field(cause, "operation") === "publish" ? "publish to" : "subscribe to"
      const remedy = `let the user ${what} "${field(cause, "subject")}"; a sink publishes to the stream's subjects and to $JS.API.>, and subscribes to _INBOX.>`
      return new SinkRefused({ sink, reason: "Permission", detail, remedy })
    }
    case "TimeoutError":
      return new SinkUnavailable({ sink, reason: "TimedOut", detail })
    case "NoRespondersError":
    case "RequestError":
    case "JetStreamNotEnabled":
      // It says nothing of why: JetStream begins a moment after the server, and some servers have none.
      return new SinkUnavailable({ sink, reason: "NotReady", detail: `no JetStream answers: ${detail}` })
    default: {
      const code = socketCode(cause)
      if (/^(?:CERT_|ERR_TLS_|ERR_SSL_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_)/.test(code)) {
        const remedy = "see `connection.tls`: its `ca`, and for whom the server's certificate is"
        return new SinkRefused({ sink, reason: "Tls", detail, remedy })
      }
      const isRefused = code === "ECONNREFUSED" || code === "ENOTFOUND" || name === "ConnectionError"
      return new SinkUnavailable({ sink, reason: isRefused ? "Refused" : "Closed", detail })
    }
  }
}
