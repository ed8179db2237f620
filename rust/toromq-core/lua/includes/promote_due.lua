-- @include "includes/add_waiting"
-- @include "includes/integer_text"
--[[
  promote_due: delayed jobs whose time has come, at most 1000 of them, go to where jobs wait.

  `blocked` says whether a marker would wake a worker for nothing.
]]
local function promote_due(q, now, blocked)
  local due = redis.call('ZRANGEBYSCORE', q.delayed, 0, integer_text((now + 1) * 4096 - 1), 'LIMIT', 0, 1000)
  if #due == 0 then
    return
  end
  for _, id in ipairs(due) do
    local job_key = q.base .. id
    local priority = redis.pcall('HGET', job_key, 'priority')
    -- A key of another type would stop every other job here; the fetch sorts such an id out.
    if type(priority) == 'table' and priority.err then
      redis.call('LPUSH', q.wait, id)
      redis.call('ZREM', q.delayed, id)
    else
      -- One by one and in this order: an error in the middle takes no job from everywhere.
      add_waiting(q, id, tonumber(priority) or 0, false)
      redis.call('ZREM', q.delayed, id)
      redis.call('XADD', q.events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'delayed')
      if priority or redis.call('EXISTS', job_key) == 1 then
        redis.call('HSET', job_key, 'delay', 0)
      end
    end
  end
  if not blocked then
    redis.call('ZADD', q.marker, 0, '0')
  end
end
