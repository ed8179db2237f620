-- @include "includes/parent_of"
-- @include "includes/release_if_done"
--[[
  attach_existing: make a job that is there already the child of a parent. Returns 0 or a code.

  Its result counts for the new parent where it has completed; in every other state, failed too, the parent waits for it.
]]
local function attach_existing(q, id, parent_key, parent_json, now)
  local job_key = q.base .. id
  local old = redis.pcall('HGET', job_key, 'parentKey')
  if type(old) == 'table' then
    return CODE.KEY_CORRUPT
  end
  if old and old ~= parent_key and redis.call('EXISTS', old) == 1 then
    return CODE.OTHER_PARENT
  end
  if redis.call('ZSCORE', q.completed, id) then
    redis.call('HSET', parent_key .. ':processed', job_key, redis.call('HGET', job_key, 'returnvalue') or 'null')
    local _, parent_id, pq = parent_of(parent_key, parent_json)
    release_if_done(pq, parent_id, now)
  else
    redis.call('SADD', parent_key .. ':dependencies', job_key)
  end
  redis.call('HSET', job_key, 'parentKey', parent_key, 'parent', parent_json)
  return 0
end
