-- id. Puts what sinks refused into their outbox again; gives how many sinks that are.
local id = ARGV[1]
local key = record(id)
local sinks = refusing_sinks(key)
for _, sink in ipairs(sinks) do
  redis.call('HSET', key, 'delivery:' .. sink, 'pending')
  redis.call('HDEL', key, 'refusal:' .. sink)
  redis.call('XADD', k('outbox', sink), '*', 'task_id', id)
end
if #sinks > 0 then redis.call('ZREM', k('dead-letters'), id) end
return #sinks
