/** A table of a target for tests: `id` its key, found by an operator that shows. */
import type { TargetColumn, TargetTable } from "../../src/copy/TargetCatalog.ts"

export const column = (name: string, overrides: Partial<TargetColumn> = {}): TargetColumn => ({
  name,
  type: "integer",
  base: { schema: "pg_catalog", name: "int4" },
  labels: null,
  isGenerated: false,
  isAlwaysIdentity: false,
  isRequired: false,
  ...overrides
})

export const table = (overrides: Partial<TargetTable> = {}): TargetTable => ({
  schema: "public",
  name: "t",
  isPartitioned: false,
  denied: [],
  hasRowSecurity: false,
  columns: [column("id"), column("a"), column("b")],
  uniqueKeys: [{ isPrimary: true, columns: [{ name: "id", operator: "OPERATOR(pg_catalog.=)", record: null }] }],
  ...overrides
})
