/**
 * Where messages go: a stream, a subject, a topic, a file. A pattern a kind, or a function. The public module `Route`.
 *
 * Names of tables hold dots, blanks and stars, which mean something to engines: in a pattern they are written as in a URL.
 */
import { InvalidOption } from "../ReplicationError.ts"

/** What is to be routed: a table's row or truncation, an emitted message, or what is of no table: ends, snapshots, gaps. */
export type Subject =
  | { readonly kind: "row"; readonly schema: string; readonly table: string }
  | { readonly kind: "message"; readonly prefix: string }
  | { readonly kind: "control" }

/** Where it goes; `undefined` for what is left out. Asked once for each table and prefix. */
export type Route = (subject: Subject) => string | undefined

/** A place for each kind. What has none is left out. */
export interface Patterns {
  /** With `{schema}` and `{table}`: `shop.{schema}.{table}`. */
  readonly rows?: string | undefined
  /** With `{prefix}`: `shop.outbox.{prefix}`. */
  readonly messages?: string | undefined
  /** Ends of transactions, snapshots and gaps. */
  readonly control?: string | undefined
}

/** A name as one token. */
export const token = (name: string): string =>
  encodeURIComponent(name).replaceAll(/[.!'()*~]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)

const fill = (pattern: string, names: { readonly [name: string]: string }): string =>
  pattern.replaceAll(/\{(\w+)\}/g, (whole, name: string) => {
    const value = names[name]
    return value === undefined ? whole : token(value)
  })

/**
 * By pattern.
 *
 * @example
 * Route.patterns({ rows: "shop.{schema}.{table}", messages: "shop.outbox.{prefix}", control: "shop.control" })
 */
export const patterns =
  ({ control, messages, rows }: Patterns): Route =>
  (subject) => {
    switch (subject.kind) {
      case "row":
        return rows === undefined ? undefined : fill(rows, { schema: subject.schema, table: subject.table })
      case "message":
        return messages === undefined ? undefined : fill(messages, { prefix: subject.prefix })
      case "control":
        return control
    }
  }

/** Everything to one place, in one order. */
export const one =
  (to: string): Route =>
  () =>
    to

/** What is wrong with these patterns: a name in braces that the kind does not have. */
export const problemOf = ({ control = "", messages = "", rows = "" }: Patterns): InvalidOption | undefined => {
  const wrong = [
    ...rows.matchAll(/\{(?!(?:schema|table)\})[^}]*\}/g),
    ...messages.matchAll(/\{(?!prefix\})[^}]*\}/g),
    ...control.matchAll(/\{[^}]*\}/g)
  ]
  return wrong.length === 0
    ? undefined
    : new InvalidOption({
        option: "route",
        problem: `knows no ${wrong[0]![0]}: rows have {schema} and {table}, messages {prefix}`
      })
}
