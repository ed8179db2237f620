--[[
  is_kept_pending: whether a pending child is one that stays when the pending ones go: a worker runs it, or it has failed
  and its parent still waits for it.
]]
local function is_kept_pending(cq, child_id, child_key)
  return redis.call('EXISTS', child_key .. ':lock') == 1 or redis.call('ZSCORE', cq.failed, child_id) ~= false
end
