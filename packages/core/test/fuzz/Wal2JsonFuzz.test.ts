/** Damaged messages of wal2json, in either format. */
import { describe } from "@effect/vitest"
import type { Change } from "../../src/change/Change.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { fuzz } from "../support/Fuzz.ts"
import { wal2JsonMessages } from "../support/Goldens.ts"
import { mutateSequence } from "../support/Mutation.ts"
import { makeDecode } from "../wal2json/decodeMessages.ts"

describe("a damaged stream of wal2json", () => {
  for (const formatVersion of [1, 2] as const) {
    const sequences = wal2JsonMessages(formatVersion)
    fuzz({
      title: `in format ${formatVersion} gives changes or a DecodeError`,
      share: formatVersion,
      input: (random) => mutateSequence(sequences, random),
      decode: (messages) => {
        const decode = makeDecode({ formatVersion })
        const changes: Array<Change> = []
        try {
          for (const message of messages) changes.push(...decode(message).changes)
        } catch (error) {
          if (!(error instanceof DecodeError)) throw error
        }
        return changes
      }
    })
  }
})
