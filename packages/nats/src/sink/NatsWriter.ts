/**
 * One writer: messages go out one behind the other without waiting, each naming the one before it by id and by sequence. So the
 * answer to the last of a batch is one for all of it, and all answers come to one inbox.
 *
 * Both, as neither is enough. A message without an id of somebody else's is told by the sequence. And where a message was refused,
 * another opened the stream in its place, and the next one of ours came then, the number would fit; the id does not.
 */
import type { JetStreamManager, StreamConfig } from "@nats-io/jetstream"
import { createInbox, headers, type Msg, type MsgHdrs, MsgHdrsImpl, type NatsConnection } from "@nats-io/transport-node"
import {
  type Mark,
  type Message,
  type SinkError,
  SinkFenced,
  SinkRejected,
  SinkUnavailable,
  version
} from "@replicant/core/sink"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type ApiError, fromApi, fromNats, isOfChain } from "./NatsFailure.ts"
import { foreign, header, tailOf, takes, untaken, writtenIn } from "./NatsStream.ts"
import type { Sent } from "./Sent.ts"

/** What a writer is made of. */
export interface Parts {
  readonly sink: string
  readonly connection: NatsConnection
  readonly manager: JetStreamManager
  readonly stream: string
  readonly config: StreamConfig
  readonly sent: Sent
  readonly maxMessageBytes: number
  readonly epoch: string
  /** Where its record stands, which the first message names by the epoch. */
  readonly sequence: number
}

/** An answer of JetStream to an append. */
interface Answer {
  readonly seq?: number
  readonly duplicate?: boolean
  readonly error?: ApiError
}

const encoder = new TextEncoder()

/** More than all headers but the key take. */
const headerBytes = 512

const sizeOf = ({ key = "", value = "" }: Message): number =>
  encoder.encode(value).length + encoder.encode(key).length + headerBytes

const staticHead = `\r\n${header.version}: ${version}\r\n${header.op}: `

/** Headers of a message, written at once: the client's own check and copy each of seven, which costs more than all the rest. */
class Head extends MsgHdrsImpl {
  private readonly text: string

  constructor({ id, key, op, systemId }: Message, lastId: string, lastSequence: number) {
    super()
    const chain = `${header.id}: ${id}\r\n${header.lastId}: ${lastId}\r\n${header.lastSequence}: ${lastSequence}`
    const keyed = key === undefined ? "" : `\r\n${header.key}: ${key}`
    const ofSystem = systemId === undefined ? "" : `\r\n${header.system}: ${systemId}`
    this.text = `NATS/1.0\r\n${chain}${staticHead}${op}${keyed}${ofSystem}\r\n\r\n`
  }

  override encode(): Uint8Array {
    return encoder.encode(this.text)
  }
}

/** Of a record: whose it is, and what is held last; behind which sequence, and behind which message, if that is not all. */
export const recordHeaders = (record: {
  readonly epoch: string
  readonly id: string
  readonly mark: Mark | undefined
  readonly sequence: number
  readonly lastId?: string | undefined
}): MsgHdrs => {
  const { epoch, id, lastId, mark, sequence } = record
  const made = headers()
  made.append(header.id, id)
  if (lastId !== undefined) made.append(header.lastId, lastId)
  made.append(header.lastSequence, String(sequence))
  made.append(header.epoch, epoch)
  if (mark !== undefined) made.append(header.mark, mark.id)
  if (mark?.systemId !== undefined) made.append(header.system, mark.systemId)
  return made
}

type Told = (answer: Effect.Effect<Answer, SinkError>) => void

export class Writer {
  private readonly parts: Parts
  private readonly inbox = createInbox()
  private readonly waiting = new Map<number, Told>()
  private asked = 0
  /** Of what was sent last. */
  private sequence: number
  private id: string
  private readonly subjects = new Set<string>()
  private readonly most: number
  /** The connection is gone, or an append was refused. */
  private broken: SinkError | undefined
  /** Why an append was refused is being found out; what else is refused meanwhile was so for that reason. */
  private verdict: Deferred.Deferred<void> | undefined

  constructor(parts: Parts) {
    this.parts = parts
    this.sequence = parts.sequence
    this.id = parts.epoch
    const limits = [parts.maxMessageBytes, parts.connection.info?.max_payload ?? 0, parts.config.max_msg_size]
    this.most = Math.min(...limits.filter((limit) => limit > 0))
  }

