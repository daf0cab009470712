/**
 * What Redis runs by itself, in one step that nothing comes between: compare and append, and opening. Each answers with a word, and
 * what belongs to it.
 *
 * A script that fails midway keeps what it has written. So all that could fail is looked at first: what kind of key there is, and
 * where a stream ends. Whether there is memory is decided before a script begins, for all of it.
 */

/** KEYS: the mark. ARGV: the family whose place is taken, or nothing; the epoch that begins, `<family>.<writer>`. */
export const open = `
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if ARGV[1] ~= '' and string.match(epoch or '', '^[^.]*') ~= ARGV[1] then return {'fenced', epoch or ''} end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
local held = redis.call('HMGET', KEYS[1], 'id', 'system')
return {'open', ARGV[2], held[1] or '', held[2] or ''}`

/**
 * KEYS: the mark, then each stream. ARGV: epoch, predecessor, last, system, MAXLEN (0 for none), the version of messages; then three of
 * each message: its head, its key and its value. A head is `<index in KEYS> <id> <place> <op> <k or -><v or ->`, as what is not
 * there is no empty text. Three, and not a dozen, as each argument costs the client more than its bytes.
 *
 * Ids are two numbers of 64 bits, more than a number of Lua holds: they are compared as text.
 */
export const append = `
local held = redis.call('HMGET', KEYS[1], 'epoch', 'id')
if held[1] ~= ARGV[1] then return {'fenced', held[1] or ''} end
if (held[2] or '') ~= ARGV[2] then return {'predecessor', held[2] or ''} end
local function less(a, b) return #a < #b or (#a == #b and a < b) end
local last = {}
for i = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind == 'stream' then
    local info = redis.call('XINFO', 'STREAM', KEYS[i])
    for f = 1, #info, 2 do if info[f] == 'last-generated-id' then last[i] = info[f + 1] end end
  elseif kind ~= 'none' then
    return {'kind', KEYS[i], kind}
  end
end
local heads = {}
for at = 7, #ARGV, 3 do
  local index, id, place, op, has = string.match(ARGV[at], '^(%d+) (%S+) (%S+) (%S+) (%S+)$')
  local key = tonumber(index)
  heads[at] = {key, id, place, op, has}
  if last[key] then
    local a, b = string.match(last[key], '(%d+)-(%d+)')
    local c, d = string.match(id, '(%d+)-(%d+)')
    if not (less(a, c) or (a == c and less(b, d))) then return {'ahead', KEYS[key], last[key]} end
    last[key] = nil
  end
end
for at = 7, #ARGV, 3 do
  local key, id, place, op, has = unpack(heads[at])
  local entry = {KEYS[key]}
  if ARGV[5] ~= '0' then entry = {KEYS[key], 'MAXLEN', '~', ARGV[5]} end
  local n = #entry
  entry[n + 1] = id
  entry[n + 2], entry[n + 3] = 'replicant-id', place
  entry[n + 4], entry[n + 5] = 'replicant-op', op
  entry[n + 6], entry[n + 7] = 'replicant-v', ARGV[6]
  if string.sub(has, 1, 1) == 'k' then entry[#entry + 1] = 'key' entry[#entry + 1] = ARGV[at + 1] end
  if string.sub(has, 2, 2) == 'v' then entry[#entry + 1] = 'value' entry[#entry + 1] = ARGV[at + 2] end
  redis.call('XADD', unpack(entry))
end
redis.call('HSET', KEYS[1], 'id', ARGV[3], 'system', ARGV[4])
return {'appended'}`
