-- queue, grace_ms, limit, then 'all', or a priority and the acceptance number of its last that counts, ...
local queue, grace, limit = unpack(ARGV, 1, 3)
local all = ARGV[4] == 'all'
local up_to, highest = {}, 0
for i = 4, all and 0 or #ARGV, 2 do
  up_to[ARGV[i]] = tonumber(ARGV[i + 1])
  highest = math.max(highest, up_to[ARGV[i]])
end
local lost = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', k('waiting', queue), '-inf', all and '+inf' or highest, 'LIMIT', 0, limit)) do
  local key = record(id)
  local created, requeued, seq, priority = unpack(redis.call('HMGET', key, 'created_at', 'requeued_at', 'seq', 'priority'))
  local counts = created and (all or tonumber(seq) <= (up_to[priority] or 0))
  if counts and not is_leased(id) and tonumber(requeued or created) + tonumber(grace) <= now then
    redis.call('HSET', key, 'requeued_at', now)
    lost[#lost + 1] = id
  end
end
return lost