  /** Listens to answers, and to what becomes of the connection, for as long as it is open. */
  readonly listen: Effect.Effect<void, SinkError, Scope.Scope> = Effect.suspend(() => {
    const { connection, sink } = this.parts
    connection.subscribe(`${this.inbox}.*`, { callback: (error, message) => this.hear(error, message) })
    const closed = Effect.flatMap(
      Effect.promise(() => connection.closed()),
      (cause) => Effect.sync(() => this.breakOff(fromNats(sink, cause ?? new Error("the connection was closed"))))
    )
    const told = Effect.promise(async () => {
      for await (const status of connection.status())
        if (status.type === "error") this.breakOff(fromNats(sink, status.error))
    })
    return Effect.asVoid(Effect.andThen(Effect.forkScoped(closed), Effect.forkScoped(told)))
  })

  private breakOff(error: SinkError): void {
    this.broken ??= error
    for (const told of this.waiting.values()) told(Effect.fail(error))
    this.waiting.clear()
  }

  private hear(error: Error | null, message: Msg): void {
    const number = Number(message.subject.slice(this.inbox.length + 1))
    const told = this.waiting.get(number)
    this.waiting.delete(number)
    if (error !== null) told?.(Effect.fail(fromNats(this.parts.sink, error)))
    // Without a body: nobody listens to that subject.
    else if (message.data.length === 0) told?.(Effect.succeed({ error: { code: 503, description: "nobody answers" } }))
    else told?.(Effect.succeed(message.json<Answer>()))
  }

  private publish(message: Message, reply: string | undefined): void {
    const { connection, sink } = this.parts
    const options = { headers: new Head(message, this.id, this.sequence), ...(reply === undefined ? {} : { reply }) }
    try {
      connection.publish(message.to, message.value, options)
    } catch (cause) {
      this.broken ??= fromNats(sink, cause)
    }
    this.id = message.id
    this.sequence++
  }

  /** What of a batch cannot be, before any of it is sent. */
  private problemOf(batch: ReadonlyArray<Message>): SinkError | undefined {
    const { config, sink } = this.parts
    for (const message of batch) {
      const { id, key = "", to, value = "" } = message
      if (!this.subjects.has(to)) {
        if (!/^[^\s*>]+$/.test(to) || !takes(config, to)) return untaken(sink, config, to)
        this.subjects.add(to)
      }
      if (/[\r\n]/.test(key))
        return new SinkRejected({ sink, id, detail: "its key has a line break, and goes in a header" })
      // Only what may be too large is measured.
      if ((value.length + key.length) * 3 + headerBytes <= this.most) continue
      const size = sizeOf(message)
      if (size > this.most)
        return new SinkRejected({ sink, id, size, detail: `a message has at most ${this.most} bytes with its headers` })
    }
    return undefined
  }

  private ask(send: (reply: string) => void): Effect.Effect<Answer, SinkError> {
    return Effect.callback((resume) => {
      if (this.broken !== undefined) return resume(Effect.fail(this.broken))
      const number = this.asked++
      this.waiting.set(number, resume)
      send(`${this.inbox}.${number}`)
      if (this.broken !== undefined) this.breakOff(this.broken)
      return Effect.sync(() => void this.waiting.delete(number))
    })
  }

  readonly append = (batch: NonEmptyReadonlyArray<Message>): Effect.Effect<void, SinkError> =>
    Effect.suspend(() => {
      if (this.broken !== undefined || this.verdict !== undefined) return this.failed
      const problem = this.problemOf(batch)
      if (problem !== undefined) return this.fail(problem)
      const first = this.sequence + 1
      const last = this.sequence + batch.length
      const asked = this.ask((reply) => {
        this.parts.sent.sending(first, batch)
        for (const message of batch) this.publish(message, this.sequence + 1 === last ? reply : undefined)
      })
      return Effect.flatMap(asked, ({ duplicate, error, seq }) => {
        if (error === undefined && duplicate !== true && seq === last) {
          this.parts.sent.confirm(last)
          return Effect.void
        }
        return this.verdict === undefined ? this.refused(batch, error) : this.failed
      })
    })

