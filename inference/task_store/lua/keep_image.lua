-- id, ttl_ms, max_count, image. Gives 1 where the image of a task is kept until the object store takes it.
local id, ttl, max_count, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
if redis.call('EXISTS', record(id)) == 0 then return 0 end
redis.call('HSET', record(id), 'unstored', 1)
if redis.call('ZCARD', k('unstored')) >= max_count then return 0 end
redis.call('SET', k('unstored', id), bytes, 'PX', ttl)
redis.call('ZADD', k('unstored'), now, id)
return 1
