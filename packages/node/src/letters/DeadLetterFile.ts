/**
 * Dead letters in a file: JSON lines, each on the disk before its change counts as handled. The public module `DeadLetterFile`.
 *
 * One program parks in it. Others look at it and decide, while it runs or not: see `open`. It resumes after a kill at any point: a line
 * that is torn is cut off, and its change comes again, as it was not acknowledged. The file must be on a local file system.
 */
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { DeadLetters } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Directory from "./LetterDirectory.ts"
import * as Lines from "./LetterLines.ts"

/** Where the letters are. The directory is made if it is not there; beside the file stand others whose names begin with its own. */
export interface Options {
  readonly path: string
}

/** Lines that say nothing any more are left, until they are more than those that do, and than this. */
const fewLines = 64

const encoded = (change: unknown): string => {
  const text = DeadLetters.encode(change)
  if (Result.isFailure(text)) throw text.failure
  return text.success
}

const decoded = (text: string): unknown => {
  const change = DeadLetters.decode(text)
  if (Result.isFailure(change)) throw change.failure
  return change.success
}

const contentOf = (bytes: Buffer): Lines.Content => {
  const content = Lines.read(bytes)
  if ("broken" in content) throw new Directory.Trouble(`line ${content.broken} is no dead letter`)
  return content
}

/** The letters, in a file that is one's own. */
class Owned {
  private readonly path: string
  private readonly epoch: string
  private handle: Fs.FileHandle | undefined
  private inode = 0
  private size = 0
  private lines = 0
  /** A write has failed: what it left is to be cut off. */
  private isTorn = false
  private letters = new Map<string, Lines.Kept>()

  constructor(path: string, epoch: string) {
    this.path = path
    this.epoch = epoch
  }

  async open(): Promise<void> {
    await Directory.claim(this.path, this.epoch)
    const bytes = await Directory.readIfThere(this.path)
    const content = contentOf(bytes)
    this.letters = new Map(content.letters)
    await this.rewrite(async ({ at, length }) => bytes.subarray(at, at + length))
    await Directory.sweep(this.path)
  }

  async close(): Promise<void> {
    await this.handle?.close()
    this.handle = undefined
  }

  /** All letters as they are, what others have decided included. */
  async load(): Promise<ReadonlyArray<DeadLetters.Letter>> {
    const requests = await Directory.readRequests(this.path)
    for (const { request } of requests) {
      if (request === undefined) continue
      await (request.decision === "drop" ? this.remove(request.names, "dropped") : this.mark(request.names))
    }
    await Directory.removeAll(requests.map(({ path }) => path))
    return Array.from(this.letters.values(), ({ letter }) => letter)
  }

  async read(name: DeadLetters.LetterName): Promise<{ readonly change: unknown } | undefined> {
    const kept = this.letters.get(Lines.nameOf(name))
    return kept === undefined
      ? undefined
      : { change: decoded(Lines.changeOf((await this.slice(kept)).toString("utf8"))) }
  }

  async put({ change, ...letter }: DeadLetters.DeadLetter): Promise<void> {
    const line = Buffer.from(Lines.putLine(letter, encoded(change)))
    const at = await this.append(line)
    this.letters.set(Lines.nameOf(letter), { letter, at, length: line.length })
  }

  async update(letter: DeadLetters.Letter): Promise<void> {
    const kept = this.letters.get(Lines.nameOf(letter))
    if (kept === undefined) return
    await this.append(Buffer.from(Lines.updateLine(letter)))
    this.letters.set(Lines.nameOf(letter), { ...kept, letter })
  }

  async mark(names: ReadonlyArray<DeadLetters.LetterName>): Promise<void> {
    const found = names.flatMap((name) => this.letters.get(Lines.nameOf(name)) ?? [])
    const marked = found.map((kept) => ({ ...kept, letter: { ...kept.letter, state: "marked" as const } }))
    if (marked.length === 0) return
    await this.append(Buffer.from(marked.map(({ letter }) => Lines.updateLine(letter)).join("")), marked.length)
    for (const kept of marked) this.letters.set(Lines.nameOf(kept.letter), kept)
  }

  async remove(names: ReadonlyArray<DeadLetters.LetterName>, why: "handled" | "dropped"): Promise<void> {
    const found = names.filter((name) => this.letters.has(Lines.nameOf(name)))
    if (found.length === 0) return
    await this.append(Buffer.from(Lines.goneLine(found)))
    for (const name of found) this.letters.delete(Lines.nameOf(name))
    // Of a row that somebody has dropped nothing is to be left.
    const isWasteful = this.lines > fewLines && this.lines > 2 * this.letters.size
    if (why === "dropped" || isWasteful) await this.rewrite((place) => this.slice(place))
  }

  private async slice({ at, length }: Lines.Place): Promise<Buffer> {
    const bytes = Buffer.alloc(length)
    const { bytesRead } = await this.opened.read(bytes, 0, length, at)
    if (bytesRead < length) throw new Directory.Trouble("the file is shorter than it was")
    return bytes
  }

  private get opened(): Fs.FileHandle {
    if (this.handle === undefined) throw new Directory.Trouble("it is closed")
    return this.handle
  }

