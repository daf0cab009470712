/**
 * The handler that a sink is: changes become messages, the engine's own mark says what it has, and what it has made durable is
 * acknowledged to PostgreSQL.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { CheckpointError, CheckpointStore } from "../checkpoint/CheckpointService.ts"
import * as Lsn from "../Lsn.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { ChangeAfterSnapshot } from "../snapshot/SnapshotChange.ts"
import type { Handler, Session } from "../stream/Handler.ts"
import { withLogicalStream } from "../stream/LogicalStream.ts"
import type { End, Failure, Options as LogicalStreamOptions } from "../stream/LogicalStreamOptions.ts"
import * as Envelope from "./Envelope.ts"
import { Flight, type FlightOptions } from "./Flight.ts"
import type { Encoder, Mark, Source } from "./Message.ts"
import { MessageReader } from "./MessageReader.ts"
import * as Place from "./Place.ts"
import * as Route from "./Route.ts"
import { Sink, type SinkShape } from "./Sink.ts"
import { type SinkError, SinkMismatch } from "./SinkError.ts"

/** How a stream goes into a sink. */
export interface Options extends FlightOptions {
  /** Where messages go: `{schema}.{table}`, `messages.{prefix}` and `control` unless told otherwise. */
  readonly route?: Route.Patterns | Route.Route | undefined
  /** {@link Envelope.encode} unless told otherwise. */
  readonly encode?: Encoder | undefined
  /** Behind each deletion a message of its key without a value, for logs that are compacted. Left out: no. */
  readonly tombstones?: boolean | undefined
  /** A message of op `e` behind each transaction, for who puts transactions together. Left out: `last` alone tells. */
  readonly ends?: boolean | undefined
  /**
   * Where it is noted, outside of the engine, how far it is: every 10 s. With a note an engine that was restored, or has lost its
   * tail, is told at the start by `SinkBehindSlot`; without one only while the stream runs.
   */
  readonly note?: CheckpointStore["Service"] | undefined
}

const defaultRoute: Route.Patterns = { rows: "{schema}.{table}", messages: "messages.{prefix}", control: "control" }

const noteKey = (slot: string): string => `sink/${slot}`

const noteMillis = 10_000

const mismatch = (sink: SinkShape, mark: Mark, problem: string) =>
  new SinkMismatch({ sink: sink.name, mark: mark.id, problem })

/** Whether what an engine holds can be of this stream's past. */
const checkOf =
  (sink: SinkShape, { system }: Session<SinkError>) =>
  (mark: Mark): SinkMismatch | undefined => {
    const place = Place.parse(mark.id)
    if (place === undefined) return mismatch(sink, mark, "its place is none of ours")
    if (system === undefined) return undefined
    if (mark.systemId !== undefined && mark.systemId !== system.systemId)
      return mismatch(sink, mark, `it came from the cluster ${mark.systemId}, and this is ${system.systemId}`)
    // A standby that is read from may lag, and catches up.
    return place.lsn > system.xLogPos && system.isInRecovery !== true
      ? mismatch(sink, mark, `the server's WAL ends at ${Lsn.format(system.xLogPos)}`)
      : undefined
  }

/** Everything that is committed after a snapshot's seam is newer than all that came of this cluster before it. */
const checkSeam = (sink: SinkShape, held: string | undefined, changes: ReadonlyArray<ChangeAfterSnapshot>) => {
  if (held === undefined) return undefined
  for (const change of changes) {
    if (change._tag !== "SnapshotStarted" && change._tag !== "SnapshotResumed") continue
    const seam = change.consistentPoint
    if (held >= Place.before(seam, 0)) return mismatch(sink, { id: held }, `the snapshot begins at ${Lsn.format(seam)}`)
  }
  return undefined
}

/** Notes how far the engine is, now and then; a note that cannot be written is told, and holds nothing up. */
class Notes {
  private readonly store: CheckpointStore["Service"]
  private readonly key: string
  private noted: string | undefined
  private at = 0

  constructor(store: CheckpointStore["Service"], slot: string) {
    this.store = store
    this.key = noteKey(slot)
  }

