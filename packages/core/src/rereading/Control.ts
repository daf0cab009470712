/**
 * Reading published tables anew while their stream goes on: what is requested, and the marks that are on their way. Docs:
 * docs/resnapshot.md; why it is exact: docs/decisions/0017.
 *
 * What is delivered passes by here (`stream/Requests.ts`): the tables under way take note of what they are told of. Nothing
 * here asks the server: that is `Worker.ts`.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Begin, Change, Message } from "../change/Change.ts"
import type { CheckpointError } from "../checkpoint/CheckpointService.ts"
import type * as Lsn from "../Lsn.ts"
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

/** What stood at a mark, as long as nothing behind it was acknowledged: the mark may come again, and what stood there with it. */
interface Handed {
  readonly commitLsn: Lsn.Lsn
  readonly elements: AtMark
  readonly arrived: Mark["arrived"]
}

/** What is requested of one stream, shared by the requests, their worker, and the handler that they are among. */
export class ControlState implements JobOwner {
  readonly jobs: Array<SnapshotJob> = []
  readonly somethingToDo = Latch.makeUnsafe(false)
  /** Of the stream that it is attached to. */
  ledger: SnapshotLedger | undefined
  private readonly marks = new Map<string, Mark>()
  private readonly handed = new Map<string, Handed>()
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
    return this.jobs.length === 0 && this.marks.size === 0 && this.handed.size === 0 && this.ledger?.isWaiting !== true
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
      this.handed.clear()
    }
    return change._tag === "Message" && change.transactional && change.prefix === markPrefix ? change : undefined
  }

  /**
   * The mark that a message is, with what stands there. One that comes again, since its connection was lost before it was
   * acknowledged, stands for what it stood for: a consumer may have let go of that with the connection. Nobody's otherwise.
   */
  takeMark(message: Message): Handed | undefined {
    const content = new TextDecoder().decode(message.content)
    const mark = this.marks.get(content)
    if (mark === undefined) return this.handed.get(content)
    this.marks.delete(content)
    const handed = { commitLsn: message.begin!.commitLsn, elements: mark.take(message.begin!), arrived: mark.arrived }
    this.handed.set(content, handed)
    return handed
  }

  /** Nothing of an earlier run comes again as it was. */
  forgetHanded(): void {
    this.handed.clear()
  }

  /** Writes down what is settled now that everything before this is durable. */
  settle(durable: Lsn.Lsn): Effect.Effect<void, CheckpointError> {
    for (const [content, { commitLsn }] of this.handed) if (commitLsn < durable) this.handed.delete(content)
    const { ledger } = this
    if (ledger === undefined) return Effect.void
    ledger.acknowledged(durable)
    return ledger.save
  }
}

/** Those that have not ended. */
export const requestsOf = (state: ControlState): Effect.Effect<ReadonlyArray<SnapshotRequest>> =>
  Effect.sync(() => state.jobs.map(({ request }) => request))

/** Makes a request; one whose id is known is returned as it is. */
export const request = (
  state: ControlState,
  options: SnapshotRequestOptions
): Effect.Effect<SnapshotRequest, InvalidOption> =>
  Effect.suspend(() => {
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
