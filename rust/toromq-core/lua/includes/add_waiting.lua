-- @include "includes/priority_score"
--[[
  add_waiting: queue a job by its priority, without marker or event. `first` puts a standard job where it runs next.
]]
local function add_waiting(q, id, priority, first)
  if priority > 0 then
    redis.call('ZADD', q.prioritized, priority_score(priority, redis.call('INCR', q.pc)), id)
  elseif first then
    redis.call('RPUSH', q.wait, id)
  else
    redis.call('LPUSH', q.wait, id)
  end
end
