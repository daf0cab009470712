/**
 * Tables that a publication breaks: without a replica identity, PostgreSQL refuses their UPDATE and DELETE once those are
 * published. Found before a publication is made, and shown of those that are there.
 */
import { Publication, PublicationMismatch, type ReplicationError } from "@replicant/core"
import { hasReplicaIdentity, qualifiedName, quoteLiteral, type ReplicantConnection } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import { firstFew } from "./Table.ts"

/** A condition on `c`, of pg_class, and `n`, its schema: a table that holds rows and cannot tell which of them changed. */
const withoutIdentity = `c.relkind = 'r' AND c.relpersistence = 'p' AND NOT ${hasReplicaIdentity("c")}`

const list = (texts: ReadonlyArray<string>): string => texts.join(", ")

/** The tables of a target, those beneath partitioned ones among them. */
const within = (target: Publication.PublicationTarget): string => {
  switch (target._tag) {
    case "AllTables":
      return "c.oid >= 16384 AND n.nspname <> 'information_schema'"
    case "Schemas":
      return `n.nspname IN (${list(target.schemas.map(quoteLiteral))})`
    case "Tables": {
      const named = target.tables.map(Publication.tableName)
      const names = list(named.map(({ name, schema }) => `(${quoteLiteral(schema)}, ${quoteLiteral(name)})`))
      return `c.oid IN (SELECT coalesce(t.relid, x.oid) FROM pg_catalog.pg_class x
        JOIN pg_catalog.pg_namespace m ON m.oid = x.relnamespace
        LEFT JOIN LATERAL pg_catalog.pg_partition_tree(x.oid) t ON true WHERE (m.nspname, x.relname) IN (${names}))`
    }
  }
}

/** Those tables of a target, by their quoted names. */
const find = (
  connection: ReplicantConnection,
  target: Publication.PublicationTarget
): Effect.Effect<ReadonlyArray<string>, ReplicationError> =>
  Effect.map(
    connection.query(`SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE ${within(target)} AND ${withoutIdentity} ORDER BY 1, 2`),
    (rows) => rows.map(({ name, schema }) => qualifiedName({ schema: schema ?? "", name: name ?? "" }))
  )

const mostNamed = 10

/**
 * Fails where a publication, once made, would have the source refuse what it does today. Nothing is asked where neither
 * UPDATE nor DELETE is published.
 */
export const check = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  { name, operations = ["update", "delete"], target }: Publication.PublicationOptions
): Effect.fn.Return<void, ReplicationError> {
  if (!operations.some((operation) => operation === "update" || operation === "delete")) return
  const [first, ...others] = yield* find(connection, target)
  if (first === undefined) return
  return yield* new PublicationMismatch({
    publication: name,
    problem: `would make UPDATE and DELETE fail at the source, for want of a replica identity, on ${firstFew([first, ...others], mostNamed)}`,
    remedy: `ALTER TABLE ${first} ADD PRIMARY KEY (…), or: ALTER TABLE ${first} REPLICA IDENTITY FULL; or publish inserts alone (replicant publication create --operation insert); --without-identity makes it nonetheless`
  })
})

/** A table that a publication sends. */
export interface SentTable {
  readonly schema: string
  readonly name: string
  readonly hasIdentity: boolean
}

/** What every publication sends, by its name. */
export const tablesOf = (
  connection: ReplicantConnection
): Effect.Effect<ReadonlyMap<string, ReadonlyArray<SentTable>>, ReplicationError> =>
  Effect.map(
    connection.query(`SELECT p.pubname, n.nspname, c.relname, ${withoutIdentity} AS lacks
      FROM pg_catalog.pg_publication p
      CROSS JOIN LATERAL pg_catalog.pg_get_publication_tables(p.pubname::text) g
      JOIN pg_catalog.pg_class c ON c.oid = g.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      ORDER BY 1, 2, 3`),
    (rows) => {
      const tables = new Map<string, Array<SentTable>>()
      for (const { lacks, nspname, pubname, relname } of rows) {
        const table = { schema: nspname ?? "", name: relname ?? "", hasIdentity: lacks !== "t" }
        const known = tables.get(pubname ?? "")
        if (known === undefined) tables.set(pubname ?? "", [table])
        else known.push(table)
      }
      return tables
    }
  )
