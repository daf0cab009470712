/**
 * Declared messages among changes: which are, and what they say. Those keep the shape of a `Message`, with `message` and
 * `value` beside what it has, so that `nextLsn` and `changeId` take them. Everything else passes as it is: rows, messages of
 * others, and what is to be acknowledged.
 *
 * Pure, one loop per array. `stream/Outbox.ts` puts it on streams.
 */
import * as Result from "effect/Result"
import type * as Change from "../change/Change.ts"
import { codecOf, type MessageCodec } from "./MessageCodec.ts"
import { MessageMismatch } from "./MessageError.ts"
import type { Any, Value } from "./OutboxMessage.ts"

/** Anything that a stream of changes may deliver: a `Change`, a change of a declared table. */
export interface Tagged {
  readonly _tag: string
}

interface Decoded<M extends Any> extends Change.Message {
  readonly prefix: M["prefix"]
  /** Which declared message: the prefix again, as the one that no other message has. */
  readonly message: M["prefix"]
  readonly value: Value<M>
  readonly mismatch?: undefined
}

interface Undecoded<M extends Any> extends Change.Message {
  readonly prefix: M["prefix"]
  readonly message?: undefined
  /** Why it has no value. Its `content` is as it came. */
  readonly mismatch: MessageMismatch
}

/** A message that was not declared, as it came. */
export interface OtherMessage extends Change.Message {
  readonly message?: undefined
  readonly mismatch?: undefined
}

/** A declared message with what it says. Of a union: narrow by `message`. */
export type DecodedMessage<M extends Any> = M extends Any ? Decoded<M> : never

/** A declared message whose content does not fit its Schema. Handed over only under `onMismatch: "untyped"`. */
export type UndecodedMessage<M extends Any> = M extends Any ? Undecoded<M> : never

/**
 * What content that does not fit does: `fail`, the default, ends the stream with a `MessageMismatch`; `untyped` hands the
 * message over as it came, with its `mismatch`.
 */
export type OnMismatch = "fail" | "untyped"

/** What a stream of `In` delivers once these messages are decoded. */
export type OutboxChange<M extends Any, Policy extends OnMismatch = "fail", In extends Tagged = Change.Change> =
  | Exclude<In, Change.Message>
  | DecodedMessage<M>
  | (Policy extends "untyped" ? UndecodedMessage<M> : never)
  | OtherMessage

/** What becomes of a message that does not fit its Schema. */
export interface OutboxOptions<Policy extends OnMismatch> {
  /** `fail` when left out. */
  readonly onMismatch?: Policy | undefined
}

/** Content by its Schema, or the error that names the message. */
export const decodeMessage = <A>(
  codec: MessageCodec<A>,
  { content, lsn, prefix }: Change.Message
): Result.Result<A, MessageMismatch> =>
  Result.mapError(codec.decode(content), (misfit) => new MessageMismatch({ prefix, lsn, ...misfit }))

/** Fills arrays with changes whose declared messages are decoded. */
export class OutboxChanges<M extends Any, Policy extends OnMismatch, In extends Tagged = Change.Change> {
  private readonly onMismatch: OnMismatch
  private readonly codecs = new Map<string, MessageCodec<unknown>>()

  constructor(messages: ReadonlyArray<M>, options: OutboxOptions<Policy> = {}) {
    this.onMismatch = options.onMismatch ?? "fail"
    for (const { prefix, schema } of messages) {
      if (this.codecs.has(prefix)) throw new Error(`two messages of a set have the prefix ${JSON.stringify(prefix)}`)
      this.codecs.set(prefix, codecOf(schema))
    }
  }

  /** Appends `changes` to `out`, decoded, up to a failure, which is returned. */
  append(changes: ReadonlyArray<In>, out: Array<OutboxChange<M, Policy, In>>): MessageMismatch | undefined {
    // One cast here instead of one per push: that a tag of "Message" is a Message is not known of a type parameter.
    const given = changes as ReadonlyArray<Tagged> as ReadonlyArray<Change.Message | { readonly _tag: "Other" }>
    const pushed = out as Array<unknown>
    for (const change of given) {
      const codec = change._tag === "Message" ? this.codecs.get(change.prefix) : undefined
      if (change._tag !== "Message" || codec === undefined) {
        pushed.push(change)
        continue
      }
      const decoded = decodeMessage(codec, change)
      if (Result.isSuccess(decoded)) pushed.push({ ...change, message: change.prefix, value: decoded.success })
      else if (this.onMismatch === "fail") return decoded.failure
      else pushed.push({ ...change, mismatch: decoded.failure })
    }
    return undefined
  }
}

/**
 * A function that decodes these messages in arrays from anywhere: a read, a `Transaction`. Make it once and keep it. Throws
 * when two messages have one prefix.
 *
 * @example
 * const decode = Outbox.decoder([OrderPlaced])
 * Handler.transactions(({ changes }) => Effect.flatMap(Effect.fromResult(decode(changes)), publish))
 */
export const decoder = <M extends Any, Policy extends OnMismatch = "fail">(
  messages: ReadonlyArray<M>,
  options?: OutboxOptions<Policy>
) => {
  const set = new OutboxChanges<M, Policy, Tagged>(messages, options)
  return <In extends Tagged>(
    changes: ReadonlyArray<In>
  ): Result.Result<ReadonlyArray<OutboxChange<M, Policy, In>>, MessageMismatch> => {
    const decoded: Array<OutboxChange<M, Policy, In>> = []
    const failure = set.append(changes, decoded as Array<OutboxChange<M, Policy, Tagged>>)
    return failure === undefined ? Result.succeed(decoded) : Result.fail(failure)
  }
}
