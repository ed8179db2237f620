--[[
  settle_meta: write down a queue's settings where they are missing, and give the length its events are trimmed to.

  `wanted_length` replaces the stored one, `version` does not; both may be empty.
]]
local function settle_meta(meta, wanted_length, version)
  local stored = redis.call('HMGET', meta, 'opts.maxLenEvents', 'version')
  local max_length = stored[1] or '10000'
  if wanted_length ~= '' then
    max_length = wanted_length
  end
  if stored[1] ~= max_length then
    redis.call('HSET', meta, 'opts.maxLenEvents', max_length)
  end
  if version ~= '' and not stored[2] then
    redis.call('HSET', meta, 'version', version)
  end
  return max_length
end
