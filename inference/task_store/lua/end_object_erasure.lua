-- Note that the objects of an erasure are deleted.
--
-- Keys:
--   erasures            hash  by erasure id, the objects to be deleted; the erasure leaves it
--   erasure:ERASURE_ID  hash  progress of an erasure; updated
--
-- Arguments: erasure id.

redis.call('HDEL', key('erasures'), ARGV[1])
if redis.call('EXISTS', key('erasure', ARGV[1])) == 1 then redis.call('HSET', key('erasure', ARGV[1]), 'pending:images', 0) end
return 1
