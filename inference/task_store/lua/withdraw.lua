-- Forget a batch, or tasks, if none of them has started; all or none.
--
-- Keys:
--   task:ID             hash        task record; deleted
--   image:ID            string      inline image; deleted
--   inline-bytes        string      bytes of all inline images; decreased
--   batch:BATCH_ID      string      items of a batch; deleted
--   waiting:QUEUE       sorted set  tasks that wait; the tasks leave it
--   urgent:QUEUE        sorted set  urgent waiting tasks; the tasks leave it
--   shares:QUEUE        hash        by owner, number of waiting tasks; decreased
--   open-tasks          hash        by owner, number of tasks that have not ended; decreased
--   deadlines           sorted set  task ids by deadline; the tasks leave it
--   request:REQUEST_ID  sorted set  tasks of a request id; the tasks leave it
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; the tasks leave it
--   owner:OWNER:use     hash        images and bytes that an owner has used today; decreased
--
-- The tasks were accepted together, so they have one owner and one time of acceptance.
--
-- Arguments: batch_id or '', bytes of all images as the request counted them, id, ...
-- Answer: 1 if they are forgotten, now or before; 0 if one is no longer queued.

for i = 3, #ARGV do
  local status = redis.call('HGET', record(ARGV[i]), 'status')
  if status and status ~= 'queued' then return 0 end
end
local images, bytes = {}, 0
local owner, accepted_at
for i = 3, #ARGV do
  local id = ARGV[i]
  local queue, request_id, image_bytes, owned_by, created_at =
    unpack(redis.call('HMGET', record(id), 'queue', 'request_id', 'image_bytes', 'owner', 'created_at'))
  if queue then
    owner, accepted_at = owned_by, tonumber(created_at)
    count_waiting(owner, queue, -1)
    count_open(owner, -1)
    redis.call('ZREM', key('waiting', queue), id)
    redis.call('ZREM', key('urgent', queue), id)
    redis.call('ZREM', key('deadlines'), id)
    for _, index in ipairs(request_indexes(request_id, owner)) do redis.call('ZREM', index, id) end
    redis.call('DEL', record(id))
    images[#images + 1] = image(id)
    bytes = bytes + (image_bytes or 0)
  end
end
flush_counts()
if owner and owner ~= '' then
  local use = key('owner', owner, 'use')
  local day = redis.call('HGET', use, 'day')
  if day and accepted_at and accepted_at >= tonumber(day) then -- else these images were counted on a day that has ended
    redis.call('HINCRBY', use, 'images', -#images)
    redis.call('HINCRBY', use, 'bytes', -tonumber(ARGV[2]))
  end
end
delete_images(images, bytes)
if ARGV[1] ~= '' then redis.call('DEL', key('batch', ARGV[1])) end
return 1
