/**
 * The name of a copy's slot, where none is given. Slots are of the whole cluster, so two databases of one need two names.
 */

/** As PostgreSQL has it: NAMEDATALEN - 1. */
const maxLength = 63

const prefix = "replicant_copy_"

/** Two databases that come to the same letters are told apart by a number that is made from the whole name. */
const digits = (text: string): string => {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return (hash >>> 0).toString(36)
}

/**
 * The slot of a copy of this database of the source, unless another is named. Names of slots have small letters, digits and
 * underscores alone.
 *
 * @example
 * defaultSlot("shop") // => "replicant_copy_shop"
 */
export const defaultSlot = (database: string): string => {
  const plain = `${prefix}${database.replaceAll(/[^a-z0-9_]/g, "_")}`
  if (plain === `${prefix}${database}` && plain.length <= maxLength) return plain
  const end = `_${digits(database)}`
  return `${plain.slice(0, maxLength - end.length)}${end}`
}
