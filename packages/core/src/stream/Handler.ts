/**
 * How changes are taken: a value. What a stream is run with, what a sink is, and what declared tables, messages and
 * contexts are put before.
 *
 * A handler is made anew for each connection, in a scope that ends with it: so whatever it holds between two reads (a
 * transaction at a target, what a decoder remembers) ends with the connection that filled it, and no other hook is needed.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { type Change, nextLsn } from "../change/Change.ts"
import type { Handled, NextLsn } from "../change/NextLsn.ts"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import { type Transaction, TransactionFold, wholeTransactions } from "../change/Transaction.ts"
import type * as Lsn from "../Lsn.ts"
import type { InvalidOption, ReplicationError } from "../ReplicationError.ts"
import type { CheckpointOptions } from "../replication/StartPosition.ts"
import type { IdentifySystem } from "../server/IdentifySystem.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Reader } from "./Reader.ts"

export type { Handled } from "../change/NextLsn.ts"
export type { Reader } from "./Reader.ts"

/** What one read brought, in order, and how many bytes of the stream it was. */
export interface Read<out C> {
  readonly changes: NonEmptyReadonlyArray<C>
  readonly bytes: number
}

/** One connection, as its handler sees it; or one attempt at a first copy, of which nothing can be acknowledged. */
export interface Session<in E = never> {
  readonly slot: string
  readonly plugin: OutputPlugin
  /** Whose changes these are, as the connection was opened; `undefined` in a first copy. */
  readonly system?: (IdentifySystem & { readonly isInRecovery: boolean }) | undefined
  /** What may be gathered of one transaction, in bytes of WAL messages. */
  readonly maxTransactionBytes: number | undefined
  /** Hand nothing more over: the connection is lost, or the program is leaving. */
  readonly isOver: () => boolean
  /** Everything before this is done: the end of the longest finished prefix. `0/0` while nothing is. */
  readonly durable: Effect.Effect<Lsn.Lsn>
  /**
   * Ends the stream with a failure of the handler's, at once: for who works ahead in fibers of its own, since `Consume` fails
   * with the next read only, and on a quiet slot none may come.
   */
  readonly fail: (error: E) => Effect.Effect<void>
  /**
   * This unit is done. In any order: the server hears of the longest finished prefix. Of another session it is void, since
   * what it covers is delivered again.
   */
  readonly acknowledge: (nextLsn: NextLsn) => Effect.Effect<void, SnapshotError>
  /** This unit and every one delivered before it are done. */
  readonly acknowledgeThrough: (nextLsn: NextLsn) => Effect.Effect<void, SnapshotError>
}

/**
 * Takes what one read brought. Until it has ended nothing more is given. It acknowledges by itself, when it will; but of
 * what stands before a `SnapshotRangeCompleted` or a `SnapshotCompleted` all must be durable when it has ended that.
 */
export type Consume<in C, out E = never, out R = never> = (read: Read<C>) => Effect.Effect<void, E | SnapshotError, R>

/** How far a handler is by a store of its own: see `checkpoint` and `storeIdleFlush` of a stream. */
export type Position = Required<Pick<CheckpointOptions, "checkpoint" | "storeIdleFlush">>

/** How changes are taken: made anew for each connection, in a scope that ends with it. */
export interface Handler<in C, out E = never, out R = never> {
  /** Why nothing of what this plugin says can be taken so: asked before anything is opened. */
  readonly unfit?: ((plugin: OutputPlugin) => InvalidOption | undefined) | undefined
  /**
   * Where its own store stands. Asked once, before the stream's first connection: the stream starts there, once it is proved to
   * hold on this server and slot. Not asked of what is opened by hand.
   */
  readonly position?: ((slot: string) => Effect.Effect<Position, E, R>) | undefined
  readonly make: (session: Session<E>) => Effect.Effect<Consume<C, E, R>, E | SnapshotError, R | Scope.Scope>
}

/** A handler of one change at a time, as a plain function: see {@link each}. */
export type Handle<in C, out E = never, out R = never> = (change: C) => Effect.Effect<Handled, E, R>

/** Whatever changes are taken by. A plain function stands for {@link each}. */
export type Input<C, E = never, R = never> = Handler<C, E, R> | Handle<C, E, R>

/**
 * A handler from its parts: what is acquired here is released when the connection has gone. Whatever `session.fail` is given
 * must be of the handler's `E`: say that, since the compiler cannot tell from within.
 *
 * @example
 * Handler.make((session) =>
 *   Effect.map(Effect.acquireRelease(target.begin, target.rollback), (transaction) =>
 *     ({ changes }) => Effect.flatMap(transaction.write(changes), session.acknowledgeThrough)))
 */
export const make = <C, E = never, R = Scope.Scope>(
  make: (session: Session<unknown>) => Effect.Effect<Consume<C, E, R>, E | SnapshotError, R>
): Handler<C, E, Exclude<R, Scope.Scope>> => ({ make: make as Handler<C, E, Exclude<R, Scope.Scope>>["make"] })

const acknowledged = (session: Session, done: Handled): Effect.Effect<void, SnapshotError> =>
  done === undefined ? Effect.void : session.acknowledgeThrough(done)

/**
 * One change after the other. What the function returns is acknowledged: mostly `nextLsn(change)` once the change is
 * stored, or `undefined` for "nothing durable yet". One covers everything delivered before it, so several transactions may
 * be gathered and the last one's returned.
 *
 * @example
 * withLogicalStream(options, Handler.each((change) => store(change).pipe(Effect.as(nextLsn(change)))))
 */
