/**
 * What Redis runs by itself, in one step that nothing comes between: compare and append, and opening. Each answers with a word, and
 * what belongs to it.
 *
 * A script that fails midway keeps what it has written. So all that could fail is looked at first: what kind of key there is, and
 * where a stream ends. Whether there is memory is decided before a script begins, for all of it.
 */

/** KEYS: the mark. ARGV: the epoch that is taken over, or nothing. */
export const open = `
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if ARGV[1] ~= '' and epoch ~= ARGV[1] then return {'fenced', epoch or ''} end
local now = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
local held = redis.call('HMGET', KEYS[1], 'id', 'system')
return {'open', tostring(now), held[1] or '', held[2] or ''}`

/**
 * KEYS: the mark, then each stream. ARGV: epoch, predecessor, last, system, MAXLEN (0 for none); then of each message the index of
 * its stream in KEYS, its stream id, how many fields follow, and those.
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
local at = 6
while at <= #ARGV do
  local key, id, fields = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
  if last[key] then
    local a, b = string.match(last[key], '(%d+)-(%d+)')
    local c, d = string.match(id, '(%d+)-(%d+)')
    if not (less(a, c) or (a == c and less(b, d))) then return {'ahead', KEYS[key], last[key]} end
    last[key] = nil
  end
  at = at + 3 + fields
end
at = 6
while at <= #ARGV do
  local key, id, fields = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
  if ARGV[5] == '0' then
    redis.call('XADD', KEYS[key], id, unpack(ARGV, at + 3, at + 2 + fields))
  else
    redis.call('XADD', KEYS[key], 'MAXLEN', '~', ARGV[5], id, unpack(ARGV, at + 3, at + 2 + fields))
  end
  at = at + 3 + fields
end
redis.call('HSET', KEYS[1], 'id', ARGV[3], 'system', ARGV[4])
return {'appended'}`
