/**
 * What the command says on standard error: one line for what went wrong and one for the cure, one line for each log
 * message. With `--json` each is one JSON object instead. Never a stack trace, a secret or a row value.
 */
import type { Snapshot } from "@replicant/core"
import * as Cause from "effect/Cause"
import type { ConfigError } from "effect/Config"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Logger from "effect/Logger"
import type * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import type { CopyError } from "../copy/Copy.ts"
import * as LiveLine from "./LiveLine.ts"
import { plainText, withoutSecrets } from "./PlainText.ts"
import type { OutputFailed } from "./StandardOutput.ts"

/** Of `codegen`: there is no such table, or the file cannot be read or written, or `--check` found it to differ. */
export class CodegenFailed extends Data.TaggedError("CodegenFailed")<{
  readonly message: string
  readonly remedy: string
}> {}

/** There is no such dead letter. */
export class LettersFailed extends Data.TaggedError("LettersFailed")<{
  readonly message: string
  readonly remedy: string
}> {}

/** The command line makes no sense: nothing was opened. */
export class UsageError extends Data.TaggedError("UsageError")<{
  readonly message: string
  readonly remedy: string
}> {}

/** The demonstration could not have its server. */
export class DemoFailed extends Data.TaggedError("DemoFailed")<{
  readonly message: string
  readonly remedy: string
}> {}

/** The address of `--listen` could not be had. */
export class ListenFailed extends Data.TaggedError("ListenFailed")<{
  readonly address: string
  readonly cause: unknown
}> {
  get code(): string | undefined {
    const { cause } = this
    return cause instanceof Error && "code" in cause ? String(cause.code) : undefined
  }

  override get message(): string {
    return `cannot listen on ${this.address}: ${this.code ?? "the system refuses it"}`
  }
}

/** The server did not answer in the time that a probe gives it. */
export class LookFailed extends Data.TaggedError("LookFailed")<{ readonly message: string }> {
  readonly remedy = "see whether the server is at work, or give it more time: --timeout"
}

/** Every way a command fails; a reader that goes away is none. */
export type CommandError =
  | Snapshot.Error
  | CopyError
  | ConfigError
  | UsageError
  | DemoFailed
  | CodegenFailed
  | LettersFailed
  | ListenFailed
  | LookFailed
  | OutputFailed

/**
 * How a command ends that was asked for a verdict: its exit code is the answer. `failure` is what kept it from one, to be told;
 * without it all is said.
 */
export class Verdict extends Data.TaggedError("Verdict")<{
  readonly exitCode: number
  readonly failure: CommandError | undefined
}> {}

/** What is said of a failure. */
export interface Failure {
  readonly tag: string
  readonly message: string
  readonly cure: string | undefined
}

export const exitCodes = { ok: 0, failed: 1, usage: 2, unsure: 3, interrupted: 130, terminated: 143 } as const

/** An option that is refused has been refused here, before anything was opened or asked. */
export const exitCodeOf = (error: CommandError): number =>
  error._tag === "UsageError" || error._tag === "InvalidOption" || error._tag === "ConfigError"
    ? exitCodes.usage
    : exitCodes.failed

const connectionCures = {
  Refused: "start PostgreSQL there, or name the server: --url postgres://user@host:port/database, or DATABASE_URL",
  HostNotFound: "check the host name in --url, DATABASE_URL or PGHOST",
  TimedOut: "check host, port and firewall",
  Closed: "look at the server's log, then try again",
  Reset: "look at the server's log, then try again",
  Tls: "check sslmode and sslrootcert"
} as const

/** What the commands meet beyond what core has a class for, by SQLSTATE. */
const stateCures: { readonly [sqlState: string]: string } = {
  "3D000": "name a database that is there: the last part of the URL, or PGDATABASE",
  "42P01": "check the table's name, and its schema: schema.table, in the case it was made with",
  "3F000": "check the schema's name, in the case it was made with",
  "42710": "use it, or choose another name",
  "58P01": "install the output plugin on the server, or use --plugin pgoutput"
}

/** By what the system says of an address. */
const listenCures: { readonly [code: string]: string } = {
  EADDRINUSE: "choose another port, or end who listens there",
  EACCES: "choose a port from 1024 on"
}

