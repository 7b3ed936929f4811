-- id, is_stored. Forgets an image that `keep_image` kept.
local id, is_stored = ARGV[1], ARGV[2]
redis.call('DEL', k('unstored', id))
redis.call('ZREM', k('unstored'), id)
if is_stored == '1' then redis.call('HDEL', record(id), 'unstored') end
return 1
