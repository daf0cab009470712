/**
 * The directory of a sink of files. What makes it safe is the order of things, and that a rename is whole or nothing:
 *
 * - A writer's claim is a file, `writer`, that is renamed into place. A writer has appended only if, after its bytes are on the
 *   disk, the claim is still its own.
 * - A new writer claims first, and reads then: so it sees all that others were told is durable. It takes their open segment
 *   away by a rename and goes on in a copy of it, which a zombie's file handle does not lead to.
 * - A segment that is full gets its name by a rename, too: of two who try one finds nothing to rename.
 * - Compressing makes a second file of the same content, and may be done by anybody, again and again.
 */
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { promisify } from "node:util"
import * as Zlib from "node:zlib"
import { type SinkError, SinkFenced, SinkFull, SinkRefused, SinkUnavailable } from "@replicant/core/sink"
import * as Effect from "effect/Effect"
import * as SegmentText from "./SegmentText.ts"

const compressors = {
  none: async (text: Buffer) => text,
  gzip: promisify(Zlib.gzip) as (text: Buffer) => Promise<Buffer>,
  zstd: promisify(Zlib.zstdCompress) as (text: Buffer) => Promise<Buffer>
}

const decompressors = {
  none: async (text: Buffer) => text,
  gzip: promisify(Zlib.gunzip) as (text: Buffer) => Promise<Buffer>,
  zstd: promisify(Zlib.zstdDecompress) as (text: Buffer) => Promise<Buffer>
}

const codeOf = (cause: unknown): string => String((cause as NodeJS.ErrnoException)?.code ?? "")

/** Runs promises of `node:fs`, and tells how they failed. */
export const io =
  (sink: string) =>
  <A>(run: () => Promise<A>): Effect.Effect<A, SinkError> =>
    Effect.tryPromise({
      try: run,
      catch: (cause): SinkError => {
        const code = codeOf(cause)
        const detail = cause instanceof Error ? cause.message : code
        if (code === "ENOSPC" || code === "EDQUOT")
          return new SinkFull({
            sink,
            detail,
            remedy: "make room on the file system: what is missing is appended then"
          })
        if (code === "EACCES" || code === "EPERM" || code === "EROFS")
          return new SinkRefused({
            sink,
            reason: "Permission",
            detail,
            remedy: "let the program write to the directory"
          })
        if (code === "ENOTDIR" || code === "EEXIST" || code === "EISDIR")
          return new SinkRefused({ sink, reason: "Setup", detail, remedy: "give a directory that is the sink's alone" })
        return new SinkUnavailable({ sink, reason: "Closed", detail })
      }
    })

/** Whether a platform has no such thing as a directory made durable: Windows, and some file systems of networks. */
const isBeyondPlatform = (cause: unknown): boolean =>
  codeOf(cause) === "EINVAL" || (process.platform === "win32" && /^E(?:ISDIR|PERM|ACCES)$/.test(codeOf(cause)))

