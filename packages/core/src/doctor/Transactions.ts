/** Transactions that are running or prepared: a slot is made after them, and what they hold back, every slot holds back. */
import * as Schema from "effect/Schema"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { logText } from "../ReplicationError.ts"
import { jsonArray } from "../server/TablesSql.ts"
import * as Check from "./Check.ts"
import { duration, plural, role } from "./Remedies.ts"
import { slots } from "./SlotFacts.ts"

const page = "docs/postgres-setup.md#slots-and-the-disk"

/** Of what they do nothing is asked: the text of a query holds values of rows. */
const Running = Schema.Struct({
  pid: Schema.Number,
  user: Schema.NullOr(Schema.String),
  application: Schema.NullOr(Schema.String),
  /** These are null where the role may not see them. */
  state: Schema.NullOr(Schema.String),
  seconds: Schema.NullOr(Schema.Number),
  /** Whether it has written: a slot is made after it. */
  hasXid: Schema.Boolean
})

const Prepared = Schema.Struct({
  gid: Schema.String,
  owner: Schema.String,
  database: Schema.String,
  seconds: Schema.Number
})

const Transactions = Schema.Struct({ running: Schema.Array(Running), prepared: Schema.Array(Prepared) })

const most = 100

const transactions: Check.Fact<typeof Transactions.Type> = {
  name: "transactions",
  what: "the transactions that are running",
  server: "source",
  read: ({ session }) =>
    Check.ask(
      session,
      "pg_stat_activity",
      Transactions,
      `json_build_object('running', ${jsonArray(
        `json_build_object('pid', a.pid, 'user', a.usename, 'application', a.application_name, 'state', a.state,
          'seconds', extract(epoch FROM clock_timestamp() - a.xact_start), 'hasXid', a.backend_xid IS NOT NULL)`,
        `FROM (SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()
            AND backend_type IS DISTINCT FROM 'walsender' AND pid NOT IN (SELECT r.pid FROM pg_stat_replication r)
            AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
            ORDER BY xact_start LIMIT ${most}) a`
      )}, 'prepared', ${jsonArray(
        `json_build_object('gid', p.gid, 'owner', p.owner, 'database', p.database,
          'seconds', extract(epoch FROM clock_timestamp() - p.prepared))`,
        `FROM (SELECT * FROM pg_prepared_xacts ORDER BY prepared LIMIT ${most}) p`
      )})`
    )
}

/** How long a transaction may have run that nobody waits for in earnest. */
const aMoment = 2

const describe = ({ application, pid, state, user }: typeof Running.Type): string =>
  logText(
    `pid ${pid}${user === null ? "" : ` of role ${role(user)}`}${application ? `, application ${application}` : ""}${
      state === null ? "" : `, ${state}`
    }`
  )

const end = (pid: number) => ({
  sql: [`SELECT pg_terminate_backend(${pid})`],
  advice: "wait for it, or have whoever runs it end it; idle_in_transaction_session_timeout ends the forgotten",
  right: "membership in its role, or pg_signal_backend",
  risk: "it ends that session, and undoes what its transaction has done"
})

const endPrepared = ({ database, gid }: typeof Prepared.Type) => ({
  sql: [`ROLLBACK PREPARED ${quoteLiteral(gid)}`],
  advice: `in database ${role(database)}, unless its transaction manager still means to end it: COMMIT PREPARED`,
  right: "the role that prepared it, or a superuser",
  risk: "it undoes what that transaction has done"
})

/** Whether a slot is still to be made: by a snapshot, too, only where it is not there. */
const makesSlot = ({ asked }: Check.Context, all: ReadonlyArray<{ readonly name: string }>): boolean =>
  asked.slot === undefined ? asked.snapshot === true : !all.some(({ name }) => name === asked.slot)

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    { id: "transaction.blocks-slot", about: "a transaction that a slot has to wait for", page },
    { slots, transactions },
    ({ slots, transactions }, context) =>
      makesSlot(context, slots)
        ? transactions.running
            .filter(({ hasXid, seconds }) => hasXid && seconds !== null && seconds >= aMoment)
            .map((one) => ({
              severity: "warning",
              subject: `pid ${one.pid}`,
              seen: `a transaction of ${describe(one)} has been writing for ${duration(one.seconds ?? 0)}`,
              consequence: "making a slot waits for its end, and gives up with SlotCreationBlocked",
              cure: end(one.pid)
            }))
        : []
  ),
  Check.make(
    {
      id: "transaction.prepared",
      about: "a prepared transaction that nobody ends, which a slot has to wait for",
      page
    },
    { slots, transactions },
    ({ slots, transactions }, context) => {
      const blocks = makesSlot(context, slots)
      return transactions.prepared
        .filter(({ seconds }) => blocks || seconds * 1000 >= context.asked.thresholds.oldTransaction)
        .map((one) => ({
          severity: blocks ? "error" : "warning",
          subject: logText(one.gid),
          seen: `transaction ${quoteLiteral(logText(one.gid))} of role ${role(one.owner)} was prepared ${duration(one.seconds)} ago, and is neither committed nor rolled back`,
          consequence: blocks
            ? "no slot can be made until it ends, not even after a restart of the server"
            : "it holds back vacuum and every slot's position, also over a restart of the server",
          cure: endPrepared(one)
        }))
    }
  ),
  Check.make(
    { id: "transaction.old", about: "a long transaction holds back slots and the vacuum of catalogs", page },
    { transactions },
    ({ transactions }, { asked: { thresholds } }) =>
      transactions.running
        .filter(({ seconds }) => seconds !== null && seconds * 1000 >= thresholds.oldTransaction)
        .map((one) => ({
          severity: "warning",
          subject: `pid ${one.pid}`,
          seen: `a transaction of ${describe(one)} has been running for ${duration(one.seconds ?? 0)}`,
          consequence: one.hasXid
            ? "each slot keeps WAL from its beginning on, and decodes it again after a reconnect; vacuum waits for it"
            : "vacuum keeps what it may still read, of catalogs too",
          cure: end(one.pid)
        }))
  ),
  Check.make(
    {
      id: "transaction.hidden",
      about: "what others' transactions do is not shown to the role",
      page: "docs/doctor.md#what-it-cannot-see"
    },
    { transactions },
    ({ transactions }, { who }) => {
      const hidden = transactions.running.filter(({ seconds }) => seconds === null)
      if (hidden.length === 0) return []
      return [
        {
          severity: "unseen",
          seen: `cannot see since when ${plural(hidden.length, "transaction")} of other roles ${hidden.length === 1 ? "runs" : "run"}`,
          consequence: "one that blocks a slot, or holds back vacuum, was not looked for among them",
          cure: {
            sql: [`GRANT pg_read_all_stats TO ${role(who?.role ?? "")}`],
            right: "a superuser, or ADMIN OPTION on that role"
          }
        }
      ]
    }
  )
]
