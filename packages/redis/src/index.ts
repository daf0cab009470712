/** The public surface of `@replicant/redis`. */
export * as RedisSink from "./sink/RedisSink.ts"
export * as RedisSource from "./sink/RedisSource.ts"
