--[[
  remove_job_scheduler: delete a job scheduler and its next job, if that is delayed.

  KEYS
    1 repeat     ZSET    ids of job schedulers, by the time of their newest job
    2 delayed    ZSET    ids of delayed jobs
    3 events     STREAM  events of the queue
  ARGV
    1 base       string  qualified queue name with trailing colon
    2 scheduler  string  its id
  RETURNS
    0            there was none
    1            removed
  EVENTS
    removed
]]
local schedulers, delayed, events = KEYS[1], KEYS[2], KEYS[3]
local base, scheduler = ARGV[1], ARGV[2]
-- @include "includes/forget_scheduler"

return forget_scheduler({ base = base, schedulers = schedulers, delayed = delayed, events = events }, scheduler)
  and 1 or 0
