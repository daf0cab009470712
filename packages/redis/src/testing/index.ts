/** A Redis to test against, from the machine's own `redis-server`: `@replicant/redis/testing`. */
export { RedisServer, RedisServerFailed, type RedisServerOptions, type RedisServerShape } from "./RedisServer.ts"
