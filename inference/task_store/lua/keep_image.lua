-- Keep a late image until the object store takes it.
--
-- Keys:
--   unstored:ID  string      the image; created
--   unstored     sorted set  tasks with a late image, by time, ms; added to
--   task:ID      hash        task record; `unstored` is set
--
-- Arguments: id, ttl_ms, max_count, image.
-- Answer: 1, or 0 if the task has no record, or `max_count` images are kept already.

local id, ttl, max_count, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
if redis.call('EXISTS', record(id)) == 0 then return 0 end
redis.call('HSET', record(id), 'unstored', 1)
if redis.call('ZCARD', key('unstored')) >= max_count then return 0 end
redis.call('SET', key('unstored', id), bytes, 'PX', ttl)
redis.call('ZADD', key('unstored'), now, id)
return 1
