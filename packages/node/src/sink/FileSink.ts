/**
 * A sink of files: JSON lines in segments, each message once and in order, on the disk before it is acknowledged. The public
 * module `FileSink`.
 *
 * `active-….jsonl` is being written; a full segment is named for its first and its last message, and never changes. It resumes
 * after a kill at any point: a line that is torn is cut off, and comes again. The directory must be on a local file system.
 */

import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { type Message, Sink, type SinkError, SinkUnavailable } from "@replicant/core/sink"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SegmentDirectory from "./SegmentDirectory.ts"
import * as SegmentText from "./SegmentText.ts"

/** Where files go, and when one is full. */
export interface Options {
  /** Made if it is not there. It is the sink's alone. */
  readonly directory: string
  /** A segment is full with so many bytes, 64 MiB, or so long after its first message: an hour. */
  readonly segment?: { readonly bytes?: number | undefined; readonly within?: Duration.Input | undefined } | undefined
  /** How full segments are kept: `none` unless told otherwise. */
  readonly compression?: SegmentText.Compression | undefined
}

/** The one who writes, in its turn. */
class Writer {
  private readonly options: Options
  private readonly name: string
  private readonly epoch: string
  private readonly handle: { current: Fs.FileHandle }
  private readonly turn = Semaphore.makeUnsafe(1)
  private hasFailed = false
  private size: number
  private first: string | undefined
  private last: string | undefined
  /** When the first message of this segment came, in milliseconds. */
  private since: number | undefined

  constructor(
    options: Options,
    name: string,
    epoch: string,
    handle: { current: Fs.FileHandle },
    text: Buffer,
    now: number
  ) {
    this.options = options
    this.name = name
    this.epoch = epoch
    this.handle = handle
    this.size = text.length
    const last = SegmentText.lastLine(text)
    this.last = last === undefined ? undefined : SegmentText.idOf(last)
    this.first = last === undefined ? undefined : SegmentText.firstId(text)
    this.since = last === undefined ? undefined : now
  }

  /** In order, whole: what has begun is not cut off but by a kill. */
  private exclusively<A>(run: (now: number) => Promise<A>): Effect.Effect<A, SinkError> {
    const io = SegmentDirectory.io(this.name)
    const closed = new SinkUnavailable({ sink: this.name, reason: "Closed", detail: "an earlier append has failed" })
    return this.turn.withPermit(
      Effect.uninterruptible(
        Effect.suspend(() =>
          this.hasFailed ? Effect.fail(closed) : Effect.flatMap(Clock.currentTimeMillis, (now) => io(() => run(now)))
        ).pipe(
          Effect.tapCause(() =>
            Effect.sync(() => {
              this.hasFailed = true
            })
          )
        )
      )
    )
  }

  /** Whether what is on the disk now is where others will look for it. */
  private readonly owned = Effect.suspend(() =>
    Effect.flatMap(
      SegmentDirectory.io(this.name)(() => SegmentDirectory.readClaim(this.options.directory)),
      (claim) => {
        if (claim === this.epoch) return Effect.void
        this.hasFailed = true
        return Effect.fail(SegmentDirectory.fenced(this.name))
      }
    )
  )

  readonly append = (batch: NonEmptyReadonlyArray<Message>): Effect.Effect<void, SinkError> =>
    Effect.andThen(
      this.exclusively(async (now) => {
        const bytes = Buffer.from(batch.map(SegmentText.encodeLine).join(""))
        const { bytesWritten } = await this.handle.current.write(bytes, 0, bytes.length, this.size)
        if (bytesWritten < bytes.length)
          throw Object.assign(new Error(`${bytesWritten} of ${bytes.length} bytes were written`), { code: "ENOSPC" })
        await this.handle.current.datasync()
        this.size += bytes.length
        this.first ??= batch[0].id
        this.since ??= now
        this.last = batch.at(-1)!.id
      }),
      Effect.andThen(this.owned, this.sealIfFull)
    )

  private get isFull(): boolean {
    return this.size >= (this.options.segment?.bytes ?? 64 * 1024 * 1024)
  }

  private isOld(now: number): boolean {
    const within = Duration.toMillis(Duration.fromInputUnsafe(this.options.segment?.within ?? "1 hour"))
    return this.since !== undefined && now - this.since >= within
  }

