/** A load that goes on beside a test: small transactions of known rows, in `t (id int PRIMARY KEY)`. */
import { Effect, Fiber } from "effect"
import type { Workspace } from "./Workspace.ts"

/** How many rows the transaction has that begins with this id. */
export const rowsFrom = (id: number): number => 1 + (id % 4)

/**
 * Commits transactions of one to four rows, one every few milliseconds, until it is told to end; that tells the last
 * id. None is cut off by that: it would be in doubt whether its rows are still to come.
 */
export const writeAlong = Effect.fnUntraced(function* (workspace: Workspace) {
  const session = yield* workspace.session
  let next = 1
  const write = Effect.suspend(() => {
    const first = next
    const last = first + rowsFrom(first) - 1
    return Effect.map(session.query(`INSERT INTO t SELECT generate_series(${first}, ${last})`), () => {
      next = last + 1
    })
  })
  const fiber = yield* Effect.forkScoped(
    Effect.forever(Effect.andThen(Effect.uninterruptible(write), Effect.sleep("8 millis")))
  )
  return Effect.andThen(
    Fiber.interrupt(fiber),
    Effect.map(workspace.sql("SELECT max(id) AS id FROM t"), ([row]) => Number(row?.id))
  )
})