/** The cure in the words of this command, where core's error knows none or speaks to a programmer. */
const cureOf = (error: CommandError): string | undefined => {
  switch (error._tag) {
    case "ConnectionError":
      return error.remedy ?? connectionCures[error.reason]
    case "AuthenticationFailed":
      // What the connection itself knows of pg_hba's refusal, such as whether it was encrypted.
      if (error.sqlState === "28000" && error.remedy !== undefined) return error.remedy
      return "check user and password in --url, DATABASE_URL, PGUSER and PGPASSWORD, and the server's pg_hba.conf"
    case "SlotNotFound":
      return `replicant slot create ${error.slot}, or stream with --create: what was committed before is not in it`
    case "SlotAlreadyExists":
      return `use it, or drop it: replicant slot drop ${error.slot}`
    case "PublicationNotFound":
      return `${(error.available?.length ?? 0) > 0 ? "name one that is there, or: " : ""}replicant publication create ${error.publications[0] ?? "NAME"} --table TABLE`
    case "SnapshotLocked":
      return error.pids.length === 0
        ? error.remedy
        : `wait, or end the other session: SELECT pg_terminate_backend(${error.pids[0]})`
    case "InvalidOption":
      return (
        error.remedy ?? (error.option === "url" ? "postgres://user:password@host:port/database" : "replicant --help")
      )
    case "CopyNotSetUp":
      return error.remedy.replace("let the copy make it: create", "add --create")
    case "TargetNotEmpty":
      return "empty them, or add --truncate"
    case "TargetDenied":
      return error.remedy
        .replace("let triggers fire: fireTriggers", "let triggers fire: --fire-triggers")
        .replace("do without: no origin", "do without: --no-origin")
    case "ListenFailed":
      return listenCures[error.code ?? ""] ?? "--listen PORT, or HOST:PORT with an address of this machine"
    case "ConfigError":
      return "check DATABASE_URL and the PG variables"
    case "ServerError":
      return error.remedy ?? stateCures[error.sqlState] ?? "look at the server's log"
    case "PermissionDenied":
      return error.remedy ?? "look at the server's log"
    default:
      return error.remedy
  }
}

export const failureOf = (error: CommandError): Failure => ({
  tag: error._tag,
  message: error.message,
  cure: cureOf(error)
})

const fit = (text: string): string => plainText(withoutSecrets(text.replaceAll(/\s*\n\s*/g, " ").trim()))

/** A failure as the lines that are written. */
export const formatFailure = ({ cure, message, tag }: Failure, format: ReportFormat): string => {
  if (format === "json") {
    return JSON.stringify({ level: "error", error: tag, message: fit(message), ...(cure && { cure: fit(cure) }) })
  }
  const error = `error: ${fit(message)}`
  return cure === undefined ? error : `${error}\ncure: ${fit(cure)}`
}

/** What a run that is interrupted ends with, where its command says so: `bin.ts` reads it once the command has ended. */
export interface Ending {
  interruptedCode: number | undefined
}

export const Ending: Context.Reference<Ending> = Context.Reference("@replicant/node/cli/Ending", {
  defaultValue: (): Ending => ({ interruptedCode: undefined })
})

/** How to write to standard error: for people, or one JSON object a line. */
export type ReportFormat = "text" | "json"

export const ReportFormat: Context.Reference<ReportFormat> = Context.Reference("@replicant/node/cli/ReportFormat", {
  defaultValue: (): ReportFormat => "text"
})

const words: { readonly [Level in LogLevel.LogLevel]?: string } = {
  Fatal: "error",
  Error: "error",
  Warn: "warning",
  Info: "note",
  Debug: "debug",
  Trace: "trace"
}

/** One log message as one line. */
export const formatLog = (
  entry: {
    readonly level: LogLevel.LogLevel
    readonly message: unknown
    readonly annotations: Readonly<Record<string, unknown>>
  },
  format: ReportFormat
): string => {
  const text = [entry.message].flat().map(String).join(" ")
  const level = words[entry.level] ?? entry.level.toLowerCase()
  if (format === "json") return JSON.stringify({ level, message: fit(text), ...entry.annotations })
  return `${level}: ${fit(text)}`
}

/** The logger of the command. */
export const logger: Logger.Logger<unknown, void> = Logger.make(({ fiber, logLevel, message }) => {
  const annotations = fiber.getRef(References.CurrentLogAnnotations)
  const line = formatLog({ level: logLevel, message, annotations }, fiber.getRef(ReportFormat))
  fiber.getRef(LiveLine.Standard).writeLine(line)
})

/** A defect is a bug of ours. Where it happened is told by the debug log alone. */
export const failureOfDefect = (cause: Cause.Cause<unknown>): Failure => {
  const defect = Cause.squash(cause)
  return {
    tag: "Defect",
    message: `internal error: ${defect instanceof Error ? defect.message : String(defect)}`,
    cure: "report it as a bug, with the output of --log-level debug"
  }
}
