-- @include "includes/delete_job_keys"
-- @include "includes/integer_text"
--[[
  forget_scheduler: delete a job scheduler and its next job, if that is delayed; gives whether there was one. A job that
  waits to be run or runs is left to do so.
]]
local function forget_scheduler(q, id)
  local due = redis.call('ZSCORE', q.schedulers, id)
  if not due then
    return false
  end
  local job_id = 'repeat:' .. id .. ':' .. integer_text(tonumber(due))
  if redis.call('ZREM', q.delayed, job_id) == 1 then
    delete_job_keys(q.base .. job_id)
    redis.call('XADD', q.events, '*', 'event', 'removed', 'jobId', job_id, 'prev', 'delayed')
  end
  redis.call('ZREM', q.schedulers, id)
  redis.call('DEL', q.base .. 'repeat:' .. id)
  return true
end
