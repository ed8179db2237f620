--[[
  adopt_jobs: find jobs that were made active for a worker by a call whose reply was lost.

  KEYS
    1 active   LIST  ids of active jobs
    2 stalled  SET   ids suspected of having stalled
  ARGV
    1 base              string   qualified queue name with trailing colon
    2 worker_token      string   what all lock tokens of the worker begin with
    3 lock_duration_ms  integer  milliseconds
    4.. held            groups of one: id of a job the worker knows it has
  RETURNS
    {{id, token, flat hash}, ...}  jobs locked for the worker that it does not know of, their locks renewed
  EVENTS
    none
]]
local active, stalled = KEYS[1], KEYS[2]
local base, worker_token, lock_duration = ARGV[1], ARGV[2], ARGV[3]

local held = {}
for i = 4, #ARGV do
  held[ARGV[i]] = true
end
local adopted = {}
local ids = redis.call('LRANGE', active, 0, -1)
for first = 1, #ids, 1000 do
  local locks = {}
  for i = first, math.min(first + 999, #ids) do
    locks[#locks + 1] = base .. ids[i] .. ':lock'
  end
  for offset, token in ipairs(redis.call('MGET', unpack(locks))) do
    local id = ids[first + offset - 1]
    if token and string.sub(token, 1, #worker_token) == worker_token and not held[id] then
      local stored = redis.pcall('HGETALL', base .. id)
      if not stored.err then
        -- A full server refuses SET, and would keep us from draining it.
        redis.call('PEXPIRE', base .. id .. ':lock', lock_duration)
        redis.call('SREM', stalled, id)
        adopted[#adopted + 1] = { id, token, stored }
      end
    end
  end
end
return adopted
