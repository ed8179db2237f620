--[[
  is_locked_tree: whether a job, or with `children` any pending one below it, is being run by a worker.

  Jobs that were given new parents may stand below each other, so each is looked at once.
]]
local function is_locked_tree(job_key, children)
  local stack = { job_key }
  local seen = { [job_key] = true }
  while #stack > 0 do
    local key = stack[#stack]
    stack[#stack] = nil
    if redis.call('EXISTS', key .. ':lock') == 1 then
      return true
    end
    if children then
      for _, child in ipairs(redis.call('SMEMBERS', key .. ':dependencies')) do
        if not seen[child] then
          seen[child] = true
          stack[#stack + 1] = child
        end
      end
    end
  end
  return false
end
