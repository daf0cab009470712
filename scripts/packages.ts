/** What is published, as directories of `packages`, each after those that it needs. */
export const packages = ["core", "node", "nats", "redis"] as const
