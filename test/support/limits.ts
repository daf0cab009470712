/**
 * What a wait is told apart from, in milliseconds. A machine may be many times as slow as the one a test was written on, so no
 * test says that something took a second: it says that it did not take as long as it would by any other way.
 */

/** The limit of silence that a stream has by default. One that was set to a second or two ends its wait before. */
export const defaultLimit = 30_000

/**
 * A server that stops waits for what it has sent to be confirmed. Was it not told at once, then with our next report, which is
 * due every ten seconds.
 */
export const nextReport = 9000
