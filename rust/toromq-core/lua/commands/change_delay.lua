--[[
  change_delay: let a delayed job wait for another time, counted from now.

  KEYS
    1 delayed         ZSET    ids of delayed jobs
    2 marker          ZSET    what waiting workers block on
    3 meta            HASH    settings of the queue
    4 events          STREAM  events of the queue
  ARGV
    1 base            string   qualified queue name with trailing colon
    2 id              string
    3 now_ms          integer  milliseconds
    4 delay_ms        integer  milliseconds
  RETURNS
    0                 done
    JOB_MISSING       the job's hash does not exist
    JOB_NOT_IN_STATE  the job is not delayed
  EVENTS
    delayed
]]
local delayed, marker, meta, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local base, id, now, delay = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- @include "includes/add_delayed"
-- @include "includes/mark_delay"
-- @include "includes/max_events"

local q = { base = base, delayed = delayed, marker = marker, meta = meta, events = events }
local job_key = base .. id
if redis.call('EXISTS', job_key) == 0 then
  return CODE.JOB_MISSING
end
if not redis.call('ZSCORE', delayed, id) then
  return CODE.JOB_NOT_IN_STATE
end
local max_length = max_events(q)
-- The slot is looked for while the job still has its own, which is what every other client does.
add_delayed(q, id, now + tonumber(delay), max_length)
redis.call('HSET', job_key, 'delay', delay)
mark_delay(q)
return 0
