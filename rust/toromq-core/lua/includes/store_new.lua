--[[
  store_new: write the hash of a new job, and the event that says so. Returns the event's id.

  `given` has, from `at` on, the job's name, data, opts and timestamp; `more`, where there is anything, has delay and
  priority, parent_key and parent, and deduplication_id.
]]
local function store_new(q, id, given, at, more)
  local job_key, name = q.base .. id, given[at]
  local data, opts, timestamp, delay, priority = given[at + 1], given[at + 2], given[at + 3], '0', '0'
  if more then
    delay, priority = more.delay or delay, more.priority or priority
  end
  if more and more.parent_key then
    redis.call('HSET', job_key, 'name', name, 'data', data, 'opts', opts, 'timestamp', timestamp, 'delay', delay,
      'priority', priority, 'parentKey', more.parent_key, 'parent', more.parent)
  else
    redis.call('HSET', job_key, 'name', name, 'data', data, 'opts', opts, 'timestamp', timestamp, 'delay', delay,
      'priority', priority)
  end
  if more and more.deduplication_id then
    redis.call('HSET', job_key, 'deid', more.deduplication_id)
  end
  return redis.call('XADD', q.events, '*', 'event', 'added', 'jobId', id, 'name', name)
end
