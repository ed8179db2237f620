--[[
  attach_existing: make a job that is there already the child of a parent. Returns nil, or a code; and whether it has
  completed, so that the parent may be done with.

  Its result counts for the new parent where it has completed; in every other state, failed too, the parent waits for it.
]]
local function attach_existing(q, id, parent_key, parent_json)
  local job_key = q.base .. id
  local old = redis.pcall('HGET', job_key, 'parentKey')
  if type(old) == 'table' then
    return CODE.KEY_CORRUPT
  end
  if old and old ~= parent_key and redis.call('EXISTS', old) == 1 then
    return CODE.OTHER_PARENT
  end
  local completed = redis.call('ZSCORE', q.completed, id)
  if completed then
    redis.call('HSET', parent_key .. ':processed', job_key, redis.call('HGET', job_key, 'returnvalue') or 'null')
  else
    redis.call('SADD', parent_key .. ':dependencies', job_key)
  end
  redis.call('HSET', job_key, 'parentKey', parent_key, 'parent', parent_json)
  return nil, completed
end
