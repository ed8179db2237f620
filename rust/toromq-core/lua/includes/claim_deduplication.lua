--[[
  claim_deduplication: make a job the owner of a deduplication id, for `ttl` ms, or until it ends for 0.
]]
local function claim_deduplication(owner_key, id, ttl)
  if ttl > 0 then
    redis.call('SET', owner_key, id, 'PX', ttl)
  else
    redis.call('SET', owner_key, id)
  end
end
