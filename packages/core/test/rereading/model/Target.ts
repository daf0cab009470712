/** The target of the model: what it has, and what it makes of changes. */
import type { Change, Row } from "../../../src/change/Change.ts"
import type { Rows } from "./Server.ts"

/** Rows, and the place up to which it has the stream, kept together. */
export interface Target {
  readonly rows: Rows
  readonly position: number
}

export const textOf = (rows: Rows, hasMore = true): string =>
  Array.from(rows.values(), ({ big, id, more, note }) => `${id}:${note}:${big}${hasMore ? `:${more}` : ""}`)
    .sort()
    .join(" ")

/** As a target does that stores rows by their keys, and has a row's values where an update does not send them. */
export const applyChange = (rows: Map<string, Row>, change: Change): void => {
  switch (change._tag) {
    case "Truncate":
      rows.clear()
      return
    case "Insert":
      rows.set(String(change.row.id), change.row)
      return
    case "Delete":
      rows.delete(String(change.old.row.id))
      return
    case "Update": {
      const from = String(change.old?.row.id ?? change.row.id)
      const before = rows.get(from)
      rows.delete(from)
      rows.set(String(change.row.id), { ...before, ...change.row })
    }
  }
}
