--[[
  new_batch: new jobs of a queue that are stored and still to be put where they wait. See gather_new and push_new.
]]
local function new_batch()
  return { waiting = {}, lifo = {}, prioritized = {}, any_waiting = false, any_delayed = false }
end
