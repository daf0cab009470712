/**
 * Counts the questions that go to a server, over all connections, and does something before the n-th goes on: a relay that
 * reads what the client sends. A question is a Query or a Sync, or the end of rows sent by COPY.
 */
import Net from "node:net"
import { Effect, type Scope } from "effect"

export interface Questions {
  readonly host: "127.0.0.1"
  readonly port: number
  /** How many have gone, as text where they have one. */
  readonly asked: ReadonlyArray<string>
  /** Connections of clients that are open. */
  readonly open: () => number
}

const questionTags: ReadonlySet<number> = new Set([0x51 /* Q */, 0x53 /* S */, 0x63 /* c */])

/** What a client says: the startup packet, and then messages. */
class Listener {
  private buffer = Buffer.alloc(0)
  private isStarted = false

  /** The questions that are whole now. */
  push(bytes: Uint8Array): ReadonlyArray<string> {
    this.buffer = Buffer.concat([this.buffer, bytes])
    const found: Array<string> = []
    while (true) {
      const header = this.isStarted ? 1 : 0
      if (this.buffer.length < header + 4) return found
      const length = header + this.buffer.readInt32BE(header)
      if (this.buffer.length < length) return found
      const tag = this.buffer[0]!
      if (this.isStarted && questionTags.has(tag)) {
        found.push(tag === 0x51 ? this.buffer.toString("utf8", 5, length - 1) : String.fromCharCode(tag))
      }
      this.isStarted = true
      this.buffer = this.buffer.subarray(length)
    }
  }
}

/** A relay to `target`. `before` is run with each question's number, from 1, before it goes on, and with whether its connection is open. */
export const makeQuestions = Effect.fnUntraced(function* (
  target: { readonly host: string; readonly port: number },
  before: (number: number, isOpen: () => boolean) => void
): Effect.fn.Return<Questions, never, Scope.Scope> {
  const asked: Array<string> = []
  const clients = new Set<Net.Socket>()
  const listener = Net.createServer({ allowHalfOpen: false }, (client) => {
    const server = Net.connect({ port: target.port, host: target.host })
    const heard = new Listener()
    clients.add(client)
    const end = () => {
      clients.delete(client)
      client.destroy()
      server.destroy()
    }
    for (const socket of [client, server]) socket.setNoDelay(true).on("error", end).on("close", end)
    client.on("data", (bytes) => {
      for (const question of heard.push(bytes)) {
        asked.push(question)
        before(asked.length, () => clients.has(client))
      }
      server.write(bytes)
    })
    server.on("data", (bytes) => void client.write(bytes))
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void listener.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.callback<void>((resume) => {
        for (const client of clients) client.destroy()
        listener.close(() => resume(Effect.void))
      })
  )
  const { port } = listener.address() as Net.AddressInfo
  return { host: "127.0.0.1", port, asked, open: () => clients.size }
})