export const each = <C, E = never, R = never>(handle: Handle<C, E, R>): Handler<C, E, R> => ({
  make: (session) => {
    const from = (changes: ReadonlyArray<C>, begin: number): Effect.Effect<void, E | SnapshotError, R> => {
      for (let index = begin; index < changes.length; index++) {
        if (session.isOver()) return Effect.void
        const handled = handle(changes[index]!)
        // One that has ended already costs no step: of many changes nothing is kept but their `Commit`.
        if (Exit.isExit(handled) && Exit.isSuccess(handled) && handled.value === undefined) continue
        return Effect.flatMap(handled, (done) =>
          done === undefined
            ? from(changes, index + 1)
            : Effect.flatMap(session.acknowledgeThrough(done), () => from(changes, index + 1))
        )
      }
      return Effect.void
    }
    return Effect.succeed(({ changes }) => Effect.suspend(() => from(changes, 0)))
  }
})

/**
 * Many changes at a time: those of one read, in order, whatever transactions they belong to. The fastest way. The function
 * returns the `nextLsn` of the last unit that is durable.
 *
 * @example
 * withLogicalStream(options, Handler.arrays((changes) =>
 *   Effect.as(storeAll(changes), changes.map(nextLsn).findLast((done) => done !== undefined))))
 */
export const arrays = <C, E = never, R = never>(
  handle: (changes: NonEmptyReadonlyArray<C>) => Effect.Effect<Handled, E, R>
): Handler<C, E, R> => ({
  make: (session) =>
    Effect.succeed(({ changes }) =>
      Effect.suspend(() =>
        session.isOver() ? Effect.void : Effect.flatMap(handle(changes), (done) => acknowledged(session, done))
      )
    )
})

/**
 * Many changes at a time, all of them durable when the function has ended: nothing else need be said, of rows and the marks
 * among them neither.
 *
 * @example
 * withLogicalStream(options, Handler.durable((changes) => storeAll(changes)))
 */
export const durable = <C, E = never, R = never>(
  handle: (changes: NonEmptyReadonlyArray<C>) => Effect.Effect<unknown, E, R>
): Handler<C, E, R> => arrays((changes) => Effect.map(handle(changes), () => lastOf(changes)))

/** A change by itself, or beside the context of its transaction. Of whatever else a reader makes nothing is known. */
type Element = Parameters<typeof nextLsn>[0] | { readonly _tag?: undefined; readonly change?: Element } | undefined

const endOf = (element: Element): Handled => {
  if (element === undefined) return undefined
  return element._tag === undefined ? endOf(element.change) : nextLsn(element)
}

/** What acknowledges all of these: the last that ends a unit, behind which only a part of the next can be. */
const lastOf = (changes: ReadonlyArray<unknown>): Handled => {
  for (let index = changes.length - 1; index >= 0; index--) {
    const done = endOf(changes[index] as Element)
    if (done !== undefined) return done
  }
  return undefined
}

/**
 * Whole transactions. What the function finishes is acknowledged, nothing else need be said. One beyond the stream's
 * `memory.maxTransactionBytes` fails with `TransactionTooLarge` before it fills memory; a plugin that tells of what is only prepared is
 * refused.
 *
 * @example
 * withLogicalStream(options, Handler.transactions(({ changes, endLsn }) => sql.withTransaction(store(changes, endLsn))))
 */
export const transactions = <E = never, R = never>(
  handle: (transaction: Transaction) => Effect.Effect<unknown, E, R>
): Handler<Change, E | ReplicationError, R> => ({
  unfit: (plugin) => Option.getOrUndefined(Result.getFailure(wholeTransactions(plugin))),
  make: (session) =>
    Effect.sync(() => {
      const fold = new TransactionFold(session.maxTransactionBytes)
      return Effect.fnUntraced(function* ({ bytes, changes }) {
        const whole = fold.fold(changes, bytes)
        if (!Array.isArray(whole)) return yield* whole
        for (const transaction of whole) {
          if (session.isOver()) return
          yield* handle(transaction)
          yield* session.acknowledgeThrough(transaction.nextLsn)
        }
      })
    })
})

/** The handler that is meant. */
export const from = <C, E, R>(input: Input<C, E, R>): Handler<C, E, R> =>
  typeof input === "function" ? each(input) : input

/**
 * A reader before a handler: what every decoder is. Each read is read in one loop, and handed on where anything is left of
 * it. What came before a failure is handed on first, so that it can be finished and acknowledged.
 *
 * @example
 * const named = (name: string) => Handler.before(() => ({
 *   append: (changes: ReadonlyArray<Change>, out: Array<Insert>) => {
 *     for (const change of changes) if (change._tag === "Insert" && change.relation.name === name) out.push(change)
 *     return undefined
 *   }
 * }), handler)
 */
export const before = <In, Out, F, E, R>(
  makeReader: () => Reader<In, Out, F>,
  handler: Input<Out, E, R>
): Handler<In, E | F, R> => ({
  unfit: from(handler).unfit,
  position: from(handler).position,
  make: (session) =>
    Effect.map(from(handler).make(session), (consume) => {
      const reader = makeReader()
      return ({ bytes, changes }: Read<In>) =>
        Effect.suspend((): Effect.Effect<void, E | F | SnapshotError, R> => {
          const out: Array<Out> = []
          const failure = reader.append(changes, out)
          const handed =
            out.length === 0
              ? Effect.void
              : consume({ changes: out as ReadonlyArray<Out> as NonEmptyReadonlyArray<Out>, bytes })
          return failure === undefined ? handed : Effect.andThen(handed, Effect.fail(failure))
        })
    })
})
