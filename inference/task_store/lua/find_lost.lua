-- queue, up_to, grace_ms, limit
local queue, up_to, grace, limit = unpack(ARGV)
local lost = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', k('waiting', queue), '-inf', up_to, 'LIMIT', 0, limit)) do
  local key = k('task', id)
  local created, requeued = unpack(redis.call('HMGET', key, 'created_at', 'requeued_at'))
  if created and not is_leased(id) and tonumber(requeued or created) + tonumber(grace) <= now then
    redis.call('HSET', key, 'requeued_at', now)
    lost[#lost + 1] = id
  end
end
return lost
