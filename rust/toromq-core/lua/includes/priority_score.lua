-- @include "includes/integer_text"
--[[
  priority_score: the score for a job of this priority, given its place in the queue's count of prioritized jobs.

  Place 0 is the front of the priority.
]]
local function priority_score(priority, place)
  return integer_text(priority * 4294967296 + place % 4294967296)
end
