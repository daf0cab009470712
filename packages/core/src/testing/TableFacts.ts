/**
 * What the test's server tells of its tables, in the words of the catalog: the answers to `server/Tables.ts`, which are
 * JSON. All its tables are ordinary ones that the role may read; publications have neither column lists nor filters.
 */
import { identityLetter } from "../pgoutput/PgoutputBytes.ts"
import type { QueryRow } from "../server/WalSender.ts"
import { builtinByOid, builtinTypeName } from "../values/BuiltinCatalog.ts"
import type { ColumnType, TestColumn, TestRelation } from "./TestRelation.ts"
import type { TestServer } from "./TestServer.ts"
import type { TestTable } from "./TestTables.ts"

/** The text of a literal, undoubled. */
const literal = "'((?:[^']|'')*)'"
const literals = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(new RegExp(literal, "g"))].map(([, quoted]) => quoted!.replaceAll("''", "'"))

/** The publications that a text asks about. */
const publicationsOf = (text: string): ReadonlyArray<string> => literals(/pubname IN \(([^)]*)\)/.exec(text)?.[1] ?? "")

const typeOid = (server: TestServer, type: ColumnType): number =>
  typeof type === "number" ? type : server.wal.oidOf("type", type.schema, type.name)

const typeName = (type: ColumnType): string => {
  if (typeof type !== "number") return `${type.schema}.${type.name}`
  const builtin = builtinByOid(type)
  return builtin === undefined ? "unknown" : builtinTypeName(builtin)
}

const columnFacts = (server: TestServer, { key }: TestRelation, { name, type }: TestColumn) => ({
  name,
  typeOid: typeOid(server, type),
  typeModifier: -1,
  type: typeName(type),
  dimensions: 0,
  isNullable: !key.includes(name),
  takesNull: !key.includes(name),
  generated: "",
  identity: "",
  hasDefault: false
})

const typeFacts = (server: TestServer, type: ColumnType) => {
  const oid = typeOid(server, type)
  const builtin = builtinByOid(oid)
  const name = builtin === undefined ? "unknown" : `${builtin.isArray ? "_" : ""}${builtin.type.name}`
  const base = typeof type === "number" ? { oid, schema: "pg_catalog", name } : { oid, ...type }
  return { oid, base, labels: null, dimensions: 0 }
}

/** Publications of these that send changes of a table, by name. */
const publishedBy = (server: TestServer, names: ReadonlyArray<string>, relation: TestRelation) =>
  names.filter((name) => server.holds(name, relation)).sort()

const tableFacts = (
  server: TestServer,
  { oid, fileNode, relation, versions }: TestTable,
  asked: ReadonlyArray<string>
) => {
  const { columns, key, name, replicaIdentity, schema } = relation
  const namedBy = publishedBy(server, asked, relation)
  const identity = replicaIdentity === "default" || replicaIdentity === "index" ? key : []
  const readable = { schema, name, isReadable: true }
  return {
    oid,
    schema,
    name,
    kind: "r",
    persistence: "p",
    isPartition: false,
    replicaIdentity: identityLetter(replicaIdentity),
    columns: columns.map((column) => columnFacts(server, relation, column)),
    identity,
    primaryKey: key,
    uniqueKeys:
      key.length === 0
        ? []
        : [
            {
              isPrimary: true,
              columns: key.map((column) => ({ name: column, operator: "OPERATOR(pg_catalog.=)", record: null }))
            }
          ],
    published: namedBy.map((publication) => ({
      publication,
      columns: columns.map((column) => column.name),
      hasColumnList: false,
      filter: null,
      filterColumns: []
    })),
    namedBy,
    sentAs: [],
    parts: [
      {
        ...readable,
        oid,
        fileNode,
        pages: versions.length,
        isHeap: true,
        estimatedRows: versions.filter(({ goneBy }) => goneBy === undefined).length,
        hasRowSecurity: false
      }
    ],
    partitioned: [],
    bare: [],
    denied: [],
    hasRowSecurity: false
  }
}

/** Which tables a text selects: see `Selection` in `server/TablesSql.ts`. */
const selected = (server: TestServer, text: string): ReadonlyArray<TestTable> => {
  const { all } = server.tables
  const selection = /selected \(oid\) AS MATERIALIZED \(([\s\S]*?)\n {2}\), t AS/.exec(text)?.[1] ?? ""
  const names = /VALUES (.*)\) AS w \(schema, name\)/s.exec(selection)?.[1]
  const schemas = /n\.nspname IN \((.*)\)/s.exec(selection)?.[1]
  const oids = /c\.oid IN \((.*)\)/s.exec(selection)?.[1]
  if (names !== undefined) {
    const wanted = [...names.matchAll(new RegExp(`\\(\\s*${literal},\\s*${literal}\\)`, "g"))]
    return all.filter(({ relation }) =>
      wanted.some((match) => literals(match[0]).join("\0") === `${relation.schema}\0${relation.name}`)
    )
  }
  if (schemas !== undefined) return all.filter(({ relation }) => literals(schemas).includes(relation.schema))
  if (oids !== undefined) return all.filter(({ oid }) => oids.split(", ").includes(String(oid)))
  return all.filter(({ relation }) => publishedBy(server, publicationsOf(text), relation).length > 0)
}

/** What the server's tables are: a row for each, and one for the types of their columns. */
const describeTables = (server: TestServer, text: string): ReadonlyArray<QueryRow> => {
  const tables = selected(server, text)
  const asked = publicationsOf(text)
  const types = new Map<number, ColumnType>()
  for (const { relation } of tables) {
    for (const { type } of relation.columns) types.set(typeOid(server, type), type)
  }
  return [
    ...tables.map((table) => ({ facts: JSON.stringify(tableFacts(server, table, asked)), types: null })),
    { facts: null, types: JSON.stringify(Array.from(types.values(), (type) => typeFacts(server, type))) }
  ]
}

/** By what each table is published: see `server/PublishedEntries.ts`. No publication of this server is ever altered. */
const publishedEntries = (server: TestServer, text: string): ReadonlyArray<QueryRow> =>
  server.tables.all.flatMap(({ oid, relation }) => {
    const publications = publishedBy(server, publicationsOf(text), relation)
    if (publications.length === 0) return []
    const { name, schema } = relation
    return [{ schema, name, entry: `${oid}/${publications.join(",")}`, attached: "[]" }]
  })

/** Answers what is asked about tables; `undefined` for anything else. */
export const answerFacts = (server: TestServer, text: string): ReadonlyArray<QueryRow> | undefined => {
  if (text.startsWith("WITH listed (oid, pub,")) return describeTables(server, text)
  if (text.startsWith("WITH listed (oid, pub) AS")) return publishedEntries(server, text)
  if (/^SELECT concat_ws\('\/', .* AS fingerprint,/s.test(text)) return [{ fingerprint: "1 (0,1)", role: "test" }]
  if (text.includes("pg_catalog.pg_opclass")) {
    const types = /unnest\('\{([^}]*)\}'::oid\[\]\)/.exec(text)?.[1] ?? ""
    const operators = types === "" ? [] : types.split(",").map(() => "pg_catalog")
    return [{ standby: "f", role: "test", operators: JSON.stringify(operators) }]
  }
  return undefined
}
