/**
 * The context of a transaction, read: a message that was written in it, handed over with every change that comes after. A
 * transaction that sets it twice has the later one from there on; one whose savepoint is rolled back has none of what was
 * set within, as the server does not send it.
 *
 * Pure, one loop per array. `stream/TransactionContext.ts` puts it on streams.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Message } from "../change/Change.ts"
import type { Transaction } from "../change/Transaction.ts"
import { codecOf, type MessageCodec } from "./MessageCodec.ts"
import type { MessageMismatch } from "./MessageError.ts"
import { decodeMessage, type Tagged } from "./OutboxChanges.ts"
import type { MessageSchema, OutboxMessage } from "./OutboxMessage.ts"

/** A declared context: what the transactions of a program say of themselves. */
export type Declared<S extends MessageSchema> = OutboxMessage<string, S>

/** What `TransactionContext.make` writes under unless told otherwise. */
export const defaultPrefix = "replicant.context"

/**
 * Declares a context. Programs that write to one database agree on the prefix, or have one each.
 *
 * @example
 * const Tenant = TransactionContext.make(Schema.Struct({ tenant: Schema.String }), { prefix: "billing.context" })
 */
export const make = <S extends MessageSchema>(
  schema: S,
  options: { readonly prefix?: string | undefined } = {}
): Declared<S> => ({ prefix: options.prefix ?? defaultPrefix, schema })

/** Who did it, for which request, in which span. A W3C trace parent; what is none is ignored, as W3C has it. */
export const RequestContext = Schema.Struct({
  actor: Schema.optional(Schema.String),
  requestId: Schema.optional(Schema.String),
  traceParent: Schema.optional(Schema.String)
})
/** Who did it, for which request, in which span. */
export type RequestContext = typeof RequestContext.Type

/** The context for programs that need no other: actor, request and trace parent, under the default prefix. */
export const Request: Declared<typeof RequestContext> = make(RequestContext)

/** A change, and the context that its transaction had set by then. */
export interface InContext<C, A> {
  /** `undefined` where none was set before, and outside transactions. */
  readonly context: C | undefined
  readonly change: A
}

/**
 * What content that does not fit does: `fail`, the default, ends the stream with a `MessageMismatch`; `none` hands
 * `undefined` over, from there on.
 */
export type OnMismatch = "fail" | "none"

/** What becomes of a context that does not fit its Schema. */
export interface ContextOptions {
  /** `fail` when left out. */
  readonly onMismatch?: OnMismatch | undefined
}

const isContext = (change: Tagged, prefix: string): change is Message =>
  change._tag === "Message" && (change as Message).prefix === prefix && (change as Message).begin !== undefined

/** Fills arrays with changes in their context. It remembers the transaction that is open between arrays. */
export class ContextChanges<S extends MessageSchema, In extends Tagged> {
  private readonly prefix: string
  private readonly codec: MessageCodec<S["Type"]>
  private readonly onMismatch: OnMismatch
  private context: S["Type"] | undefined

  constructor({ prefix, schema }: Declared<S>, options: ContextOptions = {}) {
    this.prefix = prefix
    this.codec = codecOf(schema)
    this.onMismatch = options.onMismatch ?? "fail"
  }

  /** Appends every change to `out`, up to a failure, which is returned. */
  append(changes: ReadonlyArray<In>, out: Array<InContext<S["Type"], In>>): MessageMismatch | undefined {
    for (const change of changes) {
      switch (change._tag) {
        case "Begin":
          this.context = undefined
          out.push({ context: undefined, change })
          break
        case "Commit":
        case "Prepare":
          out.push({ context: this.context, change })
          this.context = undefined
          break
        case "Message": {
          const failure = this.read(change)
          if (failure !== undefined) return failure
          const { begin } = change as Tagged as Message
          out.push({ context: begin === undefined ? undefined : this.context, change })
          break
        }
        default:
          out.push({ context: this.context, change })
      }
    }
    return undefined
  }

  private read(message: Tagged): MessageMismatch | undefined {
    if (!isContext(message, this.prefix)) return undefined
    const decoded = decodeMessage(this.codec, message)
    if (Result.isFailure(decoded) && this.onMismatch === "fail") return decoded.failure
    this.context = Result.isSuccess(decoded) ? decoded.success : undefined
    return undefined
  }
}

/**
 * The context of a whole transaction: what was set last, wherever in it. `undefined` where nothing was set.
 *
 * @example
 * Handler.transactions((transaction) =>
 *   Effect.flatMap(Effect.fromResult(TransactionContext.of(TransactionContext.Request, transaction)), (context) =>
 *     audit(context?.actor, transaction)
 *   )
 * )
 */
export const of = <S extends MessageSchema>(
  { prefix, schema }: Declared<S>,
  { changes }: Pick<Transaction, "changes">
): Result.Result<S["Type"] | undefined, MessageMismatch> => {
  const message = changes.findLast((change) => isContext(change, prefix))
  return message?._tag === "Message" ? decodeMessage(codecOf(schema), message) : Result.succeed(undefined)
}
