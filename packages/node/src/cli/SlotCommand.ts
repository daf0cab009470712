/** `replicant slot`: the replication slots of a server. */
import { Lsn, ReplicationSlot, SlotCreationBlocked, SlotInUse, SlotNotFound } from "@replicant/core"
import { identifySystem, quoteLiteral, type ReplicantConnection } from "@replicant/core/driver"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { UsageError } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"
import { type Column, formatBytes, formatTable } from "./Table.ts"
import * as WatchCommand from "./WatchCommand.ts"

type Slot = ReplicationSlot.ReplicationSlot

const lsn = (position: Lsn.Lsn | undefined): string | undefined =>
  position === undefined ? undefined : Lsn.format(position)

const columns: ReadonlyArray<Column<Slot>> = [
  { heading: "slot", value: (slot) => slot.name },
  { heading: "plugin", value: (slot) => slot.plugin ?? slot.type },
  { heading: "database", value: (slot) => slot.database },
  { heading: "active pid", value: (slot) => slot.activePid?.toString(), align: "right" },
  { heading: "confirmed", value: (slot) => lsn(slot.confirmedFlushLsn), align: "right" },
  {
    heading: "keeps WAL",
    value: (slot) => (slot.retainedBytes === undefined ? undefined : formatBytes(slot.retainedBytes)),
    align: "right"
  },
  {
    heading: "state",
    value: (slot) => {
      if (slot.invalidationReason !== undefined) return `lost: ${slot.invalidationReason}`
      return slot.isTemporary ? `${slot.walStatus}, temporary` : slot.walStatus
    }
  }
]

/** As printed with `--json`: absent values are null, LSNs are PostgreSQL's text, bytes are a number. */
const toJson = (slot: Slot) => ({
  name: slot.name,
  type: slot.type,
  plugin: slot.plugin ?? null,
  database: slot.database ?? null,
  temporary: slot.isTemporary,
  activePid: slot.activePid ?? null,
  restartLsn: lsn(slot.restartLsn) ?? null,
  confirmedFlushLsn: lsn(slot.confirmedFlushLsn) ?? null,
  walStatus: slot.walStatus ?? null,
  invalidationReason: slot.invalidationReason ?? null,
  retainedBytes: slot.retainedBytes === undefined ? null : Number(slot.retainedBytes)
})

const name = Argument.String("name").pipe(Argument.withDescription("Lower-case letters, digits and underscores"))

const watchFlag = Root.switchFlag("watch", "Go on, as `replicant watch` does")

const list = Command.make("list", { isWatch: watchFlag }, ({ isWatch }) =>
  Effect.gen(function* () {
    if (isWatch) return yield* WatchCommand.watch(WatchCommand.asListed)
    const shared = yield* Root.command
    const output = yield* Output
    const slots = yield* Root.withConnection(ReplicationSlot.listReplicationSlots).pipe(
      Effect.provide(Root.walSender(shared))
    )
    yield* output.write(shared.json ? `${JSON.stringify(slots.map(toJson))}\n` : formatTable(columns, slots))
  })
).pipe(Command.withDescription("Every slot of the server, how far it is and how much WAL it keeps"))

/** How long a transaction has been running that is worth naming, in milliseconds. */
const oldMillis = 2000

/** Says whom a slot waits for: it may take as long as the oldest transaction. Asked on a connection of its own. */
const explainWait = Effect.fnUntraced(function* (slot: string) {
  yield* Effect.sleep(oldMillis)
  const transactions = yield* Root.withConnection((connection) =>
    ReplicationSlot.blockingTransactions(connection, oldMillis)
  ).pipe(Effect.catch(() => Effect.succeed([])))
  const { message, remedy } = new SlotCreationBlocked({ slot, transactions })
  yield* Effect.logInfo(`waiting: ${message}. A slot begins after them: ${remedy}`)
})

/** Makes a slot, and says so if that takes long. */
export const createSlot = (
  connection: ReplicantConnection,
  options: Parameters<typeof ReplicationSlot.createReplicationSlot>[1]
) =>
  Effect.raceFirst(
    ReplicationSlot.createReplicationSlot(connection, options),
    Effect.andThen(explainWait(options.slot), Effect.never)
  )

