-- @include "includes/drop_job"
-- @include "includes/integer_text"
--[[
  keep_finished: apply a keep policy to the completed or failed jobs.

  `policy` has count, age (seconds) and limit, each of them optional. At most `limit` jobs (1000 where none is given) go
  for their age in one call; the count is kept exactly.
]]
local function keep_finished(q, finished, policy, now)
  if policy.age then
    local oldest = integer_text(now - policy.age * 1000)
    local expired = redis.call('ZREVRANGEBYSCORE', finished, oldest, '-inf', 'LIMIT', 0, policy.limit or 1000)
    for _, id in ipairs(expired) do
      drop_job(q.base .. id)
      redis.call('ZREM', finished, id)
    end
  end
  if policy.count and policy.count > 0 then
    local surplus = redis.call('ZREVRANGE', finished, policy.count, -1)
    for _, id in ipairs(surplus) do
      drop_job(q.base .. id)
    end
    if #surplus > 0 then
      redis.call('ZREMRANGEBYRANK', finished, 0, -(policy.count + 1))
    end
  end
end
