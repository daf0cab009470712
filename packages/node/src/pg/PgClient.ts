/**
 * A `pg` client in replication mode, within a scope: opened, asked, and watched while an answer is due. Or in an ordinary
 * session. How it is robbed of its socket is in `SocketTakeover.ts`.
 *
 * The two alone touch what `pg` keeps private: `Connection` with its `stream`, its `attachListeners` and its
 * events. Nothing that goes wrong in there reaches the process as an uncaught error.
 */
import type { EventEmitter } from "node:events"
import { Socket } from "node:net"
import type { ConnectionOptions } from "node:tls"
import { DecodeError, InvalidOption, type ReplicationError } from "@replicant/core"
import { Frames, FrontendMessage, logText, type QueryRow } from "@replicant/core/driver"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import pg from "pg"
import { type Standing, watchAnswers } from "./AnswerWatch.ts"
import { authenticationFailed, guardAuthentication, maxScramIterations, noPassword } from "./PgAuthentication.ts"
import type { PgConfig } from "./PgConfig.ts"
import { address, queryFailure } from "./PgServerError.ts"

/** What of `pg`'s `Connection` is used here and missing in its types. */
interface PrivateConnection extends EventEmitter {
  /** The TCP socket, and after the TLS handshake the TLS socket around it. */
  readonly stream: Socket
  /** Makes the parser a `data` listener of the stream that carries the protocol. */
  attachListeners: (stream: Socket) => void
}

/** `pg` takes these, too. */
interface ReplicationClientConfig extends pg.ClientConfig {
  readonly replication?: "database" | undefined
  readonly scramMaxIterations: number
}

/** What the server says beside an answer. */
interface Notice {
  readonly severity?: string | undefined
  readonly code?: string | undefined
  readonly message?: string | undefined
}

/** One session, as the server knows it. */
export interface Backend {
  readonly pid: string
  /** When its server was started: by which another server, or the same one restarted, is known. */
  readonly serverStart: string
}

/** An open client, and what we watch of it. */
export interface PgClient {
  readonly client: pg.Client
  readonly connection: PrivateConnection
  /** The TCP socket, also below TLS. */
  readonly tcp: Socket
  readonly config: PgConfig
  /** Walks beside `pg`'s parser: whether that one holds a part of a message. */
  readonly frames: Frames
  readonly notices: Array<Notice>
  /** With what the server was refused, if it was. */
  readonly refused: () => Error | undefined
  /** Queries sent whose ReadyForQuery has not come. */
  unanswered: number
  /** Somebody waits for bytes of a copy, and no silence is expected. */
  isPulling: boolean
  /** How often somebody began to wait. */
  waits: number
  /** Which backend answers, once it has been asked. */
  backend: Backend | undefined
  /** What broke the connection, or the ErrorResponse that announced its end. */
  lost: unknown
  isReady: boolean
  isTaken: boolean
}

/** A server that has much to say during one query is not heard to the end. */
const maxNotices = 100

const keepAliveDelay = 30_000

const sameText = () => (text: string) => text

/** How a connection is opened, beside its configuration. */
export interface OpenOptions {
  /** `undefined` is plain text. */
  readonly tls: ConnectionOptions | undefined
  /** Called when the server asks for it. */
  readonly password: () => Redacted.Redacted | undefined
  /** `sql` is an ordinary session: it knows the extended protocol, and no replication commands. A walsender if left out. */
  readonly session?: "replication" | "sql" | undefined
  /** Asks over another connection what the backend is doing. Left out, nobody watches whether answers come. */
  readonly askStanding?: ((backend: Backend | undefined) => Effect.Effect<Standing>) | undefined
}

