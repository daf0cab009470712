/** The captured goldens as bytes, a list of messages a scenario. */
import { binaryGoldens, goldens } from "../fixtures/goldens.ts"
import { frames } from "../fixtures/replicationMessages.ts"
import { goldens as wal2json } from "../fixtures/wal2json.ts"
import { bytesOf } from "../wal2json/decodeMessages.ts"
import { block, streamAbort, streamCommit, within } from "./StreamingBytes.ts"

const bytesOfAll = (scenarios: Readonly<Record<string, ReadonlyArray<string>>>) =>
  Object.values(scenarios).map((messages) => messages.map((text) => new Uint8Array(Buffer.from(text, "base64"))))

/** Of pgoutput in text format. */
export const pgoutputText = bytesOfAll(goldens)

/** Of pgoutput in binary format. */
export const pgoutputBinary = bytesOfAll(binaryGoldens)

const isChange = (message: Uint8Array): boolean => "IUDTRY".includes(String.fromCharCode(message[0]!))

/** The same changes as of transactions in progress: in two blocks, part of them in a subtransaction that is undone. */
export const pgoutputInProgress = pgoutputText
  .map((messages) => messages.filter(isChange))
  .filter((changes) => changes.length > 0)
  .map((changes, index) => {
    const xid = 700 + index
    const half = changes.length >> 1
    return [
      ...block(xid, 1, ...changes.slice(0, half + 1).map((change) => within(xid, change))),
      ...block(xid, 0, ...changes.slice(half).map((change) => within(xid + 1, change))),
      ...(index % 2 === 0 ? [streamAbort(xid, xid + 1)] : []),
      index % 3 === 0 ? streamAbort(xid) : streamCommit(xid)
    ]
  })

/** Backend messages: type and payload. */
export const backendMessages = Object.values(frames).map(({ payload, tag }) => ({
  tag: tag.charCodeAt(0),
  payload: new Uint8Array(Buffer.from(payload, "hex"))
}))

export const wal2JsonMessages = (format: 1 | 2) =>
  Object.values(wal2json)
    .map((golden) => (format === 2 ? golden.format2 : golden.format1).map(bytesOf))
    .filter((messages) => messages.length > 0)
