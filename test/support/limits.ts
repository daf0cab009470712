/**
 * What a wait is told apart from, where a clock would tell nothing: a machine may be many times as slow as the one a test was
 * written on.
 */

/**
 * A stream that says nothing because it is time to: no report when one is due, no acknowledgement, no ping, and no demand of
 * the server's. What is told all the same is told since somebody asked; and who waits for what was not, waits for ever.
 */
export const unhurried = {
  timing: { statusInterval: 0, receiverTimeout: 0, acknowledgeDelay: "1 hour" },
  settings: { wal_sender_timeout: 0 }
} as const
