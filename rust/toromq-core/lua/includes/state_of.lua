-- @include "includes/in_list"
--[[
  state_of: which state a job of a queue is in.
]]
local function state_of(q, job_id)
  if redis.call('ZSCORE', q.completed, job_id) then
    return 'completed'
  elseif redis.call('ZSCORE', q.failed, job_id) then
    return 'failed'
  elseif redis.call('ZSCORE', q.delayed, job_id) then
    return 'delayed'
  elseif redis.call('ZSCORE', q.prioritized, job_id) then
    return 'prioritized'
  elseif in_list(q.active, job_id) then
    return 'active'
  elseif in_list(q.wait, job_id) or in_list(q.paused, job_id) then
    return 'waiting'
  elseif redis.call('ZSCORE', q.waiting_children, job_id) then
    return 'waiting-children'
  end
  return 'unknown'
end
