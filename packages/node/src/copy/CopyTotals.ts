/** What a copy has come to: counted by its writers, shown by whoever runs it. */

/** What has been done since the copy was started, over all of its sessions. */
export interface CopyTotals {
  /** Rows of the first copy. */
  rows: number
  /** Inserts, updates, deletes and truncates. */
  changes: number
  transactions: number
  /** Updates and deletes that met no row. */
  missing: number
}
