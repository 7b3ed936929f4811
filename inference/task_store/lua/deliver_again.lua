-- id. Puts what sinks refused into their outbox again; gives how many sinks that are.
local id = ARGV[1]
local key = record(id)
local refused = deliveries_in_state(key, 'refused')
for _, delivery in ipairs(refused) do
  local sink = string.match(delivery, '^delivery:(.+)$')
  redis.call('HSET', key, delivery, 'pending')
  redis.call('HDEL', key, 'refusal:' .. sink)
  redis.call('XADD', k('outbox', sink), '*', 'task_id', id)
end
if #refused > 0 then redis.call('ZREM', k('dead-letters'), id) end
return #refused