const makeClient = (config: PgConfig, { password, session, tls }: OpenOptions): PgClient => {
  const tcp = new Socket()
  const settings: ReplicationClientConfig = {
    host: config.host,
    port: config.port,
    user: config.user,
    database: config.database,
    // What is left out here, pg would take from PG* variables: so everything is said, and the password is a function.
    password: () => {
      const secret = password()
      if (secret === undefined) throw noPassword(config)
      return Redacted.value(secret)
    },
    ssl: tls ?? false,
    sslnegotiation: config.sslnegotiation,
    enableChannelBinding: tls !== undefined && config.channelBinding !== "disable",
    scramMaxIterations: maxScramIterations,
    application_name: config.applicationName,
    options: config.startupOptions,
    keepAlive: config.keepAlive,
    keepAliveInitialDelayMillis: keepAliveDelay,
    types: { getTypeParser: sameText },
    stream: () => tcp,
    ...(session === "sql" ? {} : { replication: "database" })
  }
  const client = new pg.Client(settings)
  const connection = client.connection as unknown as PrivateConnection
  const self: PgClient = {
    client,
    connection,
    tcp,
    config,
    frames: new Frames(),
    notices: [],
    refused: guardAuthentication(connection, config, tls !== undefined),
    unanswered: 0,
    isPulling: false,
    waits: 0,
    backend: undefined,
    lost: undefined,
    isReady: false,
    isTaken: false
  }
  // Without a listener an 'error' ends the process, at whatever moment it comes.
  tcp.on("error", (thrown) => {
    self.lost ??= thrown
  })
  client.on("error", (thrown) => {
    self.lost ??= thrown
    // Some of what goes wrong in the handshake `pg` says here, and then waits for ever.
    if (!self.isReady) connection.stream.destroy(thrown)
  })
  client.on("notice", (notice) => {
    if (self.notices.length < maxNotices) self.notices.push(notice)
  })
  connection.on("readyForQuery", () => {
    if (self.isReady) self.unanswered -= 1
    self.isReady = true
  })
  guardParser(self)
  return self
}

/** `pg` reads fields until it finds the zero that ends them, and for ever when there is none. */
const checkFields = ({ bytes, end, start, tag }: Frames): void => {
  if (tag !== 0x45 /* E */ && tag !== 0x4e /* N */) return
  let at = start
  while (at < end && bytes[at] !== 0) {
    const terminator = bytes.indexOf(0, at + 1)
    at = terminator < 0 ? end : terminator + 1
  }
  if (at >= end) throw new DecodeError({ problem: "fields of an error or notice without their end", offset: start })
}

/** What a parser threw, as an error to close the socket with. `pg` throws these texts, untranslated. */
const parserError = (thrown: unknown, config: PgConfig): Error => {
  if (thrown instanceof DecodeError) return thrown
  const text = thrown instanceof Error ? thrown.message : ""
  const method = /^Unknown authenticationOk message type (\d+)$/.exec(text)?.[1]
  return method === undefined
    ? new DecodeError({ problem: "the server sent something that is not PostgreSQL's protocol", offset: 0 })
    : authenticationFailed(config, `the server asks for method ${method}`, "let pg_hba.conf ask for scram-sha-256")
}

/** `pg`'s parser throws on nonsense, out of a `data` event and so out of the process: here it ends the connection. */
const guardParser = ({ config, connection, frames }: PgClient): void => {
  const attachListeners = connection.attachListeners.bind(connection)
  connection.attachListeners = (stream) => {
    attachListeners(stream)
    const parsers = stream.listeners("data")
    stream.removeAllListeners("data")
    stream.on("data", (chunk: Uint8Array) => {
      try {
        frames.push(chunk)
        while (frames.next()) checkFields(frames)
        for (const parse of parsers) parse.call(stream, chunk)
      } catch (thrown) {
        stream.destroy(parserError(thrown, config))
      }
    })
  }
}

/** Closes the socket, with a goodbye if there is somebody to hear it. Waits for nothing that the peer could withhold. */
const close = ({ connection, isReady, tcp }: PgClient): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const { stream } = connection
    if (isReady && stream.writable) stream.write(FrontendMessage.terminate)
    stream.destroy()
    tcp.destroy()
    if (stream.closed) resume(Effect.void)
    else stream.once("close", () => resume(Effect.void))
  })

/** Closes the connection, once it is open, when an answer is due and will not come. */
const watch = (self: PgClient, { askStanding }: OpenOptions): Effect.Effect<void> => {
  const { config, connection } = self
  const { answerTimeout } = config
  if (askStanding === undefined || answerTimeout === undefined) return Effect.void
  // The stream is another one once TLS is agreed.
  return watchAnswers(
    {
      address: address(config),
      isWaiting: () => (self.unanswered > 0 || self.isPulling) && !connection.stream.destroyed,
      moved: () => [self.waits, connection.stream.bytesRead, connection.stream.writableLength].join(),
      askStanding: Effect.suspend(() => askStanding(self.backend)),
      giveUp: (error) => {
        self.lost ??= error
        connection.stream.destroy(error)
      }
    },
    Duration.toMillis(answerTimeout)
  )
}

/** Opens a client, closed with the scope, or at once if it does not come up. Fails with what `pg` threw. */
export const open = Effect.fnUntraced(function* (
  config: PgConfig,
  options: OpenOptions
): Effect.fn.Return<PgClient, Error, Scope.Scope> {
  const self = yield* Effect.acquireRelease(
    Effect.sync(() => makeClient(config, options)),
    close
  )
  const connected = Effect.callback<void, Error>((resume) => {
    self.client.connect((thrown: Error | null) => {
      // In one packet with what we refused may come all that `pg` needs to be content.
      const failure = self.refused() ?? thrown
      resume(failure === null ? Effect.void : Effect.fail(failure))
    })
  })
  yield* Effect.onError(connected, () => close(self))
  yield* Effect.forkScoped(watch(self, options))
  return self
})

