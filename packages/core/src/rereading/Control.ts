/**
 * Reading published tables anew while their stream goes on: the requests, and the place in the stream where what they bring
 * is handed over. Docs: docs/resnapshot.md; why it is exact: docs/decisions/0017.
 *
 * A handler is wrapped, and what is delivered passes by on its way: as it is, while nothing is requested. Otherwise the
 * tables under way take note of what they are told of, and the message that marks a place gives way to the rows that
 * belong there. Nothing here asks the server: that is `Worker.ts`.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Random from "effect/Random"
import type { Begin, Change, Message } from "../change/Change.ts"
import type { Handled } from "../change/NextLsn.ts"
import type { CheckpointError } from "../checkpoint/CheckpointService.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { SnapshotRow } from "../snapshot/SnapshotChange.ts"
import type { TableSnapshotChange } from "../snapshot/TableSnapshotChange.ts"
import { tableName } from "../table/TableName.ts"
import type { SnapshotLedger } from "./Ledger.ts"
import { note } from "./Phase.ts"
import {
  advance,
  type JobOwner,
  makeJob,
  type SnapshotJob,
  type SnapshotRequest,
  type SnapshotRequestOptions
} from "./Request.ts"
import { markPrefix } from "./TableReader.ts"

/** What stands at a mark's place: elements of one kind at a time. */
export type AtMark = ReadonlyArray<NonEmptyReadonlyArray<SnapshotRow | TableSnapshotChange>>

/** A mark that is on its way through the WAL. */
export interface Mark {
  /** Asked at its place, between the changes of the stream. */
  readonly take: (begin: Begin) => AtMark
  /** `lost` where the stream has a gap, in which it may have been. */
  readonly arrived: Deferred.Deferred<"handled" | "lost">
}

/** What a handler may be given. */
type Delivered = Change | SnapshotRow | TableSnapshotChange

/** A handler's failure, or the store's. */
type Handling<E, R> = Effect.Effect<Handled, E | CheckpointError, R>

/** The inside of a control, shared by its requests, its worker, and the wrapped handlers. */
export class ControlState implements JobOwner {
  readonly jobs: Array<SnapshotJob> = []
  readonly somethingToDo = Latch.makeUnsafe(false)
  /** Of the stream that it is attached to. */
  ledger: SnapshotLedger | undefined
  private readonly marks = new Map<string, Mark>()
  private readonly name: string
  private count = 0

  constructor(name: string) {
    this.name = name
  }

  readonly wake = (): void => {
    this.somethingToDo.openUnsafe()
  }

  /** Of one that is completed, only an acknowledgement will say that it need not come again. */
  readonly remove: JobOwner["remove"] = (job, end) => {
    const index = this.jobs.indexOf(job)
    if (index >= 0) this.jobs.splice(index, 1)
    if (end._tag !== "TableSnapshotCompleted") this.ledger?.remove(job)
    this.wake()
  }

  nextId(): string {
    this.count += 1
    return `${this.name}.${this.count}`
  }

  /** Expects a mark of this content. */
  expect(content: string, mark: Mark): void {
    this.marks.set(content, mark)
  }

  /** Expects it no more. False: it has come. */
  forget(content: string): boolean {
    return this.marks.delete(content)
  }

  /** Whether nothing that is delivered concerns us. */
  get isIdle(): boolean {
    return this.jobs.length === 0 && this.marks.size === 0 && this.ledger?.isWaiting !== true
  }

  /** Takes note of a change before it is handed over. Gives a mark of ours where it is one. */
  note(change: Change): Message | undefined {
    for (const job of this.jobs) {
      const event = note(job.phase, change)
      if (event !== undefined) advance(job, event)
    }
    if (change._tag === "Gap") {
      // The mark may be among what was missed.
      for (const mark of this.marks.values()) Deferred.doneUnsafe(mark.arrived, Effect.succeed("lost"))
      this.marks.clear()
    }
    return change._tag === "Message" && change.transactional && change.prefix === markPrefix ? change : undefined
  }

  /** The mark that a message is, if it is awaited. One that comes again is nobody's. */
  takeMark(message: Message): Mark | undefined {
    const content = new TextDecoder().decode(message.content)
    const mark = this.marks.get(content)
    this.marks.delete(content)
    return mark
  }

  /** Passes on what a handler acknowledged, once what it settles is written down. */
  settle(done: Handled): Effect.Effect<Handled, CheckpointError> {
    const { ledger } = this
    if (done === undefined || ledger === undefined) return Effect.succeed(done)
    ledger.acknowledged(done.lsn)
    return Effect.as(ledger.save, done)
  }
}

