/** Which failures are replication's own, told from those of handlers. */
import * as Errors from "./ReplicationError.ts"

const classes = [
  Errors.ConnectionError,
  Errors.WalReceiverTimeout,
  Errors.AuthenticationFailed,
  Errors.PermissionDenied,
  Errors.LogicalDecodingDisabled,
  Errors.SlotInUse,
  Errors.SlotNotFound,
  Errors.SlotAlreadyExists,
  Errors.SlotInvalidated,
  Errors.SlotAheadOfCheckpoint,
  Errors.SlotCreationBlocked,
  Errors.SlotMismatch,
  Errors.PublicationNotFound,
  Errors.PublicationMismatch,
  Errors.InvalidOption,
  Errors.UnsupportedByServer,
  Errors.SystemMismatch,
  Errors.StandbyBehind,
  Errors.DecodeError,
  Errors.TransactionTooLarge,
  Errors.SpillFailed,
  Errors.ServerError
] as const

/** One that is listed above and missing here, or the other way round, does not type-check. */
const _: Errors.ReplicationError extends InstanceType<(typeof classes)[number]> ? true : never = true
void _

/** Whether a failure is one of replication's, and none of a handler's own. */
export const isReplicationError = (error: unknown): error is Errors.ReplicationError =>
  classes.some((errorClass) => error instanceof errorClass)
