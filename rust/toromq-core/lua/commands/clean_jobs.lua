--[[
  clean_jobs: delete jobs of one state, a slice of them in a call: for cleaning, draining and obliterating.

  Jobs that are passed over stay where they are; the caller says how many there were so far, so that the next call goes
  on behind them. Jobs are looked at from the one that runs next, or the one that finished first.

  KEYS
    1 state_key     LIST or ZSET  ids of jobs in this state
    2 events        STREAM        events of the queue
  ARGV
    1 base          string   qualified queue name with trailing colon
    2 slice         integer  how many jobs to look at
    3 limit         integer  how many jobs to delete
    4 passed        integer  how many jobs the calls before passed over
    5 cutoff        integer  spare jobs that are younger (ms), or empty
    6 stamps        names of the fields that tell a job's age, comma-separated, the first present one counts; empty where
                    the score tells it
    7 locked        "delete", "spare" or "ignore": what happens to locks and those who have one
    8 scheduled     "1" to delete the next iteration of job schedulers as well, or empty
    9 announced     integer  how many jobs the calls before deleted, to be told at the end; empty to tell nothing
  RETURNS
    {more, passed, {id, ...}}  more: 1 when some were not looked at; passed: how many are passed over by now
  EVENTS
    cleaned
]]
local state_key, events = KEYS[1], KEYS[2]
local base, slice, limit, passed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local cutoff, stamps, locked, scheduled, announced = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8], ARGV[9]
-- @include "includes/detach_hard"
-- @include "includes/drop_deduplication"
-- @include "includes/delete_job_keys"
-- @include "includes/is_scheduled"
-- @include "includes/integer_text"

local q = { base = base }
-- What no id is: ids are texts.
local GONE = '\255gone'
local is_list = redis.call('TYPE', state_key)['ok'] == 'list'
local by_score = not is_list and stamps == ''
local ids
if is_list then
  local page = redis.call('LRANGE', state_key, -(passed + slice), -(passed + 1))
  ids = {}
  for i = #page, 1, -1 do
    ids[#ids + 1] = page[i]
  end
elseif by_score and cutoff then
  ids = redis.call('ZRANGEBYSCORE', state_key, '-inf', integer_text(cutoff), 'LIMIT', passed, slice)
else
  ids = redis.call('ZRANGE', state_key, passed, passed + slice - 1)
end

local fields = { 'parentKey', 'parent', 'deid', 'rjk' }
for name in string.gmatch(stamps, '[^,]+') do
  fields[#fields + 1] = name
end

-- Whether a job is too young to go.
local function is_young(job)
  if not cutoff or by_score then
    return false
  end
  for i = 5, #fields do
    if job[i] then
      return (tonumber(job[i]) or 0) > cutoff
    end
  end
  return false
end

local deleted, places, kept, looked_at = {}, {}, {}, 0
for place, id in ipairs(ids) do
  if #deleted == limit then
    break
  end
  looked_at = looked_at + 1
  local job_key = base .. id
  local job = redis.pcall('HMGET', job_key, unpack(fields))
  if job.err then
    -- A key of another type is none of ours; only its place in the state goes.
    deleted[#deleted + 1], places[#places + 1] = id, place
  elseif (locked == 'spare' and redis.call('EXISTS', job_key .. ':lock') == 1)
    or (scheduled == '' and is_scheduled(q, id, job[4])) or is_young(job) then
    kept[#kept + 1] = id
  else
    deleted[#deleted + 1], places[#places + 1] = id, place
    if job[1] then
      detach_hard(q, job_key, job[1], job[2])
    end
    if job[3] then
      drop_deduplication(q, id, job[3])
    end
    delete_job_keys(job_key)
    if locked == 'delete' then
      redis.call('DEL', job_key .. ':lock')
    end
  end
end

if #deleted > 0 then
  if not is_list then
    redis.call('ZREM', state_key, unpack(deleted))
  elseif #kept == 0 and passed == 0 then
    redis.call('LTRIM', state_key, 0, -(#deleted + 1))
  else
    -- Marked first and then taken out together: to look for each of them costs a walk past all that were spared.
    for _, place in ipairs(places) do
      redis.call('LSET', state_key, -(passed + place), GONE)
    end
    redis.call('LREM', state_key, -#deleted, GONE)
  end
end
local more = (looked_at < #ids or #ids == slice) and #deleted < limit
if announced ~= '' and not more then
  redis.call('XADD', events, '*', 'event', 'cleaned', 'count', tonumber(announced) + #deleted)
end
return { more and 1 or 0, passed + #kept, deleted }
