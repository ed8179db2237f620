-- @include "includes/delayed_score"
--[[
  add_delayed: put a job among the delayed ones and say so. The caller marks the delay once it is done.
]]
local function add_delayed(q, id, due, max_length)
  redis.call('ZADD', q.delayed, delayed_score(q, due), id)
  redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'delayed', 'jobId', id,
    'delay', string.format('%.15g', due))
end
