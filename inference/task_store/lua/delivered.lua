-- sink, group, ttl_ms, then entry id, task id, ...
local sink, group, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local stream, delivery = k('outbox', sink), 'delivery:' .. sink
local entries = {}
for i = 4, #ARGV, 2 do
  entries[#entries + 1] = ARGV[i]
  local id = ARGV[i + 1]
  local key = k('task', id)
  local state, undelivered = unpack(redis.call('HMGET', key, delivery, 'undelivered'))
  if state == 'pending' then
    redis.call('HSET', key, delivery, 'delivered', 'undelivered', undelivered - 1)
    if tonumber(undelivered) == 1 then let_expire(id, ttl) end
  end
end
call_with_all(entries, 'XACK', stream, group)
call_with_all(entries, 'XDEL', stream)
return 1
