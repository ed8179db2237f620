-- @include "includes/integer_text"
--[[
  delayed_score: the score for a job due at `due` (ms), behind those already due in the same millisecond.

  A millisecond has 4096 slots, so that jobs due together keep the order in which they came.
]]
local function delayed_score(q, due)
  local low = due * 4096
  local high = (due + 1) * 4096 - 1
  local last = redis.call('ZREVRANGEBYSCORE', q.delayed, integer_text(high), integer_text(low),
    'WITHSCORES', 'LIMIT', 0, 1)
  if last[2] then
    local score = tonumber(last[2]) + 1
    if score > high then
      score = high
    end
    return integer_text(score)
  end
  return integer_text(low)
end
