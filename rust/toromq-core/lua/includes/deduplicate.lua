-- @include "includes/add_delayed"
-- @include "includes/claim_deduplication"
-- @include "includes/delete_job_keys"
-- @include "includes/detach_child"
-- @include "includes/in_list"
--[[
  deduplicate: give a new job its deduplication id, or turn it down in favour of the job that owns it.

  `rule` has deduplication_id, and ttl, extend, replace, reschedule and keep_last where they are given; `job` has id, name,
  data, opts, timestamp and delay (as text). Returns nil where the job is to be stored, else { owner's id } or a code,
  the id of the last event, and whether the owner was delayed anew, in which case the caller marks the delay.
]]
local function deduplicate(q, rule, job, max_length)
  local owner_key = q.base .. 'de:' .. rule.deduplication_id
  local next_key = q.base .. 'dn:' .. rule.deduplication_id
  local given_ttl = tonumber(rule.ttl) or 0
  -- A window that waits for its owner to end does not end by itself.
  local ttl = rule.keep_last and 0 or given_ttl

  local owner = redis.pcall('GET', owner_key)
  if type(owner) == 'table' then
    return CODE.KEY_CORRUPT
  end
  if owner and rule.replace and redis.call('ZREM', q.delayed, owner) == 1 then
    local family = redis.call('HMGET', q.base .. owner, 'parentKey', 'parent')
    delete_job_keys(q.base .. owner)
    -- Only a job that was attached after it had been added has one. Other clients leave such a parent waiting for ever.
    detach_child(q.base .. owner, family[1], family[2])
    redis.call('XADD', q.events, '*', 'event', 'removed', 'jobId', owner, 'prev', 'delayed')
    -- The roles are those that every other client writes here: the job that stays, then the one that goes.
    redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'deduplicated', 'jobId', job.id,
      'deduplicationId', rule.deduplication_id, 'deduplicatedJobId', owner)
    redis.call('DEL', next_key)
    if ttl > 0 and not rule.extend then
      redis.call('SET', owner_key, job.id, 'KEEPTTL')
    else
      claim_deduplication(owner_key, job.id, ttl)
    end
    return nil
  end
  if owner and redis.call('EXISTS', q.base .. owner) == 0 and redis.call('PTTL', owner_key) == -1 then
    -- Its owner is gone, and nothing else would ever end this window.
    redis.call('DEL', owner_key, next_key)
    owner = nil
  end
  if not owner then
    claim_deduplication(owner_key, job.id, ttl)
    return nil
  end

  local keep = rule.keep_last and in_list(q.active, owner)
  if keep then
    redis.call('DEL', next_key)
    redis.call('HSET', next_key, 'name', job.name, 'data', job.data, 'opts', job.opts, 'jid', job.id)
    redis.call('PERSIST', owner_key)
  elseif rule.replace then
    return { owner }
  elseif rule.extend and given_ttl > 0 then
    claim_deduplication(owner_key, owner, ttl)
  end
  local event = redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'deduplicated', 'jobId', owner,
    'deduplicationId', rule.deduplication_id, 'deduplicatedJobId', job.id)
  if not keep and rule.reschedule and redis.call('ZSCORE', q.delayed, owner) then
    redis.call('HSET', q.base .. owner, 'delay', job.delay)
    add_delayed(q, owner, job.timestamp + tonumber(job.delay), max_length)
    return { owner }, event, true
  end
  return { owner }, event
end
