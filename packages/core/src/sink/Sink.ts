/**
 * The port to an engine that keeps messages in order: a log, a stream, files. What an engine has to be able to do is *compare
 * and append*: each append names its predecessor, as a dedupe window and a high-water mark alone leave holes
 * (docs/decisions/0047-an-append-names-its-predecessor.md). The kit `SinkLaws` in `@replicant/core/testing` says whether one can.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Mark, Message } from "./Message.ts"
import type { SinkError } from "./SinkError.ts"

/** The one who may append, until another is opened. */
export interface SinkWriter {
  /** What the engine held last as this writer was opened; none in an empty one. */
  readonly mark: Option.Option<Mark>
  /**
   * Appends behind the last append, in the order in which appends begin; ends when the engine has made it durable by its own
   * word. Several may be under way, up to `maxInFlight`. What is stored of a batch is the whole, or a prefix, or nothing; and
   * once one has failed, nothing that began after it is stored, and all later ones fail.
   */
  readonly append: (batch: NonEmptyReadonlyArray<Message>) => Effect.Effect<void, SinkError>
  readonly maxInFlight: number
  /** Which of the engine's writers it is. */
  readonly epoch: string
}

/** An engine, and the place in it where messages go. */
export class Sink extends Context.Service<
  Sink,
  {
    /** For logs and errors: `redis stream "shop"`. Tells no password. */
    readonly name: string
    /**
     * Asks the engine what it holds last, and begins an epoch: appends of writers that were opened earlier fail from here on
     * with `SinkFenced`, or have landed before the mark was read.
     *
     * With the `epoch` of a writer that has failed it takes that one's place, and no other's: where somebody has opened the sink
     * since, it fails with `SinkFenced`, and disturbs nobody. An opening of ours whose answer was lost is not somebody: openings
     * in one another's place are one family.
     */
    readonly open: (epoch?: string) => Effect.Effect<SinkWriter, SinkError, Scope.Scope>
  }
>()("@replicant/core/Sink") {}

/** Any sink. */
export type SinkShape = Sink["Service"]
