-- ttl_ms of the caller. Gives since when, ms, it is noted how long records live, and how long the shortest of the last day lives, ms.
note_life(tonumber(ARGV[1]))
local since = redis.call('GET', k('seq', 'lives-since'))
if not since then
  since = now
  redis.call('SET', k('seq', 'lives-since'), now)
end
local shortest = LIFE_MEMORY_MS - LIFE_ROUND_MS
for _, ttl in ipairs(redis.call('ZRANGEBYSCORE', lives, now - LIFE_MEMORY_MS, '+inf')) do
  shortest = math.min(shortest, tonumber(ttl))
end
return {tonumber(since), shortest}
