--[[
  remove_orphans: delete those of the given jobs that are in no state: nothing would ever run or list them.

  The caller finds the candidates by a scan. What is no job (settings, series, job schedulers) is left alone.

  KEYS
    1 wait              LIST  ids of waiting standard jobs
    2 paused            LIST  ids of jobs that an old client put aside while it paused the queue
    3 active            LIST  ids of active jobs
    4 prioritized       ZSET  ids of waiting jobs with a priority
    5 delayed           ZSET  ids of delayed jobs
    6 waiting_children  ZSET  ids of jobs that wait for their children
    7 completed         ZSET  ids of completed jobs
    8 failed            ZSET  ids of failed jobs
  ARGV
    1 base              string  qualified queue name with trailing colon
    2 limit             integer  how many jobs to delete at most
    3.. ids             groups of one: id
  RETURNS
    n                   how many jobs were deleted
  EVENTS
    none
]]
local wait, paused, active, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local delayed, waiting_children, completed, failed = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local base, limit = ARGV[1], tonumber(ARGV[2])
-- @include "includes/delete_job_keys"
-- @include "includes/drop_deduplication"
-- @include "includes/in_list"

local q = { base = base }
local function is_in_a_state(id)
  for _, key in ipairs({ completed, failed, delayed, prioritized, waiting_children }) do
    if redis.call('ZSCORE', key, id) then
      return true
    end
  end
  return in_list(active, id) or in_list(wait, id) or in_list(paused, id)
end

local removed = 0
for i = 3, #ARGV do
  if removed == limit then
    break
  end
  local id = ARGV[i]
  local job_key = base .. id
  local job = redis.pcall('HMGET', job_key, 'name', 'data', 'timestamp', 'ic', 'deid', 'jid')
  -- A job has all of the first three; a job scheduler counts its iterations, and what waits for its turn has its id.
  if not job.err and job[1] and job[2] and job[3] and not job[4] and not job[6]
    and redis.call('EXISTS', job_key .. ':lock') == 0 and not is_in_a_state(id) then
    if job[5] then
      drop_deduplication(q, id, job[5])
    end
    delete_job_keys(job_key)
    removed = removed + 1
  end
end
return removed
