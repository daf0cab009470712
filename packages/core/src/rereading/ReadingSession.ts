/**
 * A connection that is asked and copied from by turns, for as long as it lives. A driver's connection answers queries until
 * it is taken over for a copy, and nothing but bytes from then on: so here it is taken over once, and both are read.
 *
 * Rows of a copy are handed over as they are decoded, some at a time, and whoever takes them may stop: what is left is not
 * read then, and the session is of no more use. So what a copy may fill memory with is up to who takes it, and not to the
 * server. When a copy is over, `CopyOut.ts` knows.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
 */
import * as Effect from "effect/Effect"
import type { Row } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import * as BackendMessage from "../protocol/BackendMessage.ts"
import { ByteReader } from "../protocol/ByteReader.ts"
import { Frames } from "../protocol/Frames.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { DecodeError, type ReplicationError, type ServerMessage } from "../ReplicationError.ts"
import { serverError } from "../refineServerError.ts"
import { logNotice } from "../replication/OpenStream.ts"
import type { CopyBoth, QueryRow, ReplicantConnection } from "../server/WalSender.ts"
import { CopyOut, type CopyOutRead } from "../snapshot/CopyOut.ts"
import type { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"

const dataRowTag = 0x44 // D
const emptyQueryResponseTag = 0x49 // I
const rowDescriptionTag = 0x54 // T

/** What is copied, and by whom its rows are taken. */
export interface CopyOptions {
  readonly command: string
  /** What it is a copy of, as `decoder` describes it. */
  readonly relation: Relation
  readonly decoder: SnapshotDecoder
  /** So many bytes, or a few hundred rows, are decoded before they are handed over. */
  readonly portion: number
  /** Takes the next rows, which came as so many bytes of text. False: no more is wanted. */
  readonly take: (rows: ReadonlyArray<Row>, bytes: number) => boolean
}

const textOf = (reader: ByteReader, length: number): string => {
  const start = reader.skip(length)
  return reader.utf8(start, start + length)
}

/** The answer to one query text, as it comes. */
class Answer {
  readonly rows: Array<QueryRow> = []
  readonly notices: Array<ServerMessage> = []
  error: ServerMessage | undefined
  isDone = false
  private columns: ReadonlyArray<string> = []

  /** Reads what is whole of a read. Throws `DecodeError`. */
  read(frames: Frames, reader: ByteReader): void {
    // To the end of the read, also behind the end of the answer: a notice may have begun there.
    while (frames.next()) this.readMessage(frames.tag, reader.reset(frames.bytes, frames.start, frames.end))
  }

  private readMessage(tag: number, reader: ByteReader): void {
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
      case BackendMessage.commandCompleteTag:
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

  readonly query = Effect.fnUntraced({ self: this }, function* (text: string): Effect.fn.Return<
    ReadonlyArray<QueryRow>,
    ReplicationError
  > {
    const answer = new Answer()
    const stream = yield* this.send(text)
    while (!answer.isDone) {
      this.frames.push(yield* stream.pull)
      yield* Effect.try({
        try: () => answer.read(this.frames, this.reader),
        catch: (error) => {
          if (!(error instanceof DecodeError)) throw error
          return error
        }
      })
      if (answer.notices.length > 0) yield* Effect.forEach(answer.notices.splice(0), logNotice, { discard: true })
    }
    if (answer.error !== undefined) return yield* serverError(answer.error, "Query")
    return answer.rows
  })

  readonly copyBoth = (): Effect.Effect<never> => Effect.die(new TypeError("a session that is taken over already"))

  /** Runs one COPY … TO STDOUT within a transaction. False: it was stopped, and the session with it, as by any failure. */
  copy({ command, decoder, portion, relation, take }: CopyOptions): Effect.Effect<boolean, ReplicationError> {
    return Effect.gen({ self: this }, function* () {
      const out = new CopyOut(decoder, this.slices, this.frames)
      out.begin(relation)
      const stream = yield* this.send(command)
      let next: CopyOutRead["next"] = "due"
      while (next !== "done") {
        if (next === "due") out.push(yield* stream.pull)
        const read = out.decode({ rows: Number.POSITIVE_INFINITY, bytes: portion })
        if (read.notices.length > 0) yield* Effect.forEach(read.notices, logNotice, { discard: true })
        if (read.rows.length > 0 && !take(read.rows, read.bytes)) return false
        if (read.failure !== undefined) return yield* read.failure
        next = read.next
      }
      return true
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
