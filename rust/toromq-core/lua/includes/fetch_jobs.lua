-- @include "includes/settings_of"
-- @include "includes/take_waiting"
-- @include "includes/activate_job"
-- @include "includes/integer_text"
--[[
  fetch_jobs: up to `want` jobs become active for one worker.

  `claim` has token, lock_duration, worker_name, limiter_max and limiter_duration (the last two optional), is_look:
  whether nothing else was done in this call, and standard: where it was seen that no job is delayed or has a priority, the
  ids that take_waiting would read.
  Returns { jobs, rate limit ms, next due ms, quarantined, blocked }: jobs packed in one or more pieces, as lists of id,
  attempts started and flat hash as it was before, for each job, where large values are false and stand in a list of their
  own behind the pieces; the time until the rate limit ends that allows no more
  jobs now, 0 without one; when the next delayed job is due, 0 without one; ids and reasons of keys that were no jobs
  and were taken out; 1 where the queue is paused or at its global concurrency.
]]
local function fetch_jobs(q, now, want, claim)
  local settings = settings_of(q)
  local blocked = settings[1] ~= false
  local concurrency = tonumber(settings[2])
  if concurrency then
    local free = concurrency - redis.call('LLEN', q.active)
    blocked = blocked or free <= 0
    want = math.min(want, free)
  end
  -- One call tells what is nearly always true: that jobs wait nowhere else.
  local is_plain = claim.standard or redis.call('EXISTS', q.delayed, q.prioritized, q.pc) == 0
  local due = 0
  if not is_plain then
    local first = redis.call('ZRANGE', q.delayed, 0, 0, 'WITHSCORES')
    if first[2] and tonumber(first[2]) < (now + 1) * 4096 then
      -- @include "includes/promote_due"
      promote_due(q, now, blocked)
      first = redis.call('ZRANGE', q.delayed, 0, 0, 'WITHSCORES')
    end
    due = first[2] and math.floor(tonumber(first[2]) / 4096) or 0
  end

  local max_jobs = tonumber(settings[4]) or claim.limiter_max
  local duration = claim.limiter_duration or tonumber(settings[5])
  local allowed = want
  -- A limit without a window can't be applied: counting would leave a counter that never expires.
  if max_jobs and max_jobs > 0 and duration then
    local counter = tonumber(redis.call('GET', q.limiter)) or 0
    local ttl = counter > 0 and redis.call('PTTL', q.limiter) or -2
    if ttl == 0 then
      redis.call('DEL', q.limiter)
      ttl = -2
      counter = 0
    end
    if max_jobs <= counter and ttl > 0 then
      return { {}, ttl, 0, {}, 0 }
    end
    if ttl ~= -1 then
      allowed = max_jobs - counter
    end
  else
    max_jobs = nil
  end

  -- One string that Lua's library packs costs Redis half of what a reply of as many parts does: 2 us a job. What is large
  -- is not packed: to copy it and to hash it once more costs 4 us for 10 KB.
  local LARGE = 1024
  local pieces, piece, size, large = {}, {}, 0, {}
  local taken = 0
  local quarantined = {}
  local limited = 0
  if not blocked then
    local now_text = integer_text(now)
    local counted = 0
    while taken < want and counted < allowed do
      local asked = math.min(want - taken, allowed - counted)
      local ids = take_waiting(q, asked, is_plain, claim)
      for _, id in ipairs(ids) do
        -- Before markers had a key of their own they stood among the waiting ids, beginning with "0:".
        if string.sub(id, 1, 2) ~= '0:' or redis.call('EXISTS', q.base .. id) == 1 then
          local started, stored, deferred = activate_job(q, id, now_text, claim.token, claim.lock_duration,
            claim.worker_name)
          if started then
            taken = taken + 1
            local at = #piece
            piece[at + 1], piece[at + 2], piece[at + 3] = id, started, stored
            for i = 2, #stored, 2 do
              if #stored[i] > LARGE then
                large[#large + 1] = stored[i]
                stored[i] = false
              else
                size = size + #stored[i]
              end
            end
            if size > 65536 then
              pieces[#pieces + 1] = cmsgpack.pack(piece)
              piece, size = {}, 0
            end
            if not deferred then
              counted = counted + 1
            end
          else
            quarantined[#quarantined + 1] = { id, stored }
            redis.call('LREM', q.active, 1, id)
          end
        else
          redis.call('LREM', q.active, 1, id)
        end
      end
      if #ids < asked then
        break
      end
    end
    if #piece > 0 then
      pieces[#pieces + 1] = cmsgpack.pack(piece)
    end
    if #large > 0 then
      pieces[#pieces + 1] = large
    end
    if taken > 0 then
      redis.call('ZADD', q.marker, 0, '0')
      if max_jobs and counted > 0 and redis.call('INCRBY', q.limiter, counted) == counted then
        redis.call('PEXPIRE', q.limiter, integer_text(math.floor(math.abs(duration))))
      end
    end
    if max_jobs and taken < want and counted >= allowed then
      -- Told now, so that the worker need not ask again to learn how long to wait.
      limited = math.max(0, redis.call('PTTL', q.limiter))
    end
  end
  return { pieces, limited, due, quarantined, blocked and 1 or 0 }
end
