/**
 * Where transactions in progress go while they are gathered: into memory up to a budget, and from there into files.
 *
 * The files are temporary. They hold what the walsender sent, rows included, are readable by their owner alone, and have no
 * name from the moment they are open: so nothing of them is left when the process is killed. Nothing is taken up from them
 * later, as the server sends all again.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type { PlatformError } from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import { SpillFailed } from "../ReplicationError.ts"

/** A store of bytes that were appended. */
export interface SpillFile {
  readonly append: (bytes: Uint8Array) => Effect.Effect<void, SpillFailed>
  /** Exactly `length` bytes from `position` on. */
  readonly read: (position: number, length: number) => Effect.Effect<Uint8Array, SpillFailed>
}

/** How much may be gathered in memory, and where the rest goes. */
export interface Spill {
  /** Bytes of messages, of all transactions in progress on one connection together. */
  readonly maxBytesInMemory: number
  /** A new file, gone with its scope. */
  readonly makeFile: Effect.Effect<SpillFile, SpillFailed, Scope.Scope>
}

/** What a stream whose plugin is `streaming` gathers with. Without one, opening such a stream fails. */
export const TransactionSpill = Context.Reference<Spill | undefined>("@replicant/core/TransactionSpill", {
  defaultValue: () => undefined
})

/** 64 MiB: the server's own default for `logical_decoding_work_mem`. */
export const defaultMaxBytesInMemory = 64 * 1024 * 1024

/** Where transactions in progress are put, and how many bytes of them stay in memory: 64 MiB. */
export interface SpillOptions {
  /** Where temporary directories are made: the system's place for them. It may have to hold the largest transaction. */
  readonly directory?: string | undefined
  readonly maxBytesInMemory?: number | undefined
}

const failed = (during: "open" | "write" | "read") => (error: PlatformError | string) =>
  new SpillFailed({ during, problem: typeof error === "string" ? error : `${error.reason._tag}: ${error.message}` })

/** Owner only: they hold rows. */
const mode = 0o600

const makeFile = Effect.fnUntraced(function* (
  fileSystem: FileSystem.FileSystem,
  directory: string | undefined
): Effect.fn.Return<SpillFile, SpillFailed, Scope.Scope> {
  const remove = (place: string) => Effect.ignore(fileSystem.remove(place, { recursive: true, force: true }))
  const file = yield* Effect.acquireRelease(
    fileSystem.makeTempDirectory({ directory, prefix: "replicant-" }),
    // Once more, for systems that keep the names of what is open.
    remove
  ).pipe(
    Effect.flatMap((place) =>
      // A name alone would outlive `kill -9`, with the rows.
      Effect.tap(fileSystem.open(`${place}/transaction`, { flag: "wx+", mode }), () => remove(place))
    ),
    Effect.mapError(failed("open"))
  )
  return {
    append: (bytes) => Effect.mapError(file.writeAll(bytes), failed("write")),
    read: Effect.fnUntraced(function* (position, length) {
      const bytes = new Uint8Array(length)
      let done = 0
      while (done < length) {
        const count = yield* file
          .read(bytes.subarray(done), { position: BigInt(position + done) })
          .pipe(Effect.mapError(failed("read")))
        if (Number(count) === 0) return yield* failed("read")("the file is shorter than what was written to it")
        done += Number(count)
      }
      return bytes
    })
  }
})

/**
 * Gathers in memory, and in temporary files beyond that.
 *
 * @example
 * const plugin = Pgoutput.make({ publications: ["orders"], streaming: "parallel" })
 * withLogicalStream({ slot: "orders", plugin }, handler).pipe(
 *   Effect.provide(TransactionSpill.layer({ maxBytesInMemory: 16 * 1024 * 1024 })),
 *   Effect.provide(NodeFileSystem.layer)
 * )
 */
export const layer = (options: SpillOptions = {}): Layer.Layer<never, never, FileSystem.FileSystem> =>
  Layer.effect(
    TransactionSpill,
    Effect.map(FileSystem.FileSystem, (fileSystem) => ({
      maxBytesInMemory: options.maxBytesInMemory ?? defaultMaxBytesInMemory,
      makeFile: makeFile(fileSystem, options.directory)
    }))
  )
