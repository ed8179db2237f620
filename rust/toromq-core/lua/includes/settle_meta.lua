--[[
  settle_meta: write down a queue's settings where they are missing, and give the length its events are trimmed to.

  `wanted_length` replaces the stored one, `version` does not; both may be empty. What is_blocked asks for is read along.
]]
local function settle_meta(q, wanted_length, version)
  local stored = redis.call('HMGET', q.meta, 'paused', 'concurrency', 'opts.maxLenEvents', 'version')
  q.settings = stored
  local max_length = stored[3] or '10000'
  if wanted_length ~= '' then
    max_length = wanted_length
  end
  if stored[3] ~= max_length then
    redis.call('HSET', q.meta, 'opts.maxLenEvents', max_length)
  end
  if version ~= '' and not stored[4] then
    redis.call('HSET', q.meta, 'version', version)
  end
  return max_length
end
