/**
 * Checkpoints in files, over effect's `FileSystem`: whenever the process or the machine stops, each file holds a whole text,
 * the old one or the new.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import { CheckpointError, CheckpointStore } from "./CheckpointService.ts"

/** Where the files are. The directory is made if need be; it belongs to one consumer at a time. */
export interface FileOptions {
  readonly directory: string
}

const failed = (during: "open" | "load" | "save" | "remove", key: string) => (error: PlatformError) =>
  new CheckpointError({ during, key, problem: `${error.reason._tag}: ${error.message}` })

/** Names of tables are in them, and positions. */
const mode = 0o600

/** Keys become file names that mean the same to every file system: no separators, and nothing that differs by case. */
const fileName = (key: string): string =>
  `${encodeURIComponent(key).replaceAll(/[A-Z*.~]|^$/g, (char) => `%${char.charCodeAt(0).toString(16)}`)}.json`

const isMissing = (error: PlatformError): boolean => error.reason._tag === "NotFound"

/**
 * Keeps each in a file, which is replaced as a whole: written beside the old one, flushed to the disk, then renamed. So
 * whenever the process or the machine stops, the old text is there or the new one.
 *
 * @example
 * const store = CheckpointStore.file({ directory: "/var/lib/orders" }).pipe(Layer.provide(NodeServices.layer))
 */
export const file = ({
  directory
}: FileOptions): Layer.Layer<CheckpointStore, CheckpointError, FileSystem.FileSystem | Path.Path> =>
  Layer.effect(
    CheckpointStore,
    Effect.gen(function* () {
      const fileSystem = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      yield* Effect.mapError(fileSystem.makeDirectory(directory, { recursive: true }), failed("open", directory))
      /** A rename is in the directory. Some systems cannot flush one, and need not. */
      const syncDirectory = Effect.ignore(
        Effect.scoped(Effect.flatMap(fileSystem.open(directory, { flag: "r" }), (opened) => opened.sync))
      )
      const write = Effect.fnUntraced(function* (target: string, text: string) {
        const temporary = `${target}.new`
        const opened = yield* fileSystem.open(temporary, { flag: "w", mode })
        yield* opened.writeAll(new TextEncoder().encode(text))
        yield* opened.sync
        return temporary
      }, Effect.scoped)
      return CheckpointStore.of({
        load: (key) =>
          fileSystem.readFileString(path.join(directory, fileName(key))).pipe(
            Effect.asSome,
            Effect.catchIf(isMissing, () => Effect.succeedNone),
            Effect.mapError(failed("load", key))
          ),
        save: (key, checkpoint) => {
          const target = path.join(directory, fileName(key))
          return write(target, checkpoint).pipe(
            Effect.flatMap((temporary) => fileSystem.rename(temporary, target)),
            Effect.andThen(syncDirectory),
            Effect.mapError(failed("save", key))
          )
        },
        remove: (key) =>
          fileSystem
            .remove(path.join(directory, fileName(key)), { force: true })
            .pipe(Effect.andThen(syncDirectory), Effect.mapError(failed("remove", key)))
      })
    })
  )
