--[[
  get_state: which state a job is in.

  KEYS
    1 completed         ZSET  ids of completed jobs
    2 failed            ZSET  ids of failed jobs
    3 delayed           ZSET  ids of delayed jobs
    4 prioritized       ZSET  ids of waiting jobs with a priority
    5 active            LIST  ids of active jobs
    6 wait              LIST  ids of waiting standard jobs
    7 paused            LIST  ids of jobs that an old client put aside while it paused the queue
    8 waiting_children  ZSET  ids of jobs that wait for their children
  ARGV
    1 job_id  string
  RETURNS
    name  completed, failed, delayed, prioritized, active, waiting, waiting-children or unknown
  EVENTS
    none
]]
local completed, failed, delayed, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local active, wait, paused, waiting_children = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local job_id = ARGV[1]

-- @include "includes/state_of"

return state_of({ completed = completed, failed = failed, delayed = delayed, prioritized = prioritized, active = active,
  wait = wait, paused = paused, waiting_children = waiting_children }, job_id)
