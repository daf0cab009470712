/** `server_version_num` as PostgreSQL writes it. */

/**
 * A server's version for people.
 *
 * @example
 * formatVersion(180_004) // => "18.4"
 */
export const formatVersion = (serverVersion: number): string =>
  `${Math.floor(serverVersion / 10_000)}.${serverVersion % 10_000}`
