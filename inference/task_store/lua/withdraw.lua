-- batch_id or '', id, ... All or nothing: gives 1 where they are forgotten, now or before, 0 where one is queued no more.
for i = 2, #ARGV do
  local status = redis.call('HGET', record(ARGV[i]), 'status')
  if status and status ~= 'queued' then return 0 end
end
local images = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local queue, request_id = unpack(redis.call('HMGET', record(id), 'queue', 'request_id'))
  if queue then
    redis.call('ZREM', k('waiting', queue), id)
    redis.call('ZREM', k('urgent', queue), id)
    redis.call('ZREM', k('deadlines'), id)
    redis.call('ZREM', k('request', request_id), id)
    redis.call('DEL', record(id))
    images[#images + 1] = image(id)
  end
end
delete_images(images)
if ARGV[1] ~= '' then redis.call('DEL', k('batch', ARGV[1])) end
return 1