  /** Closes a full segment, and opens the next. */
  readonly sealIfFull: Effect.Effect<void, SinkError> = Effect.suspend(() =>
    this.exclusively(async (now) => {
      const { first, last } = this
      if (first === undefined || last === undefined || !(this.isFull || this.isOld(now))) return true
      const { compression = "none", directory } = this.options
      try {
        await SegmentDirectory.seal(directory, this.epoch, { first, last, compression: "none" })
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === "ENOENT") return false
        throw cause
      }
      await this.handle.current.close()
      this.handle.current = await SegmentDirectory.openNew(directory, this.epoch)
      this.size = 0
      this.first = undefined
      this.since = undefined
      await SegmentDirectory.compress(directory, compression)
      return true
    })
  ).pipe(Effect.flatMap((isOurs) => (isOurs ? Effect.void : Effect.fail(SegmentDirectory.fenced(this.name)))))

  /** Closes what is old though nothing comes any more. */
  readonly watch: Effect.Effect<void> = Effect.suspend(() => {
    const within = Duration.toMillis(Duration.fromInputUnsafe(this.options.segment?.within ?? "1 hour"))
    return Effect.forever(Effect.andThen(Effect.sleep(Math.max(10, within / 4)), this.sealIfFull))
  }).pipe(Effect.catch((error) => Effect.logWarning(`a segment was not closed: ${error.message}`)))
}

const open = Effect.fnUntraced(function* (options: Options, name: string, instead: string | undefined) {
  const { compression = "none", directory } = options
  const io = SegmentDirectory.io(name)
  const family = instead === undefined ? crypto.randomUUID() : SegmentDirectory.familyOf(instead)
  const epoch = `${family}.${crypto.randomUUID()}`
  if (!(yield* io(() => SegmentDirectory.claim(directory, epoch, instead)))) return yield* SegmentDirectory.fenced(name)
  const text = yield* io(() => SegmentDirectory.takeOver(directory, epoch))
  if (text === undefined || (yield* io(() => SegmentDirectory.readClaim(directory))) !== epoch)
    return yield* SegmentDirectory.fenced(name)
  yield* io(() => SegmentDirectory.sweep(directory))
  yield* io(() => SegmentDirectory.compress(directory, compression))
  const handle = yield* Effect.acquireRelease(
    Effect.map(
      io(() => Fs.open(Path.join(directory, SegmentText.activeName(epoch)), "r+")),
      (current) => ({ current })
    ),
    ({ current }) => Effect.promise(() => current.close().catch(() => undefined))
  )
  const line = SegmentText.lastLine(text) ?? (yield* io(() => SegmentDirectory.lastOfFull(directory)))
  const writer = new Writer(options, name, epoch, handle, text, yield* Clock.currentTimeMillis)
  yield* Effect.forkScoped(writer.watch)
  const mark = Option.map(Option.fromUndefinedOr(line), SegmentText.markOf)
  return { mark, append: writer.append, maxInFlight: 1, epoch }
})

/**
 * A sink of files in a directory.
 *
 * @example
 * Sink.run({ slot: "orders", plugin }).pipe(
 *   Effect.provide([FileSink.layer({ directory: "/var/lib/orders", compression: "zstd" }), PgWalSender.layerConfig]))
 */
export const layer = (options: Options): Layer.Layer<Sink.Sink> => {
  const name = `files in "${options.directory}"`
  return Layer.succeed(Sink.Sink, {
    name,
    open: (epoch) => open(options, name, epoch) as Effect.Effect<Sink.SinkWriter, SinkError, Scope.Scope>
  })
}

/** A stored message, as its line has it. */
export interface Line {
  readonly id: string
  readonly op: string
  readonly to: string
  readonly key: ReadonlyArray<string> | null
  readonly value: unknown
}

/**
 * What a directory holds now, in order and once: full segments, then the open one. It does not wait for more.
 *
 * @example
 * FileSink.read({ directory: "/var/lib/orders" }).pipe(Stream.runForEach((line) => store(line.value)))
 */
export const read = ({ directory }: Pick<Options, "directory">): Stream.Stream<Line, SinkError> =>
  Stream.fromIterableEffect(
    Effect.map(
      SegmentDirectory.io(`files in "${directory}"`)(() => SegmentDirectory.readAll(directory)),
      (lines) => lines.map((line) => JSON.parse(line) as Line)
    )
  )
