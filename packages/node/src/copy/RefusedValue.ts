/**
 * Which column a value is of that the target refuses. Where its input function is who refuses it, the server tells in the error's
 * context alone, beside the value: of that text nothing goes on but which column it is.
 *
 * Source: `CopyFromErrorCallback` in src/backend/commands/copyfrom.c, `bind_param_error_callback` in
 * src/backend/tcop/postgres.c; both are translated.
 */

/** What is being written: a table, and the columns that the parameters of a statement are of, or those of a COPY. */
export interface Written {
  readonly table: string
  readonly columns: ReadonlyArray<string>
}

/** `COPY t, line 3, column ` */
const ofCopy = /^COPY .*?, \S+ \d+, \S+ /

/** `unnamed portal parameter $2 = '…'`, `portal "p" parameter $2`. A `$2` within somebody's SQL is in quotes. */
const ofParameter = /^[^"$\n]*(?:"[^"\n]*"[^"$\n]*)?\$(\d+)(?: = |\n|$)/

/** One of the columns that are written, or none: never a text of the server's. */
export const refusedColumn = (context: string | undefined, { columns }: Written): string | undefined => {
  if (context === undefined) return undefined
  const copy = ofCopy.exec(context)
  if (copy === null) {
    const parameter = ofParameter.exec(context)?.[1]
    return parameter === undefined ? undefined : columns[Number(parameter) - 1]
  }
  const rest = context.slice(copy[0].length)
  return columns.find((name) => rest === name || rest.startsWith(`${name}:`) || rest.startsWith(`${name} :`))
}
