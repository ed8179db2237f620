--[[
  activate_job: lock a job for a worker, count the start and read all that is stored of it.

  Returns attempts started, the flat hash as it was before, and whether its failure was decided while it waited; or nil
  and the reason where the key is no job. An id without a hash gets one that any client can read, so that the worker can
  fail it in the open instead of losing it.
]]
local function activate_job(q, id, now_text, token, lock_duration, worker_name)
  local job_key = q.base .. id
  local stored = redis.pcall('HGETALL', job_key)
  if stored.err then
    return nil, stored.err
  end
  local started = 1
  local deferred = false
  for i = 1, #stored, 2 do
    local field = stored[i]
    if field == 'ats' then
      started = (tonumber(stored[i + 1]) or 0) + 1
    elseif field == 'defa' then
      deferred = true
    end
  end
  if #stored == 0 then
    redis.call('HSET', job_key, 'name', 'unknown', 'data', '{}', 'opts', '{}', 'timestamp', now_text, 'delay', 0,
      'priority', 0, 'defa', 'the job was queued but its hash was missing; there is nothing to run')
  end
  redis.call('SET', job_key .. ':lock', token, 'PX', lock_duration)
  if worker_name ~= '' then
    redis.call('HSET', job_key, 'processedOn', now_text, 'ats', started, 'pb', worker_name)
  else
    redis.call('HSET', job_key, 'processedOn', now_text, 'ats', started)
  end
  redis.call('XADD', q.events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
  return started, stored, deferred
end
