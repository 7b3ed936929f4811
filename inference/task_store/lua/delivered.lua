-- sink, group, ttl_ms, then entry id, task id, ...
local sink, group, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local stream = k('outbox', sink)
for i = 4, #ARGV, 2 do
  local entry, id = ARGV[i], ARGV[i + 1]
  local key = k('task', id)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
  if redis.call('HGET', key, 'delivery:' .. sink) == 'pending' then
    redis.call('HSET', key, 'delivery:' .. sink, 'delivered')
    if redis.call('HINCRBY', key, 'undelivered', -1) == 0 then let_expire(id, ttl) end
  end
end
return 1
