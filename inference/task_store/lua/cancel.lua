-- outcome, ttl_ms, id, ... Gives unknown, finished or canceled for each.
local outcome, ttl = ARGV[1], tonumber(ARGV[2])
local states = {}
for i = 3, #ARGV do
  local status = redis.call('HGET', k('task', ARGV[i]), 'status')
  if not status then
    states[#states + 1] = 'unknown'
  elseif TERMINAL[status] then
    states[#states + 1] = 'finished'
  else
    finish(ARGV[i], 'canceled', outcome, ttl)
    states[#states + 1] = 'canceled'
  end
end
conclude()
return states
