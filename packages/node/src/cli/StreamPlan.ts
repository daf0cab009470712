/**
 * What `replicant stream` is to do, from its flags: pure, and everything that the flags alone can tell to be wrong is
 * told here, before a connection is opened.
 */
import { type Lsn, Pgoutput, Publication, type Snapshot, Wal2Json } from "@replicant/core"
import type { OutputPlugin } from "@replicant/core/driver"
import { ValueJson } from "@replicant/core/sink"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Address } from "./Listen.ts"
import { UsageError } from "./Report.ts"

export interface StreamFlags {
  readonly slot: Option.Option<string>
  readonly publication: ReadonlyArray<string>
  readonly table: ReadonlyArray<string>
  readonly plugin: "pgoutput" | "wal2json"
  readonly create: boolean
  readonly temporary: boolean
  readonly failover: boolean
  readonly withoutIdentity: boolean
  readonly untilLsn: Option.Option<Lsn.Lsn>
  readonly limit: Option.Option<number>
  readonly pretty: boolean
  readonly boundaries: boolean
  readonly streaming: Option.Option<"on" | "parallel">
  readonly twoPhase: boolean
  readonly snapshot: Option.Option<Snapshot.Mode>
  readonly connections: Option.Option<number>
  readonly checkpoint: Option.Option<string>
  readonly rateLimit: Option.Option<number>
  readonly lease: boolean
  readonly listen: Option.Option<Address>
  readonly walDirectory: Option.Option<string>
}

export interface StreamPlan {
  readonly slot: string
  /** By whom the slot is made, if it is not there. The one that a snapshot makes outlives the command, unless temporary. */
  readonly createSlot: "permanent" | "temporary" | undefined
  readonly snapshot: "initial" | "only" | undefined
  readonly plugin: OutputPlugin.OutputPlugin
  /** To be made, or adopted if it publishes these tables. */
  readonly publication: Publication.PublicationOptions | undefined
}

const wrong = (message: string, remedy: string): Result.Result<never, UsageError> =>
  Result.fail(new UsageError({ message, remedy }))

const types = ValueJson.types

const wal2json = (flags: StreamFlags): Result.Result<OutputPlugin.OutputPlugin, UsageError> => {
  if (Option.isSome(flags.streaming) || flags.twoPhase) {
    return wrong("--streaming and --two-phase are options of pgoutput", "leave them out, or leave out --plugin")
  }
  if (flags.publication.length > 0) {
    return wrong("wal2json knows no publications", "name tables: --table TABLE, or none for all")
  }
  const addTables = flags.table.map((table) => {
    const { name, schema } = Publication.tableName(table)
    return { schema, table: name }
  })
  return Result.succeed(Wal2Json.make({ types, ...(addTables.length > 0 ? { addTables } : {}) }))
}

/** The publications to stream, and the one that is made for `--table`. */
const pgoutput = (
  flags: StreamFlags,
  slot: string
): Result.Result<Pick<StreamPlan, "plugin" | "publication">, UsageError> => {
  const { create, publication, table, twoPhase } = flags
  const make = (publications: ReadonlyArray<string>) =>
    Pgoutput.make({ publications, types, streaming: Option.getOrUndefined(flags.streaming), twoPhase })
  if (table.length === 0) {
    return publication.length === 0
      ? wrong("no publication is named", "give --publication NAME, or --create and --table TABLE to make one")
      : Result.succeed({ plugin: make(publication), publication: undefined })
  }
  if (!create) return wrong("--table makes a publication, which needs --create", "add --create, or give --publication")
  if (publication.length > 1)
    return wrong("--table goes into one publication", "give --publication once, or not at all")
  const name = publication[0] ?? slot
  return Result.succeed({
    plugin: make([name]),
    publication: { name, target: Publication.tables(...table) }
  })
}

const snapshotOf = (flags: StreamFlags): Result.Result<StreamPlan["snapshot"], UsageError> => {
  const mode = Option.getOrElse(flags.snapshot, () => "never" as const)
  if (mode === "never") {
    const [given] = [
      ...(Option.isSome(flags.connections) ? ["--connections"] : []),
      ...(Option.isSome(flags.checkpoint) ? ["--checkpoint"] : []),
      ...(Option.isSome(flags.rateLimit) ? ["--rate-limit"] : [])
    ]
    return given === undefined
      ? Result.succeed(undefined)
      : wrong(`${given} is of a snapshot`, "add --snapshot initial or --snapshot only, or leave it out")
  }
  if (flags.plugin === "wal2json") {
    return wrong("a snapshot is of publications, and wal2json knows none", "leave out --plugin, or --snapshot")
  }
  if (mode === "only" && Option.isSome(flags.untilLsn)) {
    return wrong(
      "--snapshot only ends with its rows, before any LSN",
      "leave out --until-lsn, or use --snapshot initial"
    )
  }
  if (mode === "only" && Option.isSome(flags.checkpoint)) {
    return wrong(
      "--checkpoint is of --snapshot initial: rows by themselves would be of different times",
      "leave it out"
    )
  }
  if (Option.isSome(flags.checkpoint) && (flags.temporary || Option.isNone(flags.slot))) {
    return wrong("--checkpoint goes on under the slot's name", "give --slot NAME, and leave out --temporary")
  }
  return Result.succeed(mode)
}

/** The plan, or what is wrong. `generated` is the name for a slot that needs none. */
export const streamPlan = (flags: StreamFlags, generated: string): Result.Result<StreamPlan, UsageError> => {
  const { create, plugin, temporary } = flags
  const chosen = snapshotOf(flags)
  if (Result.isFailure(chosen)) return Result.fail(chosen.failure)
  const snapshot = chosen.success
  if (Option.isNone(flags.slot) && !temporary && snapshot !== "only") {
    return wrong("no slot is named", "give --slot NAME, or --temporary for one that lives as long as this command")
  }
  if (flags.failover && temporary) {
    return wrong("a temporary slot is not kept on standbys", "leave out --failover, or --temporary")
  }
  if (flags.lease && (temporary || snapshot === "only" || Option.isNone(flags.slot))) {
    return wrong(
      "--lease is of a slot that outlives this command",
      "give --slot NAME, and leave out --temporary and --snapshot only; or leave out --lease"
    )
  }
  const slot = Option.getOrElse(flags.slot, () => generated)
  const createSlot = temporary ? "temporary" : create ? "permanent" : undefined
  return plugin === "wal2json"
    ? Result.map(wal2json(flags), (made) => ({ slot, createSlot, snapshot, plugin: made, publication: undefined }))
    : Result.map(pgoutput(flags, slot), (made) => ({ slot, createSlot, snapshot, ...made }))
}
