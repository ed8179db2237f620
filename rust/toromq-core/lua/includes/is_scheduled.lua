--[[
  is_scheduled: whether a job is the next iteration of a job scheduler, which goes only with its scheduler.

  `scheduler` is the job's `rjk`.
]]
local function is_scheduled(q, id, scheduler)
  if not scheduler or scheduler == '' then
    return false
  end
  local due = redis.call('ZSCORE', q.base .. 'repeat', scheduler)
  return due ~= false and id == 'repeat:' .. scheduler .. ':' .. string.format('%.0f', tonumber(due))
end
