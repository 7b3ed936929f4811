-- Count the messages of a queue that no worker has taken, and delete them if that is asked for.
--
-- Keys (kombu's format), of one queue:
--   QUEUE, QUEUE\x06\x16STEP  list        messages without an owner, of each priority
-- and in addition, of each of these lists:
--   LIST\x06\x16turns         sorted set  owners with messages, and '' for the list itself
--   LIST\x06\x16of\x06\x16OWNER  list     messages of an owner
--
-- Arguments: 'delete', or nothing.
-- Answer: the number of messages.

local count = 0

local function take_in(list)
  count = count + redis.call('LLEN', list)
  if ARGV[1] == 'delete' then redis.call('DEL', list) end
end

for _, list in ipairs(KEYS) do
  take_in(list)
  for _, owner in ipairs(redis.call('ZRANGE', list .. '\6\22turns', 0, -1)) do
    if owner ~= '' then take_in(list .. '\6\22of\6\22' .. owner) end
  end
  if ARGV[1] == 'delete' then redis.call('DEL', list .. '\6\22turns') end
end
return count
