--[[
  get_job_schedulers: the job schedulers of a queue by the time of their newest job, or one of them.

  A listed id without a record is forgotten, and its delayed job with it. What looks like the work of an old client is
  only left out.

  KEYS
    1 repeat     ZSET    ids of job schedulers, by the time of their newest job
    2 delayed    ZSET    ids of delayed jobs
    3 events     STREAM  events of the queue
  ARGV
    1 base       string   qualified queue name with trailing colon
    2 scheduler  string   the id of the only one that is wanted, or empty
    3 start      integer  first place, from 0
    4 last       integer  last place, -1 for the end
    5 asc        string   "1" for the soonest first, or empty
  RETURNS
    {{id, time, flat hash}, ...}
  EVENTS
    removed
]]
local schedulers, delayed, events = KEYS[1], KEYS[2], KEYS[3]
local base, scheduler, start, last, asc = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] ~= ''
-- @include "includes/forget_scheduler"
-- @include "includes/looks_legacy"

local q = { base = base, schedulers = schedulers, delayed = delayed, events = events }
local listed
if scheduler ~= '' then
  listed = { scheduler, redis.call('ZSCORE', schedulers, scheduler) or nil }
else
  listed = redis.call(asc and 'ZRANGE' or 'ZREVRANGE', schedulers, start, last, 'WITHSCORES')
end
local found = {}
for i = 1, #listed, 2 do
  local id, due = listed[i], listed[i + 1]
  local record = redis.pcall('HGETALL', base .. 'repeat:' .. id)
  if record.err or not due then
    record = {}
  elseif #record > 0 then
    found[#found + 1] = { id, due, record }
  elseif scheduler == '' and not looks_legacy(id) then
    forget_scheduler(q, id)
  end
end
return found
