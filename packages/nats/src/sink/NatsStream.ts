/**
 * A stream as a sink finds it: whether it can be one, what it holds last, and who wrote that. Of a writer's own records, which
 * stand between messages and are none: each opening appends one, so that what former writers have under way is refused.
 */
import {
  type DiscardPolicy,
  type JetStreamManager,
  RetentionPolicy,
  type StoredMsg,
  type StreamConfig,
  type StreamInfo
} from "@nats-io/jetstream"
import { type Mark, Place, type SinkError, SinkRefused } from "@replicant/core/sink"
import * as Effect from "effect/Effect"
import { fromNats } from "./NatsFailure.ts"

/** Of a stream that the sink makes where there is none: what JetStream calls its configuration. */
export type NewStream = Partial<Omit<StreamConfig, "name" | "retention" | "discard">> & {
  readonly subjects: Array<string>
  readonly discard?: DiscardPolicy | undefined
}

/** Headers of our own. A message's id is in `Nats-Msg-Id`. */
export const header = {
  id: "Nats-Msg-Id",
  lastId: "Nats-Expected-Last-Msg-Id",
  lastSequence: "Nats-Expected-Last-Sequence",
  op: "replicant-op",
  version: "replicant-v",
  key: "replicant-key",
  system: "replicant-system",
  /** Of a record: whose it is, and what was held last as it was written. */
  epoch: "replicant-epoch",
  mark: "replicant-mark"
} as const

/** Whether a subject is one of those that a pattern of NATS names. */
export const matches = (pattern: string, subject: string): boolean => {
  const parts = subject.split(".")
  const wanted = pattern.split(".")
  for (const [at, part] of wanted.entries()) {
    if (part === ">") return parts.length > at
    if (parts[at] === undefined || (part !== "*" && part !== parts[at])) return false
  }
  return parts.length === wanted.length
}

export const takes = ({ subjects }: Pick<StreamConfig, "subjects">, subject: string): boolean =>
  subjects.some((pattern) => matches(pattern, subject))

const setup = (sink: string, detail: string, remedy: string) =>
  new SinkRefused({ sink, reason: "Setup", detail, remedy })

/** A subject that the stream does not take. */
export const untaken = (sink: string, { subjects }: Pick<StreamConfig, "subjects">, subject: string): SinkRefused =>
  setup(
    sink,
    `the stream takes ${subjects.map((pattern) => `"${pattern}"`).join(", ")}, and not "${subject}"`,
    "add it to the stream's subjects, or route messages to those that it has"
  )

/** Why a stream is no log that a sink can append to. */
export const problemOf = (sink: string, config: StreamConfig, mark: string): SinkRefused | undefined => {
  if (config.retention !== RetentionPolicy.Limits)
    return setup(
      sink,
      `its retention is "${config.retention}"`,
      "give it the retention `limits`: else what is read is gone, and with it what is held last"
    )
  if (config.mirror !== undefined || (config.sources ?? []).length > 0)
    return setup(sink, "it is filled from other streams", "give the sink a stream of its own, and mirror that")
  if (config.no_ack) return setup(sink, "it acknowledges nothing", "set its `no_ack` to false")
  if (config.sealed) return setup(sink, "it is sealed", "give the sink a stream that is not")
  return takes(config, mark) ? undefined : untaken(sink, config, mark)
}

/** What a stream holds last, and at which sequence the next message will stand behind. */
export interface Tail {
  readonly config: StreamConfig
  readonly sequence: number
  /** `undefined` where nothing is left of it. */
  readonly last: StoredMsg | undefined
}

const notDeleted = ({ state }: StreamInfo): number => {
  const deleted = new Set(state.deleted)
  let sequence = state.last_seq
  while (sequence >= state.first_seq && deleted.has(sequence)) sequence--
  return sequence
}

/** Asks for it. What was deleted or has expired is not the last: it is what stands before. */
export const tailOf = (sink: string, manager: JetStreamManager, name: string): Effect.Effect<Tail, SinkError> =>
  Effect.tryPromise({
    try: async () => {
      const { config, state } = await manager.streams.info(name)
      const message = async (seq: number) => (await manager.streams.getMessage(name, { seq })) ?? undefined
      let last = state.last_seq === 0 ? undefined : await message(state.last_seq)
      if (last === undefined && state.messages > 0) {
        const sequence = notDeleted(await manager.streams.info(name, { deleted_details: true }))
        last = sequence === 0 ? undefined : await message(sequence)
      }
      return { config, sequence: state.last_seq, last }
    },
    catch: (cause) => fromNats(sink, cause)
  })

/** What a stored message says of the one who wrote it. */
export type Written =
  | { readonly _tag: "Message"; readonly mark: Mark }
  | { readonly _tag: "Record"; readonly epoch: string; readonly mark: Mark | undefined }
  | { readonly _tag: "Foreign" }

export const writtenIn = ({ header: headers }: Pick<StoredMsg, "header">): Written => {
  const text = (name: string) => headers.get(name) || undefined
  const epoch = text(header.epoch)
  const systemId = text(header.system)
  if (epoch !== undefined) {
    const mark = text(header.mark)
    return { _tag: "Record", epoch, mark: mark === undefined ? undefined : { id: mark, systemId } }
  }
  const id = text(header.id)
  return id === undefined || Place.parse(id) === undefined
    ? { _tag: "Foreign" }
    : { _tag: "Message", mark: { id, systemId } }
}

/** Others write to it. */
export const foreign = (sink: string, { seq, subject }: Pick<StoredMsg, "seq" | "subject">): SinkRefused =>
  setup(
    sink,
    `its last message, ${seq} of the subject "${subject}", is of no sink: others write to the stream`,
    "give each sink a stream that is its alone"
  )
