-- Put a result into the outbox again, for each sink that refused it.
--
-- Keys:
--   task:ID       hash        task record; `delivery:SINK` is pending again
--   outbox:SINK   stream      gets the task id
--   dead-letters  sorted set  the task leaves it
--
-- Arguments: id.
-- Answer: the number of sinks.

local id = ARGV[1]
local record_key = record(id)
local sinks = refusing_sinks(record_key)
for _, sink in ipairs(sinks) do
  redis.call('HSET', record_key, 'delivery:' .. sink, 'pending')
  redis.call('HDEL', record_key, 'refusal:' .. sink)
  redis.call('XADD', key('outbox', sink), '*', 'task_id', id)
end
if #sinks > 0 then redis.call('ZREM', key('dead-letters'), id) end
return #sinks
