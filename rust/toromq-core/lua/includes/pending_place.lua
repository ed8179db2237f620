-- @include "includes/in_list"
--[[
  pending_place: where a job is that is delayed or waits to be run, or nil.

  A paused queue keeps its jobs in `wait`, and clients before it had them in `paused`.
]]
local function pending_place(q, id)
  if redis.call('EXISTS', q.base .. id) == 0 then
    return nil
  end
  for _, name in ipairs({ 'delayed', 'prioritized' }) do
    if redis.call('ZSCORE', q[name], id) then
      return name
    end
  end
  for _, name in ipairs({ 'wait', 'paused' }) do
    if in_list(q[name], id) then
      return name
    end
  end
  return nil
end
