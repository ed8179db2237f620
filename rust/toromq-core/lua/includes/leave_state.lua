--[[
  leave_state: take a job out of the state it is in; gives the name of the structure, or "unknown".
]]
local function leave_state(q, id)
  for _, name in ipairs({ 'completed', 'waiting-children', 'delayed', 'failed', 'prioritized' }) do
    if redis.call('ZREM', q.base .. name, id) == 1 then
      return name
    end
  end
  for _, name in ipairs({ 'wait', 'paused', 'active' }) do
    if redis.call('LREM', q.base .. name, 0, id) > 0 then
      return name
    end
  end
  return 'unknown'
end
