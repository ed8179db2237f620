-- @include "includes/parent_of"
-- @include "includes/release_if_done"
--[[
  children_completed: hand the results of completed children to their parent and release it if none is left.

  `results` has for each child its key and its value.
]]
local function children_completed(parent_key, parent_json, results, now)
  local key, id, pq = parent_of(parent_key, parent_json)
  if not key then
    return
  end
  local children = {}
  for i = 1, #results, 2 do
    children[#children + 1] = results[i]
  end
  local is_pending = redis.call('SMISMEMBER', key .. ':dependencies', unpack(children))
  local leaving, processed = {}, {}
  for n, child in ipairs(children) do
    if is_pending[n] == 1 then
      leaving[#leaving + 1] = child
      processed[#processed + 1] = child
      processed[#processed + 1] = results[2 * n]
    end
  end
  if #leaving > 0 then
    redis.call('SREM', key .. ':dependencies', unpack(leaving))
    redis.call('HSET', key .. ':processed', unpack(processed))
    release_if_done(pq, id, now)
  end
end
