-- id, ttl_ms
if redis.call('ZREM', k('dead-letters'), ARGV[1]) == 0 then return 0 end
let_expire(ARGV[1], tonumber(ARGV[2]), unpack(redis.call('HMGET', record(ARGV[1]), 'request_id', 'seq', 'batch')))
settle_batches()
return 1
