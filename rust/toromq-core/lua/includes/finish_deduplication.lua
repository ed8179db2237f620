-- @include "includes/add_delayed"
-- @include "includes/add_waiting"
-- @include "includes/mark_base"
-- @include "includes/mark_delay"
--[[
  finish_deduplication: close the deduplication window of a job that finished, and queue the job that was kept back for
  its end, if there is one.
]]
local function finish_deduplication(q, id, deduplication_id, now, max_length)
  local owner_key = q.base .. 'de:' .. deduplication_id
  local ttl = redis.call('PTTL', owner_key)
  if ttl == 0 or (ttl == -1 and redis.call('GET', owner_key) == id) then
    redis.call('DEL', owner_key)
  end
  local next_key = q.base .. 'dn:' .. deduplication_id
  local kept = redis.call('HMGET', next_key, 'name', 'data', 'opts', 'jid', 'pk', 'pd', 'pdk', 'rjk')
  if not kept[1] then
    return
  end
  local counter = redis.call('INCR', q.base .. 'id')
  local next_id = kept[4] or tostring(counter)
  if redis.call('EXISTS', q.base .. next_id) == 1 then
    -- Somebody took the id meanwhile. A number is as good as any other; an own id means that very job, which is there.
    if string.match(next_id, '%D') then
      redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'duplicated', 'jobId', next_id)
      redis.call('DEL', next_key)
      return
    end
    next_id = tostring(counter)
    while redis.call('EXISTS', q.base .. next_id) == 1 do
      next_id = tostring(redis.call('INCR', q.base .. 'id'))
    end
  end
  local ok, opts = pcall(cjson.decode, kept[3] or '{}')
  if not ok or type(opts) ~= 'table' then
    opts = {}
  end
  local delay = tonumber(opts.delay) or 0
  local priority = tonumber(opts.priority) or 0
  local fields = { 'name', kept[1], 'data', kept[2] or '{}', 'opts', kept[3] or '{}',
    'timestamp', string.format('%.0f', now), 'delay', string.format('%.15g', delay),
    'priority', string.format('%.0f', priority), 'deid', deduplication_id }
  if kept[5] then
    fields[#fields + 1] = 'parentKey'
    fields[#fields + 1] = kept[5]
    fields[#fields + 1] = 'parent'
    fields[#fields + 1] = kept[6] or '{}'
  end
  if kept[8] then
    fields[#fields + 1] = 'rjk'
    fields[#fields + 1] = kept[8]
  end
  redis.call('SET', owner_key, next_id)
  redis.call('HSET', q.base .. next_id, unpack(fields))
  redis.call('XADD', q.events, '*', 'event', 'added', 'jobId', next_id, 'name', kept[1])
  if delay ~= 0 then
    add_delayed(q, next_id, now + delay, max_length)
    mark_delay(q)
  else
    add_waiting(q, next_id, priority, opts.lifo == true)
    mark_base(q)
    redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', next_id)
  end
  if kept[7] then
    redis.call('SADD', kept[7], q.base .. next_id)
  end
  redis.call('DEL', next_key)
end
