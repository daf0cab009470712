/**
 * What is requested of a stream, among its changes: a handler is wrapped, and what is delivered passes by on its way, as it
 * is while nothing is requested. Otherwise the tables under way take note of what they are told of, and the message that marks
 * a place gives way to the rows that belong there.
 *
 * The tables under way are in `rereading/Control.ts`; why this is exact: docs/decisions/0017.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { Change, Message } from "../change/Change.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import type { ControlState } from "../rereading/Control.ts"
import type { SnapshotRow } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { TableSnapshotChange } from "../snapshot/TableSnapshotChange.ts"
import type { Consume, Handler, Read, Session } from "./Handler.ts"

/** What a handler may be given. */
type Delivered = Change | SnapshotRow | TableSnapshotChange

/** Acknowledges what is written down: what a request has settled is lost with the process, and what the slot passes is gone. */
const settling = <E>(control: ControlState, session: Session<E>): Session<E> => ({
  ...session,
  acknowledgeThrough: (unit: NextLsn) =>
    control.isIdle
      ? session.acknowledgeThrough(unit)
      : Effect.andThen(control.settle(unit.lsn), session.acknowledgeThrough(unit)),
  // What else is done by this is known only then; and what is written down too late is merely read again.
  acknowledge: (unit: NextLsn) =>
    Effect.andThen(
      session.acknowledge(unit),
      control.isIdle ? Effect.void : Effect.flatMap(session.durable, (durable) => control.settle(durable))
    )
})

/** Hands over what stands at a mark. */
const takeMark = Effect.fnUntraced(function* <E, R>(
  control: ControlState,
  message: Message,
  consume: Consume<Delivered, E, R>
): Effect.fn.Return<void, E | SnapshotError, R> {
  const mark = control.takeMark(message)
  if (mark === undefined) return
  for (const changes of mark.elements) yield* consume({ changes, bytes: 0 })
  yield* Deferred.succeed(mark.arrived, "handled")
})

/** A handler with what is requested among its changes. */
export const withRequests = <E, R>(
  control: ControlState,
  handler: Handler<Delivered, E, R>
): Handler<Change, E, R> => ({
  unfit: handler.unfit,
  position: handler.position,
  make: (session) =>
    Effect.map(handler.make(settling(control, session)), (consume) => {
      // What was left out of a read comes again: whoever takes all that he is given must be given nothing behind it.
      let isCut = false
      const among = Effect.fnUntraced(function* ({ bytes, changes }: Read<Change>) {
        let begun = 0
        const handOver = (end: number, size: number) => {
          const part = changes.slice(begun, end)
          begun = end + 1
          return isReadonlyArrayNonEmpty(part) ? consume({ changes: part, bytes: size }) : Effect.void
        }
        for (const [index, change] of changes.entries()) {
          // What is not handed over any more comes again, and its mark with it.
          if (session.isOver()) {
            isCut = true
            return
          }
          const mark = control.note(change)
          if (mark === undefined) continue
          yield* handOver(index, 0)
          yield* takeMark(control, mark, consume)
        }
        yield* handOver(changes.length, bytes)
      })
      return (read) =>
        Effect.suspend(() => {
          if (isCut) return Effect.void
          return control.isIdle ? consume(read) : among(read)
        })
    })
})
