-- @include "includes/delayed_score"
--[[
  add_delayed: put a job among the delayed ones and say so. The caller marks the delay once it is done. Without
  `max_length` the events are left as long as they are.
]]
local function add_delayed(q, id, due, max_length)
  redis.call('ZADD', q.delayed, delayed_score(q, due), id)
  local due_text = string.format('%.15g', due)
  if max_length then
    redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'delayed', 'jobId', id, 'delay', due_text)
  else
    redis.call('XADD', q.events, '*', 'event', 'delayed', 'jobId', id, 'delay', due_text)
  end
end
