/**
 * The port a driver implements: a connection to a walsender, in PostgreSQL's replication mode, and an ordinary session of the
 * same server.
 *
 * The driver connects, negotiates TLS and authenticates; it frames nothing. What the walsender says during a copy is
 * decoded here, in core, so that a test can play the walsender byte by byte.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { TextSlices } from "../protocol/ByteReader.ts"
import type { ReplicationError } from "../ReplicationError.ts"

/** One row of a simple query: every value is PostgreSQL's text, or null. */
export interface QueryRow {
  readonly [column: string]: string | null
}

/**
 * The raw bytes of a connection once the driver has let go of it: what follows ReadyForQuery, both ways, whole backend
 * and frontend messages in pieces of any size.
 */
export interface CopyBoth {
  /**
   * The next bytes, as many as one read gives. Nothing is read from the socket until pulled, so that a consumer that
   * waits makes the walsender wait. Never ends, but fails: with `ConnectionError` when the connection does. The bytes
   * belong to the caller, and the driver does not touch them again. Interrupting a pull loses no bytes.
   */
  readonly pull: Effect.Effect<Uint8Array, ReplicationError>
  /** Writes, and waits until the socket takes it. The bytes belong to the driver from then on. */
  readonly send: (bytes: Uint8Array) => Effect.Effect<void, ReplicationError>
}

/** What is to be known of an answer that is read from the socket itself. */
export interface CopyBothOptions {
  /**
   * A stream is silent where nothing happens: its reader tells a dead one by other means. Left out, a pull or a send that
   * nothing comes of fails as a query does.
   */
  readonly mayBeSilent?: boolean | undefined
}

/**
 * What is asked in SQL. Of a walsender and of an ordinary session alike: the text is a simple query, the only one that a
 * walsender takes.
 *
 * No wait on it lasts for ever, so that nobody who asks has to think of a limit. An answer that does not come is no reason to
 * give a connection up, since a slot waits for old transactions and a lock for its holder: the driver makes sure that the
 * server is at work, and otherwise fails with a `ConnectionError` whose reason is `TimedOut`.
 */
export interface SqlSession {
  /** `server_version_num`: 180004 for 18.4. */
  readonly serverVersion: number
  /**
   * Runs one command or SQL text by the simple query protocol, and gives the rows of its last result. Server errors come as
   * `ServerError`, refined by nobody yet.
   */
  readonly query: (text: string) => Effect.Effect<ReadonlyArray<QueryRow>, ReplicationError>
}

/** A connection opened with `replication=database`. Lives as long as the scope that `connect` was given. */
export interface ReplicantConnection extends SqlSession {
  /**
   * Takes the idle connection over and sends `command` as a simple query. The answer, CopyBothResponse or ErrorResponse,
   * comes with the first pull. After this, `query` may not be used again.
   */
  readonly copyBoth: (command: string, options?: CopyBothOptions) => Effect.Effect<CopyBoth, ReplicationError>
  /** How this driver cuts text out of bytes. */
  readonly slices: TextSlices
  /**
   * Puts what is left of the driver's connect timeout over a step between `connect` and streaming that the server answers
   * at once: one limit for the whole handshake. Left out, there is none.
   */
  readonly inConnectTimeout?: ConnectTimeout | undefined
}

/** Fails a step that takes too long. */
export type ConnectTimeout = <A, E, R>(step: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ReplicationError, R>

/** Where connections come from. `PgWalSender.layer` of `@replicant/node` is one; a test brings its own. */
export class WalSender extends Context.Service<
  WalSender,
  {
    /**
     * Opens a connection; the scope closes it. The socket is closed however the scope ends, and also when the attempt is
     * interrupted.
     */
    readonly connect: Effect.Effect<ReplicantConnection, ReplicationError, Scope.Scope>
    /**
     * Opens an ordinary session of the same servers, closed likewise: it knows no replication commands, and takes none of
     * `max_wal_senders`. For what is held for long beside a stream.
     */
    readonly openSession: Effect.Effect<SqlSession, ReplicationError, Scope.Scope>
  }
>()("@replicant/core/WalSender") {}
