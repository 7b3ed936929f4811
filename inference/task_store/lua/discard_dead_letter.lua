-- id, ttl_ms
if redis.call('ZREM', k('dead-letters'), ARGV[1]) == 0 then return 0 end
let_expire(ARGV[1], tonumber(ARGV[2]))
settle_batches()
return 1
