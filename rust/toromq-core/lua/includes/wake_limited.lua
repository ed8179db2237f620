--[[
  wake_limited: tell every worker that sleeps until a rate limit ends to look again now.

  They read this stream, where each of them sees the same entry, and which goes by itself: whoever falls asleep later learns
  of the new limit by its fetch. A key of another type in its place (a job's own id) is left alone.
]]
local function wake_limited(limiter_wake)
  local written = redis.pcall('XADD', limiter_wake, 'MAXLEN', 1, '*', 'limit', 'changed')
  if type(written) ~= 'table' or not written.err then
    redis.call('PEXPIRE', limiter_wake, 1000)
  end
end
