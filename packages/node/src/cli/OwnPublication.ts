/** A publication that lives as long as a scope: for commands that leave nothing behind. */
import { Publication, type ReplicationError } from "@replicant/core"
import { quoteIdentifier, type WalSender } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { withConnection } from "./Root.ts"

const setup = (options: Publication.PublicationOptions): Effect.Effect<boolean, ReplicationError, WalSender> =>
  withConnection(
    Effect.fnUntraced(function* (connection) {
      const all = yield* Publication.listPublications(connection)
      const isThere = all.some((publication) => publication.name === options.name)
      yield* isThere
        ? Publication.setupPublication(connection, options)
        : Publication.createPublication(connection, options)
      if (!isThere) yield* Effect.logInfo(`made publication "${options.name}": it is dropped at the end`)
      return !isThere
    })
  )

const drop = (name: string): Effect.Effect<void, never, WalSender> =>
  withConnection((connection) => connection.query(`DROP PUBLICATION IF EXISTS ${quoteIdentifier(name)}`)).pipe(
    Effect.andThen(Effect.logInfo(`dropped publication "${name}"`)),
    Effect.catch((error) =>
      Effect.logWarning(`could not drop publication "${name}", which is of no more use: ${error.message}`)
    )
  )

/**
 * Makes the publication, or checks one that is there and publishes what is asked. What is made is dropped with the scope;
 * what was there stays.
 */
export const acquire = (
  options: Publication.PublicationOptions
): Effect.Effect<void, ReplicationError, WalSender | Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(setup(options), (isMade) => (isMade ? drop(options.name) : Effect.void)))
