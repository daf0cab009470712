/** A Schema of the program's own for a column: mostly one of JSON, of which the catalog knows nothing. */

/** `Meta` of `./schemas.ts`, for `public.orders.meta`. */
export interface ColumnSchema {
  readonly schema: string
  readonly table: string
  readonly column: string
  readonly module: string
  readonly name: string
}

/** How it is written, for who wrote it otherwise. */
export const form = "schema.table.column=./module.ts#Name"

const columnOf = (text: string): Pick<ColumnSchema, "schema" | "table" | "column"> | undefined => {
  const [first, last] = [text.indexOf("."), text.lastIndexOf(".")]
  if (last <= 0 || last === text.length - 1) return undefined
  const column = text.slice(last + 1)
  if (first === last) return { schema: "public", table: text.slice(0, first), column }
  return { schema: text.slice(0, first), table: text.slice(first + 1, last), column }
}

/** Of two texts, the column's and the Schema's; `undefined` for what is none. */
export const columnSchema = (column: string, schema: string): ColumnSchema | undefined => {
  const of = columnOf(column)
  const hash = schema.lastIndexOf("#")
  const [module, name] = [schema.slice(0, hash), schema.slice(hash + 1)]
  const isName = hash > 0 && /^[\p{ID_Start}_$][\p{ID_Continue}$]*$/u.test(name)
  return of === undefined || !isName ? undefined : { ...of, module, name }
}

/**
 * The same, of one text.
 *
 * @example
 * parse("public.orders.meta=./schemas.ts#Meta")
 */
export const parse = (text: string): ColumnSchema | undefined => {
  const equals = text.indexOf("=")
  return equals < 0 ? undefined : columnSchema(text.slice(0, equals), text.slice(equals + 1))
}

/** As `parse` takes it. */
export const format = ({ column, module, name, schema, table }: ColumnSchema): string =>
  `${schema}.${table}.${column}=${module}#${name}`
