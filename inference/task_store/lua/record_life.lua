-- Return how long records live after their end.
--
-- Keys:
--   seq:lives        sorted set  times to live, ms, by the time of their last use, ms
--   seq:lives-since  string      time since which these are noted, ms; created
--
-- Arguments: ttl_ms of the caller.
-- Answer: the time since which times to live are noted, ms; the shortest time to live of the last day, ms.

note_life(tonumber(ARGV[1]))
local since = redis.call('GET', key('seq', 'lives-since'))
if not since then
  since = now
  redis.call('SET', key('seq', 'lives-since'), now)
end
local shortest = LIFE_MEMORY_MS - LIFE_ROUND_MS
for _, ttl in ipairs(redis.call('ZRANGEBYSCORE', lives, now - LIFE_MEMORY_MS, '+inf')) do
  shortest = math.min(shortest, tonumber(ttl))
end
return {tonumber(since), shortest}
