-- Forget a late image that `keep_image` kept.
--
-- Keys:
--   unstored:ID  string      the image; deleted
--   unstored     sorted set  tasks with a late image; the task leaves it
--   task:ID      hash        task record; `unstored` is removed
--
-- Arguments: id, is_stored (1: the object store has taken it).

local id, is_stored = ARGV[1], ARGV[2]
redis.call('DEL', key('unstored', id))
redis.call('ZREM', key('unstored'), id)
if is_stored == '1' then redis.call('HDEL', record(id), 'unstored') end
return 1