  /** On the disk, where others will look for it. Gives where it begins. */
  private async append(bytes: Buffer, lines = 1): Promise<number> {
    const { ino } = await Fs.stat(this.path)
    // One that has lost the file may have put its own in place, at the last moment: ours is whole.
    if (ino !== this.inode) {
      await Directory.checkOwner(this.path, this.epoch)
      await this.rewrite((place) => this.slice(place))
    }
    const { opened: handle, size } = this
    if (this.isTorn) {
      await handle.truncate(size)
      this.isTorn = false
    }
    this.isTorn = true
    const { bytesWritten } = await handle.write(bytes, 0, bytes.length, size)
    if (bytesWritten < bytes.length) throw Object.assign(new Error("short write"), { code: "ENOSPC" })
    await handle.datasync()
    await Directory.checkOwner(this.path, this.epoch)
    this.isTorn = false
    this.size += bytes.length
    this.lines += lines
    return size
  }

  /** The letters that are left, in a file in the place of this one. */
  private async rewrite(slice: (place: Lines.Place) => Promise<Buffer>): Promise<void> {
    const temporary = `${this.path}.${crypto.randomUUID()}.tmp`
    const handle = await Fs.open(temporary, "wx+", Directory.mode)
    const letters = new Map<string, Lines.Kept>()
    let size = 0
    try {
      for (const [name, { letter, ...place }] of this.letters) {
        const line = Buffer.from(Lines.putLine(letter, Lines.changeOf((await slice(place)).toString("utf8"))))
        await handle.write(line, 0, line.length, size)
        letters.set(name, { letter, at: size, length: line.length })
        size += line.length
      }
      await handle.sync()
      await Directory.checkOwner(this.path, this.epoch)
      await Fs.rename(temporary, this.path)
    } catch (cause) {
      await handle.close()
      await Fs.rm(temporary, { force: true }).catch(() => undefined)
      throw cause
    }
    const before = this.handle
    this.handle = handle
    this.inode = (await handle.stat()).ino
    this.letters = letters
    this.size = size
    this.lines = letters.size
    this.isTorn = false
    await before?.close()
    await Directory.syncDirectory(Path.dirname(this.path))
    await Directory.checkOwner(this.path, this.epoch)
  }
}

/**
 * Keeps dead letters in a file. It belongs to this program from here on: one that has parked there before, and is not gone, fails
 * with `DeadLettersError`.
 *
 * @example
 * const letters = DeadLetterFile.layer({ path: "/var/lib/orders/dead-letters.jsonl" })
 */
export const layer = ({ path }: Options): Layer.Layer<DeadLetters.DeadLetters, DeadLetters.DeadLettersError> =>
  Layer.effect(
    DeadLetters.DeadLetters,
    Effect.gen(function* () {
      const owned = new Owned(path, crypto.randomUUID())
      // What has begun is not cut off but by a kill.
      const during =
        (what: DeadLetters.DeadLettersError["during"]) =>
        <A>(run: () => Promise<A>) =>
          Effect.uninterruptible(Directory.io(what, path)(run))
      yield* Effect.acquireRelease(
        during("open")(() => owned.open()),
        () => Effect.promise(() => owned.close().catch(() => undefined))
      )
      return yield* DeadLetters.make({
        load: during("list")(() => owned.load()),
        read: (name) => during("find")(() => owned.read(name)),
        put: (letter) => during("park")(() => owned.put(letter)),
        update: (letter) => during("park")(() => owned.update(letter)),
        mark: (names) => during("retry")(() => owned.mark(names)),
        remove: (names, why) => during("drop")(() => owned.remove(names, why))
      })
    })
  )

/** A file of dead letters as one sees it who decides about them. */
export type Decider = Pick<DeadLetters.DeadLettersShape, "list" | "find" | "retry" | "drop">

/**
 * A file of dead letters, to look at and to decide, whether or not a program parks in it. What is decided is obeyed by that program
 * within seconds, or when it starts; `list` and `find` tell it at once.
 *
 * @example
 * const { list, retry } = DeadLetterFile.open({ path: "/var/lib/orders/dead-letters.jsonl" })
 */
export const open = ({ path }: Options): Decider => {
  const read = async () => {
    const bytes = await Fs.readFile(path)
    const content = contentOf(bytes)
    const letters = new Map(content.letters)
    for (const { request } of await Directory.readRequests(path)) {
      for (const name of request?.names ?? []) {
        const kept = letters.get(Lines.nameOf(name))
        if (kept === undefined) continue
        if (request?.decision === "drop") letters.delete(Lines.nameOf(name))
        else letters.set(Lines.nameOf(name), { ...kept, letter: { ...kept.letter, state: "marked" } })
      }
    }
    return { bytes, letters }
  }
  const decide = (decision: Lines.Request["decision"], given: ReadonlyArray<DeadLetters.LetterName>) =>
    Directory.io(
      decision,
      path
    )(async () => {
      const { letters } = await read()
      const names = given.filter((name) => letters.has(Lines.nameOf(name)))
      if (names.length > 0) await Directory.ask(path, { decision, names })
      return names.length
    })
  return {
    list: Directory.io(
      "list",
      path
    )(async () => {
      const { letters } = await read()
      return Array.from(letters.values(), ({ letter }) => letter).sort((left, right) => (left.id < right.id ? -1 : 1))
    }),
    find: (name) =>
      Directory.io(
        "find",
        path
      )(async () => {
        const { bytes, letters } = await read()
        const kept = letters.get(Lines.nameOf(name))
        if (kept === undefined) return undefined
        const line = bytes.toString("utf8", kept.at, kept.at + kept.length)
        return { ...kept.letter, change: decoded(Lines.changeOf(line)) }
      }),
    retry: (names) => decide("retry", names),
    drop: (names) => decide("drop", names)
  }
}
