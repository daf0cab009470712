/**
 * A connection that the client reads byte by byte, as for a copy, and asks by simple queries: COPY … TO STDOUT, and whatever
 * its backend answers otherwise. A row is a message, so a connection can break behind any of them.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
 */
import * as PgTimestamp from "../PgTimestamp.ts"
import { message as bytesOf, concat, type Part } from "../pgoutput/PgoutputBytes.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { ByteReader } from "../protocol/ByteReader.ts"
import { encodeFrame, Frames } from "../protocol/Frames.ts"
import { ConnectionError, type ServerMessage } from "../ReplicationError.ts"
import type { QueryRow } from "../server/WalSender.ts"
import type { TestBackend } from "./TestBackend.ts"
import type { Network, Wire } from "./Wire.ts"

const queryTag = 0x51 // Q
const terminateTag = 0x58 // X

/** Text format, and columns that nobody looks at. */
const copyOutResponse = encodeFrame(0x48 /* H */, new Uint8Array(3))

const rowDescription = (columns: ReadonlyArray<string>): Uint8Array =>
  encodeFrame(
    0x54 /* T */,
    bytesOf(
      [2, columns.length],
      ...columns.flatMap(
        (cstring): ReadonlyArray<Part> => [{ cstring }, [4, 0], [2, 0], [4, 25], [2, -1], [4, -1], [2, 0]]
      )
    )
  )

const dataRow = (columns: ReadonlyArray<string>, row: QueryRow): Uint8Array =>
  encodeFrame(
    0x44 /* D */,
    bytesOf(
      [2, columns.length],
      ...columns.flatMap((column): ReadonlyArray<Part> => {
        const value = row[column] ?? null
        if (value === null) return [[4, -1]]
        const bytes = new TextEncoder().encode(value)
        return [[4, bytes.length], bytes]
      })
    )
  )

export interface TestQuerySessionOptions {
  readonly backend: TestBackend
  readonly wire: Wire
  readonly network: Network
  /** Told of every text. */
  readonly onQuery: (text: string) => void
}

export class TestQuerySession {
  isEnded = false
  private readonly backend: TestBackend
  private readonly wire: Wire
  private readonly network: Network
  private readonly onQuery: (text: string) => void
  private readonly frames = new Frames()

  constructor({ backend, network, onQuery, wire }: TestQuerySessionOptions) {
    this.backend = backend
    this.network = network
    this.onQuery = onQuery
    this.wire = wire
  }

  /** Takes what the client sends. */
  receive(bytes: Uint8Array, now: number): void {
    this.frames.push(bytes)
    while (!this.isEnded && this.frames.next()) {
      const { bytes, end, start, tag } = this.frames
      if (tag === terminateTag) this.disconnect("Closed")
      if (tag === queryTag) this.ask(new ByteReader().reset(bytes, start, end).cstring(), now)
    }
  }

  /** Answers a text. */
  ask(text: string, now: number): void {
    this.onQuery(text)
    if (text.startsWith("COPY ")) {
      this.copy(text, now)
      return
    }
    const answer = this.backend.run(text, PgTimestamp.fromMillis(now))
    if ("sqlState" in answer) {
      this.refuse(answer, now)
      return
    }
    const columns = Object.keys(answer[0] ?? {})
    const rows = columns.length === 0 ? [] : [rowDescription(columns), ...answer.map((row) => dataRow(columns, row))]
    this.push(concat([...rows, BackendMessage.commandComplete("SELECT"), this.ready]), now)
  }

  private copy(text: string, now: number): void {
    const rows = this.backend.copy(text)
    if ("sqlState" in rows) {
      this.refuse(rows, now)
      return
    }
    const { network } = this
    this.push(copyOutResponse, now)
    for (const row of rows) {
      if (network.copyRowsLeft === 0) break
      this.push(BackendMessage.copyData(new TextEncoder().encode(row)), now)
      if (network.copyRowsLeft !== undefined) network.copyRowsLeft--
    }
    if (network.copyRowsLeft === 0) this.breakCopy()
    else
      this.push(
        concat([BackendMessage.copyDone, BackendMessage.commandComplete(`COPY ${rows.length}`), this.ready]),
        now
      )
  }

  /** What was sent arrives, and nothing behind it. */
  private breakCopy(): void {
    this.network.copyRowsLeft = undefined
    this.isEnded = true
    this.backend.isBroken = true
    this.wire.end(new ConnectionError({ reason: "Reset", detail: "the connection broke" }))
  }

  private refuse(message: ServerMessage, now: number): void {
    this.push(concat([BackendMessage.errorResponse(message), this.ready]), now)
  }

  private get ready(): Uint8Array {
    return encodeFrame(BackendMessage.readyForQueryTag, bytesOf(this.backend.isInTransaction ? "T" : "I"))
  }

  /** The connection ends behind what was said (`Closed`), or breaks off and loses it (`Reset`). */
  disconnect(reason: "Closed" | "Reset"): void {
    if (this.isEnded) return
    this.isEnded = true
    this.backend.isBroken = true
    if (reason === "Closed") {
      this.wire.end(new ConnectionError({ reason, detail: "the server closed the connection" }))
    } else {
      this.wire.break(new ConnectionError({ reason, detail: "the connection broke" }))
    }
  }

  private push(bytes: Uint8Array, now: number): void {
    if (this.isEnded || this.wire.push(bytes, now)) return
    this.isEnded = true
    this.backend.isBroken = true
    this.wire.end(new ConnectionError({ reason: "Reset", detail: "the connection broke" }))
  }
}
