/**
 * A session that looks and cannot write: who it is, and how it is opened where a walsender is refused. What we are refused with
 * is a finding like any other.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { identifySystem } from "../server/IdentifySystem.ts"
import { jsonArray } from "../server/TablesSql.ts"
import { WalSender } from "../server/WalSender.ts"
import * as Check from "./Check.ts"
import type { Session } from "./Plan.ts"

/** Roles by which providers of managed servers hand out what is a superuser's, or the attribute REPLICATION, elsewhere. */
const providerRoles = ["rds_replication", "rds_superuser", "cloudsqlsuperuser", "alloydbsuperuser", "azure_pg_admin"]

const Who = Schema.Struct({
  role: Schema.String,
  database: Schema.String,
  isSuperuser: Schema.Boolean,
  isInRecovery: Schema.Boolean,
  encoding: Schema.String,
  startedAt: Schema.String,
  providerRoles: Schema.Array(Schema.Struct({ name: Schema.String, isMember: Schema.Boolean }))
})

const selectWho = `json_build_object('role', current_user, 'database', current_database(),
  'isSuperuser', coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false),
  'isInRecovery', pg_is_in_recovery(), 'encoding', getdatabaseencoding(),
  'startedAt', ${Catalog.serverStart}::text,
  'providerRoles', ${jsonArray(
    "json_build_object('name', r.rolname, 'isMember', pg_has_role(r.oid, 'MEMBER')) ORDER BY r.rolname",
    `FROM pg_roles r WHERE r.rolname IN (${providerRoles.map((name) => `'${name}'`).join(", ")})`
  )})`

/** A session, pinned, and who it is at its server. */
export interface Introduced {
  readonly session: Session
  readonly who: Check.Who
}

/** Pins the session: nothing of the role's or the database's ends it or changes what it reads, and it cannot write. */
export const introduce = Effect.fnUntraced(function* (
  session: Session
): Effect.fn.Return<Introduced, ReplicationError> {
  yield* Catalog.pinSession(session)
  yield* Catalog.queryAt(session, "SET default_transaction_read_only = on", { stage: "Query" })
  return { session, who: yield* Check.ask(session, "who we are", Who, selectWho) }
})

/** The source, as far as it lets us in. */
export interface Source {
  readonly introduced: Introduced | undefined
  /** Why there is no walsender. */
  readonly refusal: ReplicationError | undefined
  /** Why there is no session at all. */
  readonly failure: ReplicationError | undefined
}

/** A walsender, as a stream would have one; or else an ordinary session. */
export const openSource: Effect.Effect<Source, never, WalSender | Scope.Scope> = Effect.gen(function* () {
  const { connect, openSession } = yield* WalSender
  // Only a walsender knows that command: a pooler in between may have dropped that we asked for one.
  const walSender = yield* Effect.result(
    Effect.flatMap(connect, (connection) => Effect.andThen(identifySystem(connection), introduce(connection)))
  )
  if (Result.isSuccess(walSender)) return { introduced: walSender.success, refusal: undefined, failure: undefined }
  const refusal = walSender.failure
  const ordinary = yield* Effect.result(Effect.flatMap(openSession, introduce))
  return Result.isSuccess(ordinary)
    ? { introduced: ordinary.success, refusal, failure: undefined }
    : { introduced: undefined, refusal, failure: ordinary.failure }
})