const create = Command.make(
  "create",
  {
    name,
    plugin: Flag.String("plugin").pipe(
      Flag.withDescription("The output plugin: pgoutput, wal2json, …"),
      Flag.withDefault("pgoutput")
    ),
    failover: Root.switchFlag("failover", "Keep the slot on standbys too (PostgreSQL 17)")
  },
  ({ failover, name: slot, plugin }) =>
    Effect.gen(function* () {
      const shared = yield* Root.command
      const output = yield* Output
      const { created, system } = yield* Root.withConnection((connection) =>
        Effect.all({
          system: identifySystem(connection),
          created: createSlot(connection, { slot, plugin, failover })
        })
      ).pipe(Effect.provide(Root.walSender(shared)))
      const point = Lsn.format(created.consistentPoint)
      yield* output.write(
        shared.json
          ? `${JSON.stringify({ name: slot, plugin, database: system.database, consistentPoint: point })}\n`
          : `slot ${slot} holds what is committed after ${point}, and keeps WAL until it is read or dropped\n`
      )
    })
).pipe(
  Command.withDescription("Makes a slot: from now on it holds every change, read or not"),
  Command.withExamples([{ command: "replicant slot create orders", description: "For pgoutput, in this database" }])
)

const drop = Command.make(
  "drop",
  {
    name,
    wait: Root.switchFlag("wait", "Wait until nobody streams from it")
  },
  ({ name: slot, wait }) =>
    Effect.gen(function* () {
      const shared = yield* Root.command
      const output = yield* Output
      yield* Root.withConnection((connection) => ReplicationSlot.dropReplicationSlot(connection, slot, { wait })).pipe(
        Effect.provide(Root.walSender(shared))
      )
      yield* output.write(shared.json ? `${JSON.stringify({ dropped: slot })}\n` : `slot ${slot} is dropped\n`)
    })
).pipe(Command.withDescription("Drops a slot, and with it what was not read"))

const AdvancedRow = Schema.Struct({ end_lsn: Lsn.LsnFromString })

/** Moves a slot on, and gives where it then is: no further than the server's WAL reaches. */
const moveSlot = Effect.fnUntraced(function* (connection: ReplicantConnection, slot: string, to: Lsn.Lsn) {
  const rows = yield* connection.query(
    `SELECT end_lsn FROM pg_catalog.pg_replication_slot_advance(${quoteLiteral(slot)}, '${Lsn.format(to)}')`
  )
  return (yield* Effect.orDie(Schema.decodeUnknownEffect(AdvancedRow)(rows[0]))).end_lsn
})

const advance = Command.make(
  "advance",
  {
    name,
    to: Root.lsnFlag("to", "Everything committed before this position is skipped"),
    yes: Root.switchFlag("yes", "Skip what its consumer has not confirmed")
  },
  ({ name: slot, to, yes }) =>
    Effect.gen(function* () {
      const shared = yield* Root.command
      const output = yield* Output
      const { from, reached } = yield* Root.withConnection(
        Effect.fnUntraced(function* (connection) {
          const found = yield* ReplicationSlot.getReplicationSlot(connection, slot)
          if (found === undefined) return yield* new SlotNotFound({ slot })
          if (found.activePid !== undefined) return yield* new SlotInUse({ slot, activePid: found.activePid })
          const from = found.confirmedFlushLsn ?? found.restartLsn ?? to
          const at = Lsn.format(from)
          if (to < from) {
            const remedy = `give a position from ${at} on`
            return yield* new UsageError({ message: `slot ${slot} stands at ${at}, and never goes back`, remedy })
          }
          if (to === from) return { from, reached: from }
          const skipped = `what was committed from ${at} to ${Lsn.format(to)}, ${formatBytes(to - from)} of WAL`
          if (!yes) {
            return yield* new UsageError({
              message: `slot ${slot} would skip ${skipped}: its consumer has not confirmed it, and never gets it`,
              remedy: "add --yes to skip it"
            })
          }
          yield* Effect.logInfo(`skipping ${skipped}`)
          return { from, reached: yield* moveSlot(connection, slot, to) }
        })
      ).pipe(Effect.provide(Root.walSender(shared)))
      yield* output.write(
        shared.json
          ? `${JSON.stringify({ advanced: slot, from: Lsn.format(from), to: Lsn.format(reached) })}\n`
          : `slot ${slot} stands at ${Lsn.format(reached)}, was at ${Lsn.format(from)}\n`
      )
    })
).pipe(
  Command.withDescription("Moves a slot on, over what its consumer shall never get"),
  Command.withExamples([
    {
      command: "replicant slot advance orders --to 16/B374D848 --yes",
      description: "Beyond a change that cannot be sent"
    }
  ])
)

export const command = Command.make("slot").pipe(
  Command.withSubcommands([list, create, advance, drop]),
  Command.withDescription("Replication slots: list, create, advance, drop")
)
