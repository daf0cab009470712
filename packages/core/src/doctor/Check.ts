/**
 * Facts and checks. A fact is asked of a server once, by one statement for a topic; a check is a pure function from facts to
 * what it has to say of them. So what is looked at is in one place, what is made of it in another, and the second needs no
 * server to be tested.
 *
 * A fact that cannot be read is no check's concern: whoever runs them says so.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import type { QueryRow } from "../server/WalSender.ts"
import type { Cure, Finding, ServerName, Severity } from "./Finding.ts"
import type { Asked, Session } from "./Plan.ts"

/** Who we are, and at which server. Asked before all else. */
export interface Who {
  readonly role: string
  readonly database: string
  readonly isSuperuser: boolean
  readonly isInRecovery: boolean
  /** `pg_encoding_to_char` of the database's. */
  readonly encoding: string
  /** Roles that are there and stand for a provider's own rights. */
  readonly providerRoles: ReadonlyArray<{ readonly name: string; readonly isMember: boolean }>
  /** When the server was started: no two servers say the same. */
  readonly startedAt: string
}

/** What a fact is read with. */
export interface Reading {
  readonly session: Session
  readonly who: Who
  readonly asked: Asked
  /** What a fact that this one needs was read as. */
  readonly known: <A>(fact: Fact<A>) => A
}

/** Something to be known of a server. Asked once, however many checks need it. */
export interface Fact<out A> {
  /** `slots`: what could not be read is told under `unseen.slots`. */
  readonly name: string
  /** In words, after "cannot see". */
  readonly what: string
  readonly server: ServerName
  /** What is read before it; where that cannot be, nor can this. */
  readonly needs?: ReadonlyArray<Fact<unknown>> | undefined
  readonly read: (reading: Reading) => Effect.Effect<A, ReplicationError>
  /** What lets a role see it, as SQL; left out where `pg_monitor` does. */
  readonly grants?: ((role: string) => ReadonlyArray<string>) | undefined
}

/** What a check is told beside its facts. */
export interface Context {
  readonly asked: Asked
  /** `undefined` where no session at the source was to be had: then only checks without facts are run. */
  readonly who: Who | undefined
  /** `server_version_num` of the source; 0 where that is not known. */
  readonly serverVersion: number
  /** With what the source refused us as a walsender, where it did. */
  readonly refusal: ReplicationError | undefined
  /** Milliseconds since 1970, by our clock. */
  readonly now: number
}

/** What a check has to say. */
export interface Seen extends Partial<Pick<Finding, "subject">>, Pick<Finding, "seen" | "consequence"> {
  readonly severity: Severity
  readonly cure?: Partial<Cure> | undefined
}

type Values<F> = { readonly [Name in keyof F]: F[Name] extends Fact<infer A> ? A : never }

interface Description {
  readonly id: string
  /** What is looked for, for the page of all checks. */
  readonly about: string
  /** Where more is told: a page and its section. */
  readonly page: string
  /** The server that its findings are of: the source, unless told otherwise. */
  readonly server?: ServerName | undefined
  /** Looked for as a stream starts, too, by what that has asked already: its `slots` and `settings` are less than whole. */
  readonly atStart?: true | undefined
  /** Whether there is anything to look for. Left out: always. */
  readonly applies?: ((context: Context) => boolean) | undefined
}

/** One thing that is looked for. */
export interface Check extends Description {
  readonly facts: ReadonlyArray<Fact<unknown>>
  /** What is made of the facts, which are all known. */
  readonly find: (known: ReadonlyMap<Fact<unknown>, unknown>, context: Context) => ReadonlyArray<Finding>
}

/** A check over facts. */
export const make = <const F extends Readonly<Record<string, Fact<unknown>>>>(
  description: Description,
  facts: F,
  find: (facts: Values<F>, context: Context) => ReadonlyArray<Seen>
): Check => ({
  ...description,
  facts: Object.values(facts),
  find: (known, context) => {
    // Each value is what its fact was read as: the compiler cannot follow a map.
    const values = Object.fromEntries(Object.entries(facts).map(([name, fact]) => [name, known.get(fact)])) as Values<F>
    const { id, page, server = "source" } = description
    return find(values, context).map(({ cure, ...seen }) => ({
      ...seen,
      id,
      page,
      server,
      cure: { ...cure, sql: cure?.sql ?? [] }
    }))
  }
})

/** Asks for one value as JSON: `text` is a scalar expression, or a subquery in brackets. */
export const ask = Effect.fnUntraced(function* <A, I>(
  session: Session,
  what: string,
  schema: Schema.Codec<A, I>,
  text: string
): Effect.fn.Return<A, ReplicationError> {
  const rows = yield* Catalog.queryAt(session, `SELECT ${text} AS facts`, { stage: "Query" })
  const Row = Schema.Struct({ facts: Schema.fromJsonString(schema) })
  const row = yield* Catalog.decodeRow(Row as Schema.Codec<{ readonly facts: A }, QueryRow>, rows[0], what)
  return row.facts
})
