/**
 * A socket that is read when somebody asks, and then as much of it as there is.
 *
 * A stream of Node's own reads ahead, a packet at a time while packets are small, which is what a walsender sends: both
 * ends then spend their time in system calls. Here the kernel gathers what comes between two pulls, and one pull takes
 * up to {@link maxPullBytes} of it. Whoever pulls slowly makes the sender wait: beyond {@link maxReadAheadBytes} and one
 * read that was under way, nothing piles up in this process. docs/performance.md has the measurements.
 *
 * It knows nothing of PostgreSQL. Bytes belong to whoever pulled them: each read has memory of its own.
 */
import type { Socket } from "node:net"
import type { ConnectionError } from "@replicant/core"
import type { CopyBoth } from "@replicant/core/driver"
import * as Effect from "effect/Effect"

/**
 * One pull gives no more than this, plus at most what one read took too much. Less means smaller reads and more of them:
 * at 64 KiB a backlog that is left to gather 20 ms drains at a tenth of the rate.
 */
export const maxPullBytes = 1024 * 1024

/** A pull that gave less found live traffic: what comes next is small too, and soon. */
const smallPullBytes = 4 * 1024

/**
 * What is read before it is pulled, on live traffic alone: starting and stopping the socket around each small read made
 * the slowest of a hundred commits three times as slow. A backlog is left to the kernel, where it gathers.
 */
export const maxReadAheadBytes = 64 * 1024

/**
 * Takes over a connected socket to which no `data` listener is attached any more.
 *
 * Reading chunks past the stream's own buffer is what makes it possible to stop after exactly one read: the `push` that
 * Node calls with each chunk is ours from here on, and what it returns says whether to go on.
 *
 * `toError` names what broke the connection; it is given `undefined` when the peer just closed.
 */
export const readOnDemand = (socket: Socket, toError: (thrown: unknown) => ConnectionError): CopyBoth => {
  let chunks: Array<Uint8Array> = []
  let gathered = 0
  let isPulling = false
  let readAheadBytes = 0
  let wake: (() => void) | undefined
  let failure: ConnectionError | undefined = socket.destroyed || socket.readableEnded ? toError(undefined) : undefined

  const startReading = socket._read.bind(socket)
  const pushEnd = socket.push.bind(socket)

  const awaken = (): void => {
    const waiting = wake
    wake = undefined
    waiting?.()
  }
  const fail = (thrown: unknown): void => {
    failure ??= toError(thrown)
    awaken()
  }

  socket.push = (chunk: Uint8Array | null): boolean => {
    if (chunk === null) return pushEnd(null)
    chunks.push(chunk)
    gathered += chunk.length
    // Node reads on, within this turn of the event loop, for as long as what is returned is true.
    awaken()
    return gathered < (isPulling ? maxPullBytes : readAheadBytes)
  }
  socket.on("error", fail)
  socket.on("end", () => fail(undefined))
  socket.on("close", () => fail(undefined))

  const take = (): Effect.Effect<Uint8Array, ConnectionError> => {
    isPulling = false
    if (gathered === 0) return Effect.fail(failure ?? toError(undefined))
    const bytes = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, gathered)
    chunks = []
    readAheadBytes = gathered < smallPullBytes ? maxReadAheadBytes : 0
    gathered = 0
    return Effect.succeed(bytes)
  }

  const pull = Effect.callback<Uint8Array, ConnectionError>((resume) => {
    // Only the fiber that runs on takes the bytes: one interrupted before it does leaves them for the next pull.
    const finish = (): void => resume(Effect.suspend(take))
    // An immediate runs once the event loop has read all there was to read. On live traffic that is a turn for nothing.
    let immediate: NodeJS.Immediate | undefined
    const finishSoon = (): void => {
      if (readAheadBytes > 0 && gathered < smallPullBytes) finish()
      else immediate = setImmediate(finish)
    }
    isPulling = true
    if (failure !== undefined) finish()
    else {
      startReading(maxPullBytes)
      if (gathered > 0) finishSoon()
      else wake = finishSoon
    }
    return Effect.sync(() => {
      isPulling = false
      wake = undefined
      clearImmediate(immediate)
    })
  })

  const send = (bytes: Uint8Array): Effect.Effect<void, ConnectionError> =>
    Effect.callback((resume) => {
      // The socket would take bytes that the peer's end does not want any more.
      if (failure !== undefined) return resume(Effect.fail(failure))
      socket.write(bytes, (thrown) => {
        if (thrown !== undefined && thrown !== null) failure ??= toError(thrown)
        resume(thrown === undefined || thrown === null ? Effect.void : Effect.fail(failure ?? toError(thrown)))
      })
    })

  return { pull, send }
}