const logNotices = (self: PgClient): Effect.Effect<void> =>
  Effect.suspend(() =>
    Effect.forEach(
      self.notices.splice(0),
      ({ code, message, severity }) => Effect.logWarning(logText(`${severity} ${code}: ${message}`)),
      { discard: true }
    )
  )

/** Text that ends where it seems to. */
export const withoutNul = (text: string): Effect.Effect<void, InvalidOption> =>
  text.includes("\0")
    ? Effect.fail(new InvalidOption({ option: "query", problem: "must not contain a NUL character" }))
    : Effect.void

const toRow = (fields: ReadonlyArray<pg.FieldDef>, values: ReadonlyArray<string | null>): QueryRow => {
  // Without a prototype, a column may bear any name.
  const row: Record<string, string | null> = Object.create(null)
  for (const [index, field] of fields.entries()) row[field.name] = values[index] ?? null
  return row
}

/** `pg` gives an array of results, which its types do not tell, when there were several statements. */
type Results = pg.QueryArrayResult<Array<string | null>>

/** Hands `pg` a query. An answer is due from then on, and that it comes is watched. */
export const submit = (self: PgClient, query: pg.Submittable): void => {
  self.unanswered += 1
  self.waits += 1
  self.client.query(query)
}

const runQuery = (self: PgClient, text: string): Effect.Effect<ReadonlyArray<QueryRow>, ReplicationError> =>
  Effect.callback((resume) => {
    self.unanswered += 1
    self.waits += 1
    self.client.query(
      { text, rowMode: "array" },
      (thrown: Error | null | undefined, results: Results | ReadonlyArray<Results>) => {
        if (thrown !== null && thrown !== undefined) {
          // Once the connection is gone, what broke it tells more than that it is gone.
          const cause = thrown instanceof pg.DatabaseError ? thrown : (self.lost ?? thrown)
          return resume(Effect.fail(queryFailure(cause, self.config)))
        }
        const last = [results].flat().at(-1)
        resume(Effect.succeed(last === undefined ? [] : last.rows.map((values) => toRow(last.fields, values))))
      }
    )
  })

/** One simple query; its server errors are refined by nobody yet. */
export const query = (self: PgClient, text: string): Effect.Effect<ReadonlyArray<QueryRow>, ReplicationError> =>
  Effect.suspend(() =>
    self.isTaken
      ? Effect.die(new Error("ReplicantConnection.query after copyBoth"))
      : Effect.andThen(withoutNul(text), Effect.ensuring(runQuery(self, text), logNotices(self)))
  )

/** Of PostgreSQL 17 and later, where it is: it would end a walsender amid a transaction. */
const withoutTransactionTimeout =
  "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'"

/** When the server was started, as a query of it has it: no two servers say the same, and none does after a restart. */
export const serverStart = "extract(epoch FROM pg_catalog.pg_postmaster_start_time())"

const introduction = `${withoutTransactionTimeout};
  SELECT pg_catalog.current_setting('server_version_num') AS server_version_num,
  pg_catalog.pg_backend_pid() AS pid, ${serverStart} AS server_start,
  CASE WHEN pg_catalog.current_setting('client_connection_check_interval') = '0'
    AND pg_catalog.version() ~* 'linux|darwin|apple|bsd|solaris'
    THEN pg_catalog.set_config('client_connection_check_interval', '2s', false) END AS checks`

/**
 * Which server it is: `server_version_num`. From then on it looks every two seconds, while it works for us, whether we are
 * still there (`client_connection_check_interval`), so that no query outlives whoever asked: neither one that was interrupted
 * and closed, nor one that was killed. A setting of the role's is left as it is; systems that cannot look are spared the
 * question.
 *
 * Source: https://www.postgresql.org/docs/current/runtime-config-connection.html
 */
export const introduce = (self: PgClient): Effect.Effect<number, ReplicationError> =>
  Effect.map(query(self, introduction), ([row]) => {
    self.backend = { pid: row?.pid ?? "", serverStart: row?.server_start ?? "" }
    return Number(row?.server_version_num)
  })

/** Whether the backend that answers is another than the one that let us in. */
export const isPooled = ({ backend, client }: PgClient): boolean =>
  backend !== undefined &&
  String((client as unknown as { readonly processID: number | null }).processID) !== backend.pid