/** Hands over what stands at a mark. */
const handleMark = Effect.fnUntraced(function* <E, R>(
  state: ControlState,
  message: Message,
  handle: (changes: NonEmptyReadonlyArray<Delivered>) => Effect.Effect<Handled, E, R>
): Effect.fn.Return<Handled, E, R> {
  const mark = state.takeMark(message)
  if (mark === undefined) return undefined
  let done: Handled
  for (const elements of mark.take(message.begin!)) done = (yield* handle(elements)) ?? done
  yield* Deferred.succeed(mark.arrived, "handled")
  return done
})

/** A handler of single changes, with what is requested among them. */
export const interceptEach =
  <C extends Delivered, E, R>(state: ControlState, handler: (change: C | Delivered) => Effect.Effect<Handled, E, R>) =>
  (change: C): Handling<E, R> => {
    if (state.isIdle) return handler(change)
    const mark = state.note(change as Change)
    if (mark === undefined) return Effect.flatMap(handler(change), (done) => state.settle(done))
    return handleMark<E, R>(state, mark, (elements) => {
      let last: Handled
      const each = (element: Delivered) =>
        Effect.map(handler(element), (done) => {
          last = done ?? last
        })
      return Effect.map(Effect.forEach(elements, each, { discard: true }), () => last)
    }).pipe(Effect.flatMap((done) => state.settle(done)))
  }

/** A handler of arrays, with what is requested between them. */
export const interceptArrays =
  <E, R>(state: ControlState, handler: (changes: NonEmptyReadonlyArray<Delivered>) => Effect.Effect<Handled, E, R>) =>
  (changes: NonEmptyReadonlyArray<Change>): Handling<E, R> => {
    if (state.isIdle) return handler(changes)
    return Effect.gen(function* () {
      let done: Handled
      let begun = 0
      const handOver = function* (end: number) {
        const part = changes.slice(begun, end)
        if (isReadonlyArrayNonEmpty(part)) done = (yield* handler(part)) ?? done
        begun = end + 1
      }
      for (const [index, change] of changes.entries()) {
        const mark = state.note(change)
        if (mark === undefined) continue
        yield* handOver(index)
        done = (yield* handleMark(state, mark, handler)) ?? done
      }
      yield* handOver(changes.length)
      return yield* state.settle(done)
    })
  }

/**
 * Asks for published tables to be read anew, from the first row or where a condition holds, while the stream that the
 * control is given to goes on. Made by {@link make}.
 *
 * One request is read at a time, in the order in which they were made; a paused one lets the next go on. Requests may be
 * made before the stream begins, and outlive a lost connection; with `checkpoints` they outlive the process.
 */
export interface SnapshotControl {
  /**
   * Asks for one table. Fails at once only for what is no request; what the server refuses, its `await` tells.
   *
   * @example
   * const request = yield* control.request({ table: "public.orders", where: "placed_at > '2026-01-01'" })
   * yield* request.await
   */
  readonly request: (options: SnapshotRequestOptions) => Effect.Effect<SnapshotRequest, InvalidOption>
  /** Those that have not ended, also what an earlier process left, once the stream has begun. */
  readonly requests: Effect.Effect<ReadonlyArray<SnapshotRequest>>
}

class Control implements SnapshotControl {
  readonly state: ControlState

  constructor(state: ControlState) {
    this.state = state
  }

  readonly requests = Effect.sync(() => this.state.jobs.map(({ request }) => request))

  readonly request = (options: SnapshotRequestOptions): Effect.Effect<SnapshotRequest, InvalidOption> =>
    Effect.suspend(() => {
      const { state } = this
      const known = state.jobs.find(({ request }) => request.id === options.id)
      if (known !== undefined) return Effect.succeed(known.request)
      const name = tableName(options.table)
      const texts = [
        ["table", name.schema],
        ["table", name.name],
        ["where", options.where ?? "true"]
      ] as const
      for (const [option, text] of texts) {
        if (text.trim() === "") return Effect.fail(new InvalidOption({ option, problem: "is empty" }))
        if (text.includes("\0")) return Effect.fail(new InvalidOption({ option, problem: "holds a zero byte" }))
      }
      const { chunk, where } = options
      return Effect.map(makeJob({ id: options.id ?? state.nextId(), name, chunk, where }, state), (job) => {
        state.jobs.push(job)
        state.ledger?.add(job)
        state.wake()
        return job.request
      })
    })
}

/**
 * A control, to be given to one stream as its `control`.
 *
 * @example
 * const control = yield* Snapshot.makeControl
 * yield* Snapshot.withSnapshotStream({ ...options, control }, handler).pipe(Effect.forkScoped)
 * const request = yield* control.request({ table: "public.orders" })
 */
export const make: Effect.Effect<SnapshotControl> = Effect.map(
  Random.nextIntBetween(0, 2 ** 48),
  (number) => new Control(new ControlState(number.toString(36)))
)

/** The inside of a control that {@link make} made. */
export const stateOf = (control: SnapshotControl): ControlState => {
  if (control instanceof Control) return control.state
  throw new TypeError("a control that Snapshot.makeControl did not make")
}