/** A name is on the disk once its directory is. */
const syncDirectory = async (path: string): Promise<void> => {
  try {
    const handle = await Fs.open(path, "r")
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (cause) {
    if (!isBeyondPlatform(cause)) throw cause
  }
}

/** Makes a directory, and all above it that are not there. */
const makeDirectory = async (directory: string): Promise<void> => {
  const path = Path.resolve(directory)
  const first = await Fs.mkdir(path, { recursive: true })
  if (first === undefined) return
  for (let made = path; made.length >= first.length; made = Path.dirname(made)) await syncDirectory(Path.dirname(made))
}

/** Writes a file that is there whole, or not at all. */
const writeWhole = async (directory: string, name: string, text: Buffer | string): Promise<void> => {
  const temporary = Path.join(directory, `${name}.${crypto.randomUUID()}.tmp`)
  const handle = await Fs.open(temporary, "wx")
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await Fs.rename(temporary, Path.join(directory, name))
  await syncDirectory(directory)
}

const claimFile = "writer"

/** Whose directory it is now. */
export const readClaim = async (directory: string): Promise<string | undefined> =>
  Fs.readFile(Path.join(directory, claimFile), "utf8").catch((cause) => {
    if (codeOf(cause) === "ENOENT") return undefined
    throw cause
  })

export const fenced = (sink: string): SinkFenced =>
  new SinkFenced({ sink, detail: "another writer has claimed the directory" })

/** Writers that took one another's place: an opening whose end was not seen is no other's. */
export const familyOf = (epoch: string): string => epoch.split(".")[0]!

/** Makes the directory, and claims it; in another's place only where it is of that one's family. Gives false if it is not. */
export const claim = async (directory: string, own: string, instead: string | undefined): Promise<boolean> => {
  await makeDirectory(directory)
  if (instead !== undefined && familyOf((await readClaim(directory)) ?? "") !== familyOf(instead)) return false
  await writeWhole(directory, claimFile, own)
  return true
}

/** Lines of several texts, in order and once: a writer that was killed amid a take-over has left two. */
const merged = (texts: ReadonlyArray<Buffer>, after: string): Buffer => {
  const lines = texts
    .flatMap((text) => text.toString("utf8").split("\n"))
    .filter((line) => line !== "")
    .sort((left, right) => (SegmentText.idOf(left) < SegmentText.idOf(right) ? -1 : 1))
  let last = after
  const kept: Array<string> = []
  for (const line of lines) {
    const id = SegmentText.idOf(line)
    if (id <= last) continue
    kept.push(line)
    last = id
  }
  return Buffer.from(kept.map((line) => `${line}\n`).join(""))
}

/**
 * Takes over what other writers have left open, torn ends cut off, and puts it into a segment of one's own. Gives `undefined`
 * where another has claimed the directory since: only what was there before the claim was seen to be ours is taken.
 */
export const takeOver = async (directory: string, own: string): Promise<Buffer | undefined> => {
  const texts: Array<Buffer> = []
  const taken: Array<string> = []
  while (true) {
    const foreign = (await Fs.readdir(directory)).filter(
      (name) => SegmentText.isOpenName(name) && !taken.includes(name)
    )
    if (foreign.length === 0) break
    if ((await readClaim(directory)) !== own) return undefined
    for (const name of foreign) {
      const claimed = SegmentText.claimedName(own)
      try {
        await Fs.rename(Path.join(directory, name), Path.join(directory, claimed))
      } catch (cause) {
        // Its writer has given it its full name meanwhile.
        if (codeOf(cause) !== "ENOENT") throw cause
        continue
      }
      taken.push(claimed)
      texts.push(SegmentText.wholeLines(await Fs.readFile(Path.join(directory, claimed))))
    }
  }
  const segments = SegmentText.segmentsOf(await Fs.readdir(directory))
  const last = segments.at(-1)?.last ?? ""
  // Mostly there is one, behind all that is full: it stays as it is, however large.
  const [first] = texts
  const isWhole = texts.length === 1 && first !== undefined && SegmentText.firstId(first) > last
  const text = isWhole ? first : merged(texts, last)
  await writeWhole(directory, SegmentText.activeName(own), text)
  for (const name of taken) await Fs.rm(Path.join(directory, name), { force: true })
  await syncDirectory(directory)
  return text
}

/** Gives the open segment the name of a full one. Of a segment that was taken away there is nothing to rename: ENOENT. */
export const seal = async (directory: string, own: string, segment: SegmentText.Segment): Promise<void> => {
  await Fs.rename(Path.join(directory, SegmentText.activeName(own)), Path.join(directory, SegmentText.nameOf(segment)))
  await syncDirectory(directory)
}

/** Opens a new segment, whose name is on the disk before anything in it is acknowledged. */
export const openNew = async (directory: string, own: string): Promise<Fs.FileHandle> => {
  const handle = await Fs.open(Path.join(directory, SegmentText.activeName(own)), "wx")
  try {
    await syncDirectory(directory)
  } catch (cause) {
    await handle.close()
    throw cause
  }
  return handle
}

/** Compresses what is full and plain, and removes what was being written by those who are gone. */
export const compress = async (directory: string, compression: SegmentText.Compression): Promise<void> => {
  if (compression === "none") return
  for (const name of await Fs.readdir(directory)) {
    const segment = SegmentText.parseName(name)
    if (segment?.compression !== "none") continue
    const text = await Fs.readFile(Path.join(directory, name))
    await writeWhole(directory, SegmentText.nameOf({ ...segment, compression }), await compressors[compression](text))
    await Fs.rm(Path.join(directory, name), { force: true })
  }
}

/** Removes what others had begun to write: they are gone, or fenced. */
export const sweep = async (directory: string): Promise<void> => {
  for (const name of await Fs.readdir(directory)) {
    if (name.endsWith(".tmp")) await Fs.rm(Path.join(directory, name), { force: true })
  }
}

/** The lines of a full segment. */
export const readSegment = async (directory: string, segment: SegmentText.Segment): Promise<Buffer> =>
  decompressors[segment.compression](await Fs.readFile(Path.join(directory, SegmentText.nameOf(segment))))

/** The last line of the last full segment, if there is one. */
export const lastOfFull = async (directory: string): Promise<string | undefined> => {
  const segment = SegmentText.segmentsOf(await Fs.readdir(directory)).at(-1)
  return segment === undefined ? undefined : SegmentText.lastLine(await readSegment(directory, segment))
}

/** All that is stored: full segments, then what is open, each message once. */
export const readAll = async (directory: string): Promise<ReadonlyArray<string>> => {
  const names = await Fs.readdir(directory).catch((cause) => {
    if (codeOf(cause) === "ENOENT") return []
    throw cause
  })
  const lines: Array<string> = []
  const add = (text: Buffer) => {
    for (const line of SegmentText.wholeLines(text).toString("utf8").split("\n")) {
      if (line !== "" && (lines.length === 0 || SegmentText.idOf(line) > SegmentText.idOf(lines.at(-1)!)))
        lines.push(line)
    }
  }
  for (const segment of SegmentText.segmentsOf(names)) add(await readSegment(directory, segment))
  for (const name of names) if (SegmentText.isOpenName(name)) add(await Fs.readFile(Path.join(directory, name)))
  return lines
}
