/**
 * The command `replicant` itself: the flags that all its subcommands share, and what follows from them: the connection,
 * and how output is written.
 */
import { type InvalidOption, Lsn, type ReplicationError } from "@replicant/core"
import type { ReplicantConnection } from "@replicant/core/driver"
import { WalSender } from "@replicant/core/driver"
import type { ConfigError } from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as PgConfig from "../pg/PgConfig.ts"
import * as PgWalSender from "../pg/PgWalSender.ts"
import { type Palette, withColor, withoutColor } from "./ChangeText.ts"
import { Output } from "./StandardOutput.ts"

/** A server. */
export const urlFlag = (name: string, description: string) =>
  Flag.Redacted(name).pipe(
    Flag.withMetavar("postgres://user@host:port/database"),
    Flag.withDescription(description),
    Flag.optional
  )

/** What is off unless it is named. */
export const switchFlag = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withoutNegation, Flag.withDescription(description), Flag.withDefault(false))

const url = urlFlag(
  "url",
  "The server; others can see it in the list of processes: a password goes better into DATABASE_URL"
)

const json = switchFlag("json", "Machine-readable: JSON on standard output, one JSON object a line on standard error")

const color = Flag.Boolean("color").pipe(
  Flag.withDescription("Colour on a terminal; off with --no-color, and where NO_COLOR is set"),
  Flag.withDefault(true)
)

/** `replicant`, before its subcommands. A subcommand reads the shared flags by `yield* Root.command`. */
export const command = Command.make("replicant").pipe(
  Command.withSharedFlags({ url, json, color }),
  Command.withDescription("Follows a PostgreSQL database through logical replication")
)

/** The shared flags, parsed. */
export interface Shared {
  readonly url: Option.Option<Redacted.Redacted<string>>
  readonly json: boolean
  readonly color: boolean
}

/** `--url` stands for DATABASE_URL; the PG variables fill in what it does not say. */
const environment = (shared: Shared): Readonly<Record<string, string>> => {
  const defined = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return {
    ...Object.fromEntries(defined),
    ...(Option.isSome(shared.url) ? { DATABASE_URL: Redacted.value(shared.url.value) } : {})
  }
}

/** What a flag says, or a variable stands for: a password does not belong on a command line. */
export const urlOf = (
  flag: Option.Option<Redacted.Redacted<string>>,
  variable: string
): Option.Option<Redacted.Redacted<string>> => {
  const value = process.env[variable] ?? ""
  return Option.orElse(flag, () => (value === "" ? Option.none() : Option.some(Redacted.make(value))))
}

/** Whether a database was named as a whole, by `--url` or DATABASE_URL. */
export const hasUrl = (shared: Shared): boolean => (environment(shared).DATABASE_URL ?? "") !== ""

/** A position, as PostgreSQL writes it. */
export const lsnFlag = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("16/B374D848"),
    Flag.withDescription(description),
    Flag.filterMap(
      (text) => Option.fromUndefinedOr(Lsn.fromString(text)),
      () => "Expected an LSN, as in 16/B374D848"
    )
  )

/** Where to connect, by the flags and the environment, for what needs more than the driver. */
export const connection = (shared: Shared): Effect.Effect<PgConfig.Options, ConfigError | InvalidOption> =>
  Effect.provideService(
    PgConfig.fromEnvironment,
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromEnv({ env: environment(shared) })
  )

/** The driver for the server that the flags and the environment name. */
export const walSender = (shared: Shared): Layer.Layer<WalSender, InvalidOption | ConfigError> =>
  PgWalSender.layerConfig.pipe(
    Layer.provide(ConfigProvider.layer(Effect.sync(() => ConfigProvider.fromEnv({ env: environment(shared) }))))
  )

/** Runs one command on a connection of its own. */
export const withConnection = <A, E, R>(
  use: (connection: ReplicantConnection) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ReplicationError, Exclude<R, Scope.Scope> | WalSender> =>
  Effect.scoped(Effect.flatMap(WalSender, (sender) => Effect.flatMap(sender.connect, use)))

/** How to paint on standard output. Source: https://no-color.org */
export const palette = (shared: Shared): Effect.Effect<Palette> =>
  Effect.map(Output, ({ isTerminal }) => {
    const { NO_COLOR = "", TERM } = process.env
    return shared.color && isTerminal && NO_COLOR === "" && TERM !== "dumb" ? withColor : withoutColor
  })
