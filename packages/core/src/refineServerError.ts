/**
 * Which failure an ErrorResponse means: by its SQLSTATE and the stage it answers, never by its text, which is translated.
 */
import {
  AuthenticationFailed,
  InvalidOption,
  logText,
  PermissionDenied,
  PublicationNotFound,
  type ReplicationError,
  ServerError,
  type ServerMessage,
  SlotAlreadyExists,
  SlotInUse,
  SlotNotFound,
  type Stage
} from "./ReplicationError.ts"

/** What a server error is about: what it names depends on what we asked. */
export interface ErrorContext {
  readonly stage: Stage
  readonly slot?: string | undefined
  readonly publications?: ReadonlyArray<string> | undefined
  readonly user?: string | undefined
  readonly database?: string | undefined
  /** The output plugin, where it is the one that may be refused. */
  readonly plugin?: string | undefined
}

/**
 * Errors that quote the values they stumbled over: of data (22), constraints (23), functions (38, 39, P0) and limits (54, as
 * in `chr()` of a row filter). Such text stays out of our errors while rows stream.
 */
const quotesValues = (sqlState: string): boolean => /^(22|23|38|39|54|P0)/.test(sqlState)

/**
 * An ErrorResponse as it came, tied to its stage; text that may quote row values is left out, and of the rest what a
 * terminal would obey.
 */
export const serverError = (message: ServerMessage, stage: Stage): ServerError => {
  const isHidden = stage === "Streaming" && quotesValues(message.sqlState)
  return new ServerError({
    stage,
    severity: logText(message.severity),
    sqlState: logText(message.sqlState),
    serverMessage: isHidden
      ? "(text withheld: it may quote row values; see the server's log)"
      : logText(message.message),
    detail: isHidden || message.detail === undefined ? undefined : logText(message.detail),
    hint: message.hint === undefined ? undefined : logText(message.hint)
  })
}

const quoted = (name: string | undefined): string => (name === undefined ? "name" : `"${name.replaceAll('"', '""')}"`)

const grantReplication = (user: string | undefined): string => `ALTER ROLE ${quoted(user)} REPLICATION`

/** As one connects, the same code stands for a missing REPLICATION and a missing CONNECT. */
const grantConnection = ({ database, user }: ErrorContext): string =>
  database === undefined
    ? grantReplication(user)
    : `${grantReplication(user)}; GRANT CONNECT ON DATABASE ${quoted(database)} TO ${quoted(user)}`

/**
 * A role without REPLICATION is refused as it connects. Later, a plugin other than PostgreSQL's own is: from the minor
 * releases of August 2026 on, only those in `output_plugin_libraries` are loaded.
 */
const permissionRemedy = (context: ErrorContext): string | undefined => {
  const { plugin, stage, user } = context
  if (stage === "Connect") return grantConnection(context)
  if (stage !== "CreateSlot" && stage !== "StartReplication") return undefined
  return plugin === undefined || plugin === "pgoutput" || plugin === "test_decoding"
    ? grantReplication(user)
    : `have an administrator list ${plugin} in output_plugin_libraries, and reload the configuration`
}

/**
 * Names a server error by its SQLSTATE and the stage it answers, never by its text, which is translated.
 *
 * What one SQLSTATE cannot tell (55000 is a dozen conditions) stays a `ServerError`: the catalog was asked first, see
 * `server/ReplicationSlot.ts`.
 */
export const refineServerError = (error: ServerError, context: ErrorContext): ReplicationError => {
  const slot = context.slot ?? ""
  switch (error.sqlState) {
    case "28000":
    case "28P01":
      return new AuthenticationFailed({
        sqlState: error.sqlState,
        detail: error.serverMessage,
        remedy: error.hint ?? "check user, password, database and pg_hba.conf"
      })
    case "42501":
      return new PermissionDenied({
        stage: context.stage,
        detail: error.serverMessage,
        // The server's own hint goes first: the code stands for more than a missing REPLICATION.
        remedy: error.hint ?? permissionRemedy(context)
      })
    case "42601":
      // Only a walsender knows the command: some poolers drop the startup parameter that asks for one.
      return context.stage === "IdentifySystem"
        ? new InvalidOption({
            option: "host",
            problem: "no walsender answers, but an ordinary session: there is a connection pooler in between",
            remedy: "connect to PostgreSQL directly"
          })
        : error
    case "42710":
      return context.stage === "CreateSlot" ? new SlotAlreadyExists({ slot }) : error
    case "42704":
      if (context.stage === "StartReplication" || context.stage === "DropSlot" || context.stage === "AlterSlot") {
        return new SlotNotFound({ slot })
      }
      // Up to PostgreSQL 17 the change callback fails on a publication that was not there when a change was written.
      return context.stage === "Streaming" && context.publications !== undefined && context.publications.length > 0
        ? new PublicationNotFound({ publications: context.publications })
        : error
    case "55006":
      // Without a slot in play, something else is in use.
      return context.slot === undefined ? error : new SlotInUse({ slot })
    default:
      return error.stage === context.stage ? error : new ServerError({ ...error, stage: context.stage })
  }
}
