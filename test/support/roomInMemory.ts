/**
 * Where servers for tests may have their data: in memory, where there is room. Databases are made and dropped by the
 * hundred, and what a disk's file system does for it is as much as all the rest of a run. Whether anything survives a
 * power cut is no test's question: servers for tests do not fsync either.
 */
import { readFileSync, statfsSync } from "node:fs"

const path = "/dev/shm"

/** Several times what a run takes at its most. */
const bytesNeeded = 4 * 1024 ** 3

/** Some containers have it and let no program run from it, as ours would where they are copied. */
const isExecutable = (): boolean => {
  const mount = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .find(([, target]) => target === path)
  return mount !== undefined && !mount[3]!.split(",").includes("noexec")
}

/** That directory; `undefined` where there is none, or too little room or memory. */
export const roomInMemory = (): string | undefined => {
  try {
    const { bavail, bsize } = statfsSync(path)
    const hasRoom = bavail * bsize >= bytesNeeded && process.availableMemory() >= bytesNeeded
    return hasRoom && isExecutable() ? path : undefined
  } catch {
    return undefined
  }
}
