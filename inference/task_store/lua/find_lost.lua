-- queue, grace_ms, limit, then a priority, up_to, ... (up_to: acceptance number, or '+inf')
local queue, grace, limit = unpack(ARGV, 1, 3)
local lost = {}
local up_to, highest = {}, 0
for i = 4, #ARGV, 2 do
  up_to[ARGV[i]] = tonumber(ARGV[i + 1]) or math.huge
  highest = math.max(highest, up_to[ARGV[i]])
end
local bound = highest == math.huge and '+inf' or highest
for _, id in ipairs(redis.call('ZRANGEBYSCORE', k('waiting', queue), '-inf', bound, 'LIMIT', 0, limit)) do
  local key = k('task', id)
  local created, requeued, seq, priority = unpack(redis.call('HMGET', key, 'created_at', 'requeued_at', 'seq', 'priority'))
  local is_overtaken = created and tonumber(seq) <= (up_to[priority] or 0)
  if is_overtaken and not is_leased(id) and tonumber(requeued or created) + tonumber(grace) <= now then
    redis.call('HSET', key, 'requeued_at', now)
    lost[#lost + 1] = id
  end
end
return lost
