--[[
  drop_deduplication: a job goes away, and with it the deduplication window it owns and what was kept back for its end.
]]
local function drop_deduplication(q, id, deduplication_id)
  local owner_key = q.base .. 'de:' .. deduplication_id
  if redis.call('GET', owner_key) == id then
    redis.call('DEL', owner_key, q.base .. 'dn:' .. deduplication_id)
  end
end
