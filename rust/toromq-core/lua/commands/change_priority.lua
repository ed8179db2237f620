--[[
  change_priority: give a job another priority, and if it waits its place among the jobs of that priority.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 active       LIST    ids of active jobs
    3 prioritized  ZSET    ids of waiting jobs with a priority
    4 marker       ZSET    what waiting workers block on
    5 meta         HASH    settings of the queue
    6 pc           STRING  count of prioritized jobs
  ARGV
    1 base         string   qualified queue name with trailing colon
    2 id           string
    3 priority     integer  0 for a standard job
    4 lifo         "1" to be the next of its priority to run, or empty
  RETURNS
    0              done
    JOB_MISSING    the job's hash does not exist
  EVENTS
    none
]]
local wait, active, prioritized, marker, meta, pc = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local base, id, priority, lifo = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- @include "includes/add_waiting"
-- @include "includes/mark_base"
-- @include "includes/priority_score"

local q = { base = base, wait = wait, active = active, prioritized = prioritized, marker = marker, meta = meta, pc = pc }
local job_key = base .. id
if redis.call('EXISTS', job_key) == 0 then
  return CODE.JOB_MISSING
end
if redis.call('ZREM', prioritized, id) == 1 or redis.call('LREM', wait, -1, id) == 1 then
  local number = tonumber(priority)
  if number > 0 and lifo ~= '' then
    redis.call('ZADD', prioritized, priority_score(number, 0), id)
  else
    add_waiting(q, id, number, lifo ~= '')
  end
  mark_base(q)
end
redis.call('HSET', job_key, 'priority', priority)
return 0
