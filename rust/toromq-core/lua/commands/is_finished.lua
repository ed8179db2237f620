--[[
  is_finished: whether jobs have ended, how, and since when that is known.

  KEYS
    1 completed  ZSET    ids of completed jobs
    2 failed     ZSET    ids of failed jobs
    3 events     STREAM  events of the queue
  ARGV
    1 base    string  qualified queue name with trailing colon
    2.. jobs  groups of one: id
  RETURNS
    {last_id, {code, text}, ...}  last_id: of the newest event, 0-0 if there never was one; what later events say is
                                  newer than this reply. Of each job in the order asked: 1 and its returnvalue, 2 and
                                  its failedReason, 0 for one that has not ended, or
    JOB_MISSING                   there is no such job
    JOB_CORRUPT                   its key holds no hash
  EVENTS
    none
]]
local completed, failed, events = KEYS[1], KEYS[2], KEYS[3]
local base = ARGV[1]
-- @include "includes/stream_end"

local reply = { stream_end(events).last_id }
for i = 2, #ARGV do
  local id = ARGV[i]
  local job = base .. id
  local code, text = 0, false
  if redis.call('EXISTS', job) == 0 then
    code = CODE.JOB_MISSING
  elseif redis.call('ZSCORE', completed, id) then
    code, text = 1, redis.pcall('HGET', job, 'returnvalue')
  elseif redis.call('ZSCORE', failed, id) then
    code, text = 2, redis.pcall('HGET', job, 'failedReason')
  end
  -- Not an error of the whole call: others are asked for with it.
  if type(text) == 'table' then
    code, text = CODE.JOB_CORRUPT, false
  end
  reply[i] = { code, text }
end
return reply
