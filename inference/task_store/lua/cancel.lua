-- outcome, ttl_ms, call, id, ... Gives unknown, finished or canceled for each.
-- `call` tells one call from others: when its answer got lost and it comes again, it gets the same answer.
local outcome, ttl, call = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local states = {}
for i = 4, #ARGV do
  local task = read(ARGV[i])
  if not task.status then
    states[#states + 1] = 'unknown'
  elseif TERMINAL[task.status] then
    states[#states + 1] = redis.call('HGET', record(task.id), 'canceled_by') == call and 'canceled' or 'finished'
  else
    redis.call('HSET', record(task.id), 'canceled_by', call)
    finish(task, 'canceled', outcome, ttl)
    states[#states + 1] = 'canceled'
  end
end
conclude()
return states
