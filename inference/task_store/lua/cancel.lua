-- outcome, ttl_ms, id, ... Gives unknown, finished or canceled for each.
local outcome, ttl = ARGV[1], tonumber(ARGV[2])
local states = {}
for i = 3, #ARGV do
  local task = read(ARGV[i])
  if not task.status then
    states[#states + 1] = 'unknown'
  elseif TERMINAL[task.status] then
    states[#states + 1] = 'finished'
  else
    finish(task, 'canceled', outcome, ttl)
    states[#states + 1] = 'canceled'
  end
end
conclude()
return states
