/**
 * The files of dead letters: letters, who parks there, and what others have decided meanwhile. What makes them safe is the order of
 * things, and that a rename is whole or nothing:
 *
 * - Whoever opens a file to park in it claims it by `PATH.owner`, which is renamed into place, and goes on in a copy that a
 *   predecessor's handle does not lead to. What is appended counts only if the claim is still one's own when it is on the disk.
 * - Decisions are files of their own, `PATH.request-…`, renamed into place and removed once they are obeyed. So nobody but the owner
 *   writes to the letters, and an owner that is killed amid it obeys them again, which is the same.
 */
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { DeadLetters } from "@replicant/core"
import * as Effect from "effect/Effect"
import { type Request, readRequest, requestText } from "./LetterLines.ts"

/** Rows are in them. */
export const mode = 0o600

export const codeOf = (cause: unknown): string => String((cause as NodeJS.ErrnoException)?.code ?? "")

/** What went wrong, in one of our own words, or the system's for it. */
export class Trouble extends Error {
  readonly isOwner: boolean
  constructor(problem: string, isOwner = false) {
    super(problem)
    this.isOwner = isOwner
  }
}

/** Runs promises of `node:fs`, and tells how they failed: by the system's code, since a message may say more than it should. */
export const io =
  (during: DeadLetters.DeadLettersError["during"], path: string) =>
  <A>(run: () => Promise<A>): Effect.Effect<A, DeadLetters.DeadLettersError> =>
    Effect.tryPromise({
      try: run,
      catch: (cause) => {
        if (cause instanceof DeadLetters.DeadLettersError) return cause
        if (!(cause instanceof Trouble))
          return new DeadLetters.DeadLettersError({ during, problem: `${path}: ${codeOf(cause) || "it failed"}` })
        const problem = `${path}: ${cause.message}`
        return new DeadLetters.DeadLettersError({ during: cause.isOwner ? "own" : during, problem })
      }
    })

export const syncDirectory = async (path: string): Promise<void> => {
  const handle = await Fs.open(path, "r")
  // Not every file system knows how.
  await handle.sync().catch(() => undefined)
  await handle.close()
}

/** Writes a file that is there whole, or not at all. */
export const writeWhole = async (path: string, text: Buffer | string): Promise<void> => {
  const temporary = `${path}.${crypto.randomUUID()}.tmp`
  const handle = await Fs.open(temporary, "wx", mode)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await Fs.rename(temporary, path)
  await syncDirectory(Path.dirname(path))
}

/** The bytes of a file; none where there is none. */
export const readIfThere = async (path: string): Promise<Buffer> =>
  Fs.readFile(path).catch((cause) => {
    if (codeOf(cause) === "ENOENT") return Buffer.alloc(0)
    throw cause
  })

const claimOf = (path: string): string => `${path}.owner`

/** From now on the file is this one's. */
export const claim = async (path: string, epoch: string): Promise<void> => {
  await Fs.mkdir(Path.dirname(path), { recursive: true })
  await writeWhole(claimOf(path), epoch)
}

/** Fails where another has claimed the file since. */
export const checkOwner = async (path: string, epoch: string): Promise<void> => {
  if ((await Fs.readFile(claimOf(path), "utf8")) !== epoch)
    throw new Trouble("another program has taken the file over", true)
}

/** Removes what others had begun to write: they are gone, or have lost the file. */
export const sweep = async (path: string): Promise<void> => {
  const name = Path.basename(path)
  for (const other of await Fs.readdir(Path.dirname(path))) {
    const isOurs = other.startsWith(`${name}.`) && other.endsWith(".tmp") && !other.includes(".request-")
    if (isOurs) await Fs.rm(Path.join(Path.dirname(path), other), { force: true })
  }
}

/** Leaves a decision to whoever parks in the file, now or when it starts. */
export const ask = (path: string, request: Request): Promise<void> =>
  writeWhole(`${path}.request-${crypto.randomUUID()}.json`, requestText(request))

/** What was decided and is not obeyed yet, and where it stands. */
export const readRequests = async (
  path: string
): Promise<ReadonlyArray<{ readonly path: string; readonly request: Request | undefined }>> => {
  const begin = `${Path.basename(path)}.request-`
  const names = (await Fs.readdir(Path.dirname(path))).filter(
    (name) => name.startsWith(begin) && name.endsWith(".json")
  )
  const found: Array<{ readonly path: string; readonly request: Request | undefined; readonly at: number }> = []
  for (const name of names) {
    const own = Path.join(Path.dirname(path), name)
    const text = await readIfThere(own)
    const at = await Fs.stat(own).then(
      ({ mtimeMs }) => mtimeMs,
      () => 0
    )
    if (text.length > 0) found.push({ path: own, request: readRequest(text.toString("utf8")), at })
  }
  return found.sort((left, right) => left.at - right.at)
}

export const removeAll = async (paths: ReadonlyArray<string>): Promise<void> => {
  for (const path of paths) await Fs.rm(path, { force: true })
}
