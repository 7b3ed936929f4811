-- id. Puts what sinks refused into their outbox again; gives how many sinks that are.
local id = ARGV[1]
local key = record(id)
local again = 0
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local sink = string.match(fields[i], '^delivery:(.+)$')
  if sink and fields[i + 1] == 'refused' then
    redis.call('HSET', key, 'delivery:' .. sink, 'pending')
    redis.call('HDEL', key, 'refusal:' .. sink)
    redis.call('XADD', k('outbox', sink), '*', 'task_id', id)
    again = again + 1
  end
end
if again > 0 then redis.call('ZREM', k('dead-letters'), id) end
return again
