--[[
  read_flow: jobs of a tree, of any queues, at one moment: each with the keys of its children.

  KEYS
    1 meta         HASH     settings of the first job's queue
  ARGV
    1 children     integer  how many children of each outcome to name; 0 for none
    2 states       "1" to tell the state of each job, or empty
    3.. jobs       groups of one: full key
  RETURNS
    {{base, id, state, flat hash, {key, ...}}, ...}  for each job its queue's qualified name with a trailing colon, and
                     its children: the completed ones, the pending ones, the failed ones, and those whose failure was
                     ignored; an empty hash where there is no such job
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

local reply = {}
for i = 3, #ARGV do
  local key = ARGV[i]
  local q, id = split_job_key(key)
  local stored = q and redis.pcall('HGETALL', key) or {}
  stored = stored.err and {} or stored
  local children = {}
  if most > 0 and #stored > 0 then
    for _, structure in ipairs({ { 'HSCAN', ':processed', 2 }, { 'SSCAN', ':dependencies', 1 },
      { 'ZSCAN', ':unsuccessful', 2 }, { 'HSCAN', ':failed', 2 } }) do
      for _, child in ipairs(some_of(structure[1], key .. structure[2], structure[3])) do
        children[#children + 1] = child
      end
    end
  end
  reply[#reply + 1] = { q and q.base or '', id or '', with_states and #stored > 0 and state_of(q, id) or '', stored,
    children }
end
return reply
