--[[
  extend_locks: push back the expiry of locks that the caller still holds.

  KEYS
    1 stalled  SET  ids suspected of having stalled
  ARGV
    1 base              string   qualified queue name with trailing colon
    2 lock_duration_ms  integer  milliseconds
    3.. jobs            groups of two: id, token
  RETURNS
    {{id, code}, ...}  jobs whose lock is not the caller's any more, and why
    LOCK_MISSING       the lock had run out
    LOCK_MISMATCH      another worker holds it
  EVENTS
    none
]]
local stalled = KEYS[1]
local base, lock_duration = ARGV[1], ARGV[2]

local lost, kept, lock_keys = {}, {}, {}
for i = 3, #ARGV, 2 do
  lock_keys[#lock_keys + 1] = base .. ARGV[i] .. ':lock'
end
local locks = redis.call('MGET', unpack(lock_keys))
for n, lock_key in ipairs(lock_keys) do
  local id, token = ARGV[1 + 2 * n], ARGV[2 + 2 * n]
  if locks[n] == token then
    -- Not SET: a server that is out of memory refuses that, and a running job would lose its lock for no fault of its own.
    redis.call('PEXPIRE', lock_key, lock_duration)
    kept[#kept + 1] = id
  else
    lost[#lost + 1] = { id, locks[n] and CODE.LOCK_MISMATCH or CODE.LOCK_MISSING }
  end
end
if #kept > 0 then
  redis.call('SREM', stalled, unpack(kept))
end
return lost
