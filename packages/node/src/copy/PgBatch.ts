/**
 * Two query objects for `pg`: many statements in one round trip, and rows for one COPY FROM STDIN.
 *
 * `pg` sends one query and waits for its answer; its pipelining mode takes no COPY, and sends a Sync with every statement.
 * A batch has one Sync at its end, so what fails leaves out all that follows it. `pg-copy-streams` turns rows into a
 * stream; ours come as whole buffers (docs/decisions/0018-copy-writes-with-its-own-query-objects.md).
 *
 * Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
 */
import type pg from "pg"
import type { Written } from "./RefusedValue.ts"

/** A statement, prepared in its session when it is first used there. */
export interface Statement {
  readonly name: string
  readonly text: string
}

/** A statement with its parameters, in PostgreSQL's own text. */
export interface Step {
  readonly statement: Statement
  readonly values: ReadonlyArray<string | null>
  /** What it writes, for the error of whoever refuses it. */
  readonly written?: Written | undefined
}

/** What `pg`'s `Connection` has and its types do not: COPY, and messages without their former second argument. */
interface BatchConnection {
  readonly stream: { readonly cork: () => void; readonly uncork: () => void }
  readonly parse: (query: { readonly name: string; readonly text: string }) => void
  readonly bind: (config: { readonly statement: string; readonly values: ReadonlyArray<string | null> }) => void
  readonly execute: (config: object) => void
  readonly sync: () => void
  readonly query: (text: string) => void
  readonly sendCopyFromChunk: (chunk: Uint8Array) => void
  readonly endCopyFrom: () => void
}

const asBatchConnection = (connection: pg.Connection): BatchConnection => connection as unknown as BatchConnection

/** The rows that a command says it met: `INSERT 0 1`, `UPDATE 3`, `COPY 7`; 0 for others. */
const rowCount = (tag: string): number => Number(/\d+$/.exec(tag)?.[0] ?? 0)

type Callback = (error: Error | undefined, rowCounts: ReadonlyArray<number>) => void

/** What every query object answers; rows are nobody's here. */
class QueryObject {
  private readonly counts: Array<number> = []
  private callback: Callback | undefined

  constructor(callback: Callback) {
    this.callback = callback
  }

  handleRowDescription(): void {}
  handleDataRow(): void {}
  handlePortalSuspended(): void {}
  handleEmptyQuery(): void {}
  handleCopyData(): void {}

  handleCommandComplete(message: { readonly text: string }): void {
    this.counts.push(rowCount(message.text))
  }

  handleReadyForQuery(): void {
    this.finish(undefined)
  }

  handleError(error: Error): void {
    this.finish(error)
  }

  private finish(error: Error | undefined): void {
    const callback = this.callback
    this.callback = undefined
    callback?.(error, this.counts)
  }
}

/** Names of what a session has prepared. More than so many are not kept there: a server remembers them for ever. */
const maxPrepared = 1000

/** Statements in one round trip. The first that fails ends it: none after it is run. */
export class Batch extends QueryObject implements pg.Submittable {
  private readonly steps: ReadonlyArray<Step>
  private readonly prepared: Set<string>

  /** `prepared` is of the session, which is of no more use once a batch has failed. */
  constructor(steps: ReadonlyArray<Step>, prepared: Set<string>, callback: Callback) {
    super(callback)
    this.steps = steps
    this.prepared = prepared
  }

  submit(toConnection: pg.Connection): void {
    const connection = asBatchConnection(toConnection)
    connection.stream.cork()
    for (const { statement, values } of this.steps) {
      const isKept = this.prepared.has(statement.name)
      const name = isKept || this.prepared.size < maxPrepared ? statement.name : ""
      if (!isKept) connection.parse({ name, text: statement.text })
      if (name !== "") this.prepared.add(name)
      connection.bind({ statement: name, values })
      connection.execute({})
    }
    connection.sync()
    connection.stream.uncork()
  }

  handleCopyInResponse(): void {}
}

/** Rows in COPY's text format, by one command. */
export class CopyIn extends QueryObject implements pg.Submittable {
  private readonly text: string
  private readonly rows: Uint8Array

  constructor(text: string, rows: Uint8Array, callback: Callback) {
    super(callback)
    this.text = text
    this.rows = rows
  }

  submit(connection: pg.Connection): void {
    asBatchConnection(connection).query(this.text)
  }

  handleCopyInResponse(toConnection: pg.Connection): void {
    const connection = asBatchConnection(toConnection)
    connection.stream.cork()
    connection.sendCopyFromChunk(this.rows)
    connection.endCopyFrom()
    connection.stream.uncork()
  }
}
