--[[
  read_flow: jobs of a tree, of any queues, at one moment: each with the keys of its children.

  KEYS
    1 meta         HASH     settings of the first job's queue
  ARGV
    1 children     integer  how many children of each outcome to name; 0 for none
    2 states       "1" to tell the state of each job and how many children it has, or empty
    3.. jobs       groups of one: full key
  RETURNS
    {{base, id, state, flat hash, {key, ...}, count}, ...}  for each job its queue's qualified name with a trailing
                     colon, and its children: the completed ones, the pending ones, the failed ones, and those whose
                     failure was ignored; an empty hash where there is no such job
  EVENTS
    none
]]
local meta = KEYS[1]
local most, with_states = tonumber(ARGV[1]), ARGV[2] ~= ''
-- @include "includes/split_job_key"
-- @include "includes/state_of"

redis.call('EXISTS', meta)

-- Up to `most` members of one structure, the same ones as long as it stays as it is.
local function some_of(command, key, step)
  local found, cursor = {}, '0'
  repeat
    local page = redis.pcall(command, key, cursor, 'COUNT', most)
    if page.err then
      return found
    end
    cursor = page[1]
    for i = 1, #page[2], step do
      if #found < most then
        found[#found + 1] = page[2][i]
      end
    end
  until cursor == '0' or #found >= most
  table.sort(found)
  return found
end

local structures = { { 'HSCAN', ':processed', 2, 'HLEN' }, { 'SSCAN', ':dependencies', 1, 'SCARD' },
  { 'ZSCAN', ':unsuccessful', 2, 'ZCARD' }, { 'HSCAN', ':failed', 2, 'HLEN' } }
local reply = {}
for i = 3, #ARGV do
  local key = ARGV[i]
  local q, id = split_job_key(key)
  local stored = q and redis.pcall('HGETALL', key) or {}
  stored = stored.err and {} or stored
  local children, state, count = {}, '', 0
  for _, structure in ipairs(#stored > 0 and structures or {}) do
    local scan, suffix, step, size = unpack(structure)
    if most > 0 then
      for _, child in ipairs(some_of(scan, key .. suffix, step)) do
        children[#children + 1] = child
      end
    end
    if with_states then
      local found = redis.pcall(size, key .. suffix)
      count = count + (tonumber(found) or 0)
    end
  end
  if with_states and #stored > 0 then
    state = state_of(q, id)
  end
  reply[#reply + 1] = { q and q.base or '', id or '', state, stored, children, count }
end
return reply
