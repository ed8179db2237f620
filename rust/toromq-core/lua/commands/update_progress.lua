--[[
  update_progress: store a job's progress and publish it.

  KEYS
    1 job     HASH    the job
    2 meta    HASH    settings of the queue
    3 events  STREAM  events of the queue
  ARGV
    1 job_id    string
    2 progress  JSON text
  RETURNS
    0            stored
    JOB_MISSING  there is no such job
  EVENTS
    progress
]]
local job, meta, events = KEYS[1], KEYS[2], KEYS[3]
local job_id, progress = ARGV[1], ARGV[2]
-- @include "includes/max_events"

if redis.call('EXISTS', job) == 0 then
  return CODE.JOB_MISSING
end
redis.call('HSET', job, 'progress', progress)
redis.call('XADD', events, 'MAXLEN', '~', max_events({ meta = meta }), '*', 'event', 'progress', 'jobId', job_id,
  'data', progress)
return 0
