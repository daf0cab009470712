/**
 * A connection that is asked and copied from by turns, for as long as it lives. A driver's connection answers queries until
 * it is taken over for a copy, and nothing but bytes from then on: so here it is taken over once, and both are read.
 *
 * Rows of a copy are lent, one at a time, and whoever takes them may stop: what is left is not read then, and the session
 * is of no more use. So what a copy may fill memory with is up to who takes it, and not to the server.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
 */
import * as Effect from "effect/Effect"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { ByteReader } from "../protocol/ByteReader.ts"
import { Frames } from "../protocol/Frames.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { DecodeError, type ReplicationError, type ServerMessage } from "../ReplicationError.ts"
import { serverError } from "../refineServerError.ts"
import { logNotice } from "../replication/OpenStream.ts"
import type { CopyBoth, QueryRow, ReplicantConnection } from "../server/WalSender.ts"

const dataRowTag = 0x44 // D
const emptyQueryResponseTag = 0x49 // I
const copyOutResponseTag = 0x48 // H
const rowDescriptionTag = 0x54 // T

/** Takes one row of a copy, in `bytes[start, end)`, in text format. False: no more is wanted. May throw `DecodeError`. */
export type TakeRow = (bytes: Uint8Array, start: number, end: number) => boolean

const nothing: TakeRow = () => true

const textOf = (reader: ByteReader, length: number): string => {
  const start = reader.skip(length)
  return reader.utf8(start, start + length)
}

/** The answer to one query text, as it comes. */
class Answer {
  readonly rows: Array<QueryRow> = []
  readonly notices: Array<ServerMessage> = []
  error: ServerMessage | undefined
  isStopped = false
  isDone = false
  private columns: ReadonlyArray<string> = []
  private taken = 0
  private readonly takeRow: TakeRow

  constructor(takeRow: TakeRow) {
    this.takeRow = takeRow
  }

  /** Reads what is whole of a read. Throws `DecodeError`. */
  read(frames: Frames, reader: ByteReader): void {
    // To the end of the read, also behind the end of the answer: a notice may have begun there.
    while (!this.isStopped && frames.next()) {
      if (frames.tag === BackendMessage.copyDataTag) {
        this.taken += 1
        this.isStopped = !this.takeRow(frames.bytes, frames.start, frames.end)
      } else {
        this.readOther(frames.tag, reader.reset(frames.bytes, frames.start, frames.end))
      }
    }
  }

  private readOther(tag: number, reader: ByteReader): void {
    switch (tag) {
      case rowDescriptionTag:
        this.rows.length = 0
        this.columns = Array.from({ length: reader.int16() }, () => {
          const name = reader.cstring()
          reader.skip(18)
          return name
        })
        return
      case dataRowTag:
        this.rows.push(this.dataRow(reader))
        return
      case copyOutResponseTag:
        this.taken = 0
        if (reader.uint8() !== 0) reader.fail("a copy in another format than text")
        return
      case BackendMessage.commandCompleteTag: {
        const count = /^COPY (\d+)$/.exec(reader.cstring())?.[1]
        if (count !== undefined && Number(count) !== this.taken) {
          reader.fail(`a copy of ${count} rows, of which ${this.taken} came`)
        }
        return
      }
      case BackendMessage.errorResponseTag:
        this.error = BackendMessage.decodeServerMessage(reader)
        // Nothing follows the last word of a session.
        this.isDone = this.error.severity === "FATAL" || this.error.severity === "PANIC"
        return
      case BackendMessage.noticeResponseTag:
        this.notices.push(BackendMessage.decodeServerMessage(reader))
        return
      case BackendMessage.readyForQueryTag:
        this.isDone = true
        return
      case BackendMessage.copyDoneTag:
      case BackendMessage.parameterStatusTag:
      case BackendMessage.notificationResponseTag:
      case emptyQueryResponseTag:
        return
      default:
        reader.fail(`a backend message of type 0x${tag.toString(16)} in the wrong place`)
    }
  }

  private dataRow(reader: ByteReader): QueryRow {
    const count = reader.int16()
    if (count !== this.columns.length)
      reader.fail(`a row of ${count} columns, of which ${this.columns.length} are named`)
    const row: { [column: string]: string | null } = {}
    for (const column of this.columns) {
      const length = reader.int32()
      row[column] = length < 0 ? null : textOf(reader, length)
    }
    return row
  }
}

/** One session. One effect of it may run at a time; after a failure that is no server error's it is of no more use. */
export class ReadingSession implements ReplicantConnection {
  readonly serverVersion: number
  readonly slices: ReplicantConnection["slices"]
  private readonly connection: ReplicantConnection
  private readonly frames = new Frames()
  private readonly reader: ByteReader
  private copyStream: CopyBoth | undefined

  constructor(connection: ReplicantConnection) {
    this.connection = connection
    this.serverVersion = connection.serverVersion
    this.slices = connection.slices
    this.reader = new ByteReader(connection.slices)
  }

  readonly query = (text: string): Effect.Effect<ReadonlyArray<QueryRow>, ReplicationError> =>
    Effect.map(this.ask(text, nothing), ({ rows }) => rows)

  readonly copyBoth = (): Effect.Effect<never> => Effect.die(new TypeError("a session that is taken over already"))

  /** Runs one COPY … TO STDOUT. False: it was stopped, and the session with it. */
  copy(command: string, takeRow: TakeRow): Effect.Effect<boolean, ReplicationError> {
    return Effect.map(this.ask(command, takeRow), ({ isStopped }) => !isStopped)
  }

  private ask(text: string, takeRow: TakeRow): Effect.Effect<Answer, ReplicationError> {
    return Effect.gen({ self: this }, function* () {
      const answer = new Answer(takeRow)
      const stream = yield* this.send(text)
      while (!answer.isDone && !answer.isStopped) {
        this.frames.push(yield* stream.pull)
        yield* Effect.try({
          try: () => answer.read(this.frames, this.reader),
          catch: DecodeError.caught
        })
        if (answer.notices.length > 0) yield* Effect.forEach(answer.notices.splice(0), logNotice, { discard: true })
      }
      // Of a copy that stumbles over a row, the server's text may quote the row.
      if (answer.error !== undefined)
        return yield* serverError(answer.error, takeRow === nothing ? "Query" : "Streaming")
      return answer
    })
  }

  private send(text: string): Effect.Effect<CopyBoth, ReplicationError> {
    const { copyStream } = this
    return copyStream === undefined
      ? Effect.tap(this.connection.copyBoth(text), (stream) => {
          this.copyStream = stream
          return Effect.void
        })
      : Effect.as(copyStream.send(FrontendMessage.query(text)), copyStream)
  }
}
