--[[
  move_to_waiting_children: let an active job wait for its children, if any is pending.

  KEYS
    1 active            LIST    ids of active jobs
    2 waiting_children  ZSET    ids of jobs that wait for their children
    3 stalled           SET     ids suspected of having stalled
    4 events            STREAM  events of the queue
  ARGV
    1 base     string   qualified queue name with trailing colon
    2 job_id   string
    3 token    string   the lock's token
    4 now_ms   integer  milliseconds
    5 child    string   full key of the one child to wait for, or empty for all
    6 started  integer  attempts started, when sent again because the reply was lost, or empty
  RETURNS
    0                 it waits
    1                 there is nothing to wait for; it is active and locked as before
    JOB_MISSING       the job's hash does not exist
    FAILED_CHILDREN   a child failed that fails its parent
    LOCK_MISSING      the lock had run out
    LOCK_MISMATCH     another worker holds the lock
    JOB_NOT_IN_STATE  the job is not active
  EVENTS
    waiting-children
]]
local active, waiting_children, stalled, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local base, id, token, now_text, child, started = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
-- @include "includes/in_list"

local job_key = base .. id
if redis.call('EXISTS', job_key) == 0 then
  return CODE.JOB_MISSING
end
local lock = redis.call('GET', job_key .. ':lock')
if started and lock ~= token then
  -- It left already, as it was told, or was begun again since.
  if (tonumber(redis.call('HGET', job_key, 'ats')) or 0) > started or not in_list(active, id) then
    return 0
  end
end
if redis.call('ZCARD', job_key .. ':unsuccessful') > 0 then
  return CODE.FAILED_CHILDREN
end
local pending = job_key .. ':dependencies'
if child ~= '' then
  if redis.call('SISMEMBER', pending, child) == 0 then
    return 1
  end
elseif redis.call('SCARD', pending) == 0 then
  return 1
end
if not lock then
  return CODE.LOCK_MISSING
end
if lock ~= token then
  return CODE.LOCK_MISMATCH
end
-- Fails before anything is written where one of them is something else; after that the job would be in no state.
redis.call('XLEN', events)
redis.call('ZCARD', waiting_children)
redis.call('DEL', job_key .. ':lock')
redis.call('SREM', stalled, id)
if redis.call('LREM', active, -1, id) == 0 then
  return CODE.JOB_NOT_IN_STATE
end
redis.call('ZADD', waiting_children, now_text, id)
redis.call('XADD', events, '*', 'event', 'waiting-children', 'jobId', id, 'prev', 'active')
return 0
