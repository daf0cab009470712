/**
 * A declared message as the SQL that writes it. Text and parameters only: who runs it decides on the transaction.
 *
 * Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
 */
import * as Result from "effect/Result"
import { codecOf } from "./MessageCodec.ts"
import { UnencodableMessage } from "./MessageError.ts"
import type { MessageSchema, OutboxMessage } from "./OutboxMessage.ts"

/** How a message is written. */
export interface EmitOptions {
  /**
   * `true` when left out: the message is of the transaction that writes it, comes with its other changes, and not at all
   * when that rolls back. With `false` it stands alone, waits for no commit, and stays whatever becomes of the transaction.
   */
  readonly transactional?: boolean | undefined
}

/** A statement for any driver. Both parameters are text, the second one ASCII; so is its one column, the LSN of the message. */
export interface EmitStatement {
  readonly sql: string
  readonly params: readonly [prefix: string, content: string]
}

// Two functions bear this name, for text and for bytea: the casts of the parameters choose, whatever type a driver takes
// its strings for. They give a pg_lsn, which not every driver reads: one in binary format may end its connection over it.
const emitSql = (transactional: boolean) => `SELECT pg_logical_emit_message(${transactional}, $1::text, $2::text)::text`
const transactionalSql = emitSql(true)
const standaloneSql = emitSql(false)

/**
 * The statement that writes a message, for programs that run their SQL themselves, with Effect or without.
 *
 * @example
 * const { sql, params } = Result.getOrThrow(Outbox.statement(OrderPlaced)({ id: 1n, placedAt }))
 * await client.query(sql, [...params])
 */
export const statement =
  <S extends MessageSchema>(
    { prefix, schema }: OutboxMessage<string, S>,
    { transactional = true }: EmitOptions = {}
  ): ((value: S["Type"]) => Result.Result<EmitStatement, UnencodableMessage>) =>
  (value) =>
    Result.mapBoth(codecOf(schema).encode(value), {
      onSuccess: (content): EmitStatement => ({
        sql: transactional ? transactionalSql : standaloneSql,
        params: [prefix, content]
      }),
      onFailure: (misfit) => new UnencodableMessage({ prefix, ...misfit })
    })
