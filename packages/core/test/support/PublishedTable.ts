/** A published table as the catalog tells it, for tests of what is made of it. */
import type { PublishedTable } from "../../src/snapshot/PublishedTables.ts"

export const part = (overrides: Partial<PublishedTable["parts"][number]> = {}): PublishedTable["parts"][number] => ({
  oid: 16384,
  schema: "public",
  name: 'o"dd',
  isReadable: true,
  fileNode: 0,
  pages: 0,
  isHeap: true,
  estimatedRows: null,
  hasRowSecurity: false,
  ...overrides
})

export const table = (overrides: Partial<PublishedTable> = {}): PublishedTable => ({
  oid: 16384,
  schema: "public",
  name: 'o"dd',
  replicaIdentity: "d",
  columns: [
    { name: "id", isKey: true, typeOid: 23, typeModifier: -1, type: null },
    { name: "a b", isKey: false, typeOid: 25, typeModifier: -1, type: null }
  ],
  keyLength: 1,
  columnLists: 1,
  filters: [null],
  parts: [part()],
  ancestors: [],
  ...overrides
})
