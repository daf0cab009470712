/**
 * Tables that are read anew for one consumer of a broadcast: among the changes of all, and for it alone.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { InvalidOption } from "../ReplicationError.ts"
import type { SnapshotRequest, SnapshotRequestOptions } from "../rereading/Request.ts"
import type { SnapshotRequestError } from "../rereading/RequestError.ts"
import type { Read } from "../stream/Handler.ts"
import type { TableName } from "../table/TableName.ts"
import { bare } from "./ChangeKey.ts"

/** Tables that are read anew for a consumer that was left behind: nobody else is given these rows. */
export interface Reread {
  /** The stream's own `request`. */
  readonly request: (options: SnapshotRequestOptions) => Effect.Effect<SnapshotRequest, InvalidOption>
  readonly tables: ReadonlyArray<TableName>
}

/** What is looked at of rows that are read anew. */
interface OfRequest {
  readonly _tag: string
  readonly id?: string
  readonly snapshot?: { readonly id?: string }
}

const requestPrefix = "broadcast/"

/** For whom alone a row is, where it was read anew for somebody. */
const ownerOf = (change: unknown): string | undefined => {
  const { _tag, id, snapshot } = bare(change) as OfRequest
  const of = _tag.startsWith("TableSnapshot") || _tag.includes("SnapshotRow") ? (snapshot?.id ?? id) : undefined
  return of?.startsWith(requestPrefix) === true ? of.split("/")[1] : undefined
}

/** What a consumer is given of a read: all but rows that were read anew for another. */
export const partOf = <C>(read: Read<C>, name: string): Read<C> | undefined => {
  const [first, ...others] = read.changes.filter((change) => (ownerOf(change) ?? encoded(name)) === encoded(name))
  return first === undefined ? undefined : { changes: [first, ...others], bytes: read.bytes }
}

const encoded = (name: string): string => encodeURIComponent(name)

/** Has its tables read anew, each in its turn; whatever was asked for before is of no more use. */
export class Rereading {
  private requests: ReadonlyArray<SnapshotRequest> = []
  private open = 0
  private readonly name: string
  private readonly reread: Reread
  private readonly onFailure: (error: SnapshotRequestError) => Effect.Effect<void>

  constructor(name: string, reread: Reread, onFailure: (error: SnapshotRequestError) => Effect.Effect<void>) {
    this.name = name
    this.reread = reread
    this.onFailure = onFailure
  }

  /** Whether rows are still to come. */
  readonly isReading = (): boolean => this.open > 0

  readonly cancel = Effect.suspend(() => Effect.forEach(this.requests, ({ cancel }) => cancel, { discard: true }))

  /** A request outlives connections, and so does who waits for it. */
  private readonly watch = (request: SnapshotRequest) =>
    request.await.pipe(
      Effect.catch((error) => (error._tag === "SnapshotCancelled" ? Effect.void : this.onFailure(error))),
      Effect.ensuring(Effect.sync(() => this.open--)),
      Effect.forkDetach
    )

  readonly begin = Effect.gen({ self: this }, function* () {
    const nonce = (yield* Random.nextIntBetween(0, 2 ** 48)).toString(36)
    const requests: Array<SnapshotRequest> = []
    for (const [index, table] of this.reread.tables.entries()) {
      const id = `${requestPrefix}${encoded(this.name)}/${nonce}/${index}`
      requests.push(yield* this.reread.request({ table, id }))
    }
    this.requests = requests
    this.open += requests.length
    for (const request of requests) yield* this.watch(request)
  })
}