  /** Where messages expire, what is held last would, too: while nothing comes a record tells of it anew. */
  readonly renewing = (subject: string, everyMillis: number): Effect.Effect<never> =>
    Effect.gen({ self: this }, function* () {
      const { connection, epoch, sent } = this.parts
      while (true) {
        const before = this.sequence
        yield* Effect.sleep(everyMillis)
        if (this.sequence !== before || this.waiting.size > 0 || this.verdict !== undefined) continue
        const sequence = before + 1
        const id = `${epoch}.${sequence}`
        const asked = this.ask((reply) => {
          const mark = sent.heldAt(before)?.mark
          const made = recordHeaders({ epoch, id, mark, sequence: before, lastId: this.id })
          connection.publish(subject, "", { headers: made, reply })
          this.id = id
          this.sequence = sequence
        })
        const answer = yield* Effect.option(asked)
        if (Option.isSome(answer) && answer.value.error === undefined) sent.confirm(sequence)
      }
    })

  private fail(error: SinkError): Effect.Effect<never, SinkError> {
    this.broken ??= error
    return Effect.fail(error)
  }

  /** For an append behind one that has failed: it fails after that one, which alone knows why, and for the same reason. */
  private readonly failed: Effect.Effect<never, SinkError> = Effect.suspend(() =>
    Effect.andThen(
      this.verdict === undefined ? Effect.void : Deferred.await(this.verdict),
      Effect.suspend(() => Effect.fail(this.broken ?? this.closed))
    )
  )

  private get closed(): SinkUnavailable {
    const detail = "an earlier append was given up"
    return new SinkUnavailable({ sink: this.parts.sink, reason: "Closed", detail })
  }

  /**
   * Not all of a batch was stored. The answer to its last message mostly tells no more than that: why the first was refused is
   * found by sending that one again, which can do no harm, as it names its predecessor.
   */
  private refused(batch: NonEmptyReadonlyArray<Message>, error: ApiError | undefined): Effect.Effect<never, SinkError> {
    const verdict = Deferred.makeUnsafe<void>()
    this.verdict = verdict
    const [{ id }] = batch
    const told =
      error !== undefined && !isOfChain(error) && batch.length === 1
        ? Effect.fail(fromApi(this.parts.sink, error, { id, size: sizeOf(batch[0]) }))
        : this.findOut
    return Effect.flatMap(Effect.flip(told), (reason) => this.fail(reason)).pipe(
      Effect.ensuring(Deferred.succeed(verdict, undefined))
    )
  }

  private readonly findOut: Effect.Effect<never, SinkError> = Effect.gen({ self: this }, function* () {
    const { connection, epoch, manager, sent, sink, stream } = this.parts
    const { last, sequence } = yield* tailOf(sink, manager, stream)
    const written = last === undefined ? undefined : writtenIn(last)
    if (last !== undefined && written?._tag === "Foreign") return yield* foreign(sink, last)
    const held = sent.heldAt(sequence)
    const isOurs =
      written?._tag === "Record"
        ? written.epoch === epoch
        : held !== undefined && (written?._tag !== "Message" || written.mark.id === held.mark?.id)
    if (!isOurs) {
      const who = written?._tag === "Record" ? `writer ${written.epoch} has opened it` : "another message stands there"
      return yield* new SinkFenced({ sink, detail: `at its sequence ${sequence} ${who}` })
    }
    const again = sent.messageAt(sequence + 1)
    if (again === undefined)
      return yield* new SinkUnavailable({ sink, reason: "Closed", detail: "it refused what it has stored" })
    const before = last?.header.get(header.id) || held?.mark?.id || epoch
    const answered = yield* Effect.tryPromise({
      try: () =>
        connection.request(again.to, again.value, { headers: new Head(again, before, sequence), timeout: 10_000 }),
      catch: (cause) => fromNats(sink, cause)
    })
    const { duplicate, error } = answered.json<Answer>()
    if (error !== undefined) return yield* fromApi(sink, error, { id: again.id, size: sizeOf(again) })
    const detail =
      duplicate === true
        ? `it remembers ${again.id} and does not hold it: it passes with its duplicate window`
        : `for a moment it took ${again.id} for what it cannot store`
    return yield* new SinkUnavailable({ sink, reason: "NotReady", detail })
  })
}