  readonly load: Effect.Effect<string | undefined, CheckpointError> = Effect.suspend(() =>
    Effect.map(this.store.load(this.key), (note) => {
      this.noted = Option.getOrUndefined(note)
      return this.noted
    })
  )

  readonly save = (last: string | undefined): Effect.Effect<void> =>
    last === undefined || last === this.noted
      ? Effect.void
      : Effect.matchEffect(this.store.save(this.key, last), {
          onSuccess: () =>
            Effect.sync(() => {
              this.noted = last
            }),
          onFailure: (error) => Effect.logWarning(`the sink's note is not written: ${error.message}`)
        })

  readonly saveNowAndThen = (last: string | undefined): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now - this.at < noteMillis) return Effect.void
      this.at = now
      return this.save(last)
    })
}

const problemOf = ({ batch, kept, route }: Options): InvalidOption | undefined => {
  if (typeof route === "object") {
    const problem = Route.problemOf(route)
    if (problem !== undefined) return problem
  }
  const sizes = [batch?.messages, batch?.characters, kept?.messages, kept?.characters]
  return sizes.every((size) => size === undefined || size >= 1)
    ? undefined
    : new InvalidOption({ option: "batch", problem: "and `kept` are numbers from 1" })
}

/** Of what stands before these all has to be durable before anything is said of them. */
const isMark = ({ _tag }: ChangeAfterSnapshot): boolean =>
  _tag === "SnapshotRangeCompleted" || _tag === "SnapshotCompleted"

/**
 * A handler that appends everything to a {@link Sink}, each message once and in order, and acknowledges what the engine has made
 * durable. An engine that is down, or full, holds the stream back.
 *
 * @example
 * withLogicalStream({ slot: "orders", plugin, snapshot: "initial" }, Sink.handler({ route: { rows: "shop.{schema}.{table}" } }))
 */
export const handler = (options: Options = {}): Handler<ChangeAfterSnapshot, SinkError | CheckpointError, Sink> => ({
  unfit: (plugin) =>
    plugin.tells.prepared
      ? new InvalidOption({ option: "twoPhase", problem: "delivers what is not committed: a sink takes what is" })
      : problemOf(options),
  make: Effect.fnUntraced(function* (session) {
    const sink = yield* Sink
    const { encode = Envelope.encode, ends = false, note, route = defaultRoute, tombstones = false } = options
    const notes = note === undefined ? undefined : new Notes(note, session.slot)
    const flight = new Flight(sink, session, options, notes === undefined ? undefined : yield* notes.load)
    // What is durable is the note until the engine has been checked against it: one that went back is told at each start.
    if (notes !== undefined) yield* Effect.addFinalizer(() => notes.save(flight.durable))
    yield* flight.start(checkOf(sink, session))
    const held = flight.durable
    const source: Source = { system: session.system, slot: session.slot }
    const reader = new MessageReader({
      source,
      encode,
      ends,
      tombstones,
      route: typeof route === "function" ? route : Route.patterns(route),
      holds: held === undefined ? () => false : (id) => id <= held
    })
    return ({ changes }) =>
      Effect.suspend(() => {
        if (session.isOver()) return Effect.void
        const problem = session.system === undefined ? checkSeam(sink, held, changes) : undefined
        if (problem !== undefined) return Effect.fail(problem)
        const until = changes.some(isMark) ? "all is durable" : "there is room"
        const added = flight.add(reader.read(changes), until)
        return notes === undefined ? added : Effect.andThen(added, notes.saveNowAndThen(flight.durable))
      })
  })
})

/** What a stream into a sink is asked for. */
export interface RunOptions extends Omit<LogicalStreamOptions, "inProgress"> {
  readonly sink?: Options | undefined
}

/**
 * Follows a slot into a {@link Sink}: `withLogicalStream` with {@link handler}. Only a snapshot by itself ever ends.
 *
 * @example
 * Sink.run({ slot: "orders", plugin, sink: { route: { rows: "shop.{schema}.{table}" } } })
 */
export const run = <const O extends RunOptions>(
  options: O
): Effect.Effect<End<O>, Failure<O> | SinkError | CheckpointError, Sink | WalSender> => {
  const { sink, ...stream } = options
  return withLogicalStream<RunOptions, SinkError | CheckpointError, Sink>(stream, handler(sink) as never) as never
}
