-- sink, group, then entry id, task id, reason, ... A dead letter for the operator; the other sinks and records go on.
local sink, group = ARGV[1], ARGV[2]
local stream = k('outbox', sink)
for i = 3, #ARGV, 3 do
  local entry, id, reason = unpack(ARGV, i, i + 2)
  local key = record(id)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
  if redis.call('HGET', key, 'delivery:' .. sink) == 'pending' then
    redis.call('HSET', key, 'delivery:' .. sink, 'refused', 'refusal:' .. sink, reason)
    redis.call('ZADD', k('dead-letters'), now, id)
  end
end
return 1
