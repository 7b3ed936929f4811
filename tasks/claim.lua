-- Claim messages: take them from their lists and note them as unacknowledged, in one step.
--
-- Keys (kombu's format; each behind kombu's global key prefix, KEYS[1]):
--   QUEUE                  list        messages of the highest priority; taken from
--   QUEUE\x06\x16STEP      list        messages of lower priorities; taken from
--   QUEUE\x06\x16bell      list        a token that wakes another waiting worker; pushed while messages are left
--   unacked                hash        claimed messages by delivery tag; added to, acknowledged ones removed
--   unacked_index          sorted set  their delivery tags by time of the claim, s; as above
--
-- Arguments: unacked hash, unacked index, now in s, limit in items, lists a queue, how many tags of acknowledged messages, the tags,
-- then for each queue: name, bell, its lists by priority.
-- Answer: how many messages are left; then for each message queue, delivery tag, message. A message that cannot be read has an empty
-- tag and is noted nowhere.

local prefix = KEYS[1]
local unacked, index, now, limit, steps = prefix .. ARGV[1], prefix .. ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local first_queue = 7 + tonumber(ARGV[6])
local claimed = {0}
local taken = 0

-- Gives the tag, and how many items the message carries.
local function note(message, queue)
  local read, document = pcall(cjson.decode, message)
  if not read or type(document) ~= 'table' then return '', 1 end
  local properties = type(document.properties) == 'table' and document.properties or {}
  local tag, delivery = properties.delivery_tag, properties.delivery_info
  if type(tag) ~= 'string' or type(delivery) ~= 'table' then return '', 1 end
  -- It may be restored: to the queue that it is in, where it names none.
  local names = type(delivery.exchange) == 'string' and type(delivery.routing_key) == 'string' and delivery.routing_key ~= ''
  local exchange = cjson.encode(names and delivery.exchange or '')
  local routing_key = cjson.encode(names and delivery.routing_key or queue)
  redis.call('ZADD', index, now, tag)
  redis.call('HSET', unacked, tag, '[' .. message .. ',' .. exchange .. ',' .. routing_key .. ']')
  local items = type(document.headers) == 'table' and document.headers.items
  if type(items) ~= 'number' or not (items >= 1 and items <= 1024) then items = 1 end
  return tag, items
end

for start = 7, first_queue - 1, 1000 do -- Lua cannot pass on more than some thousand at a time
  local stop = math.min(start + 999, first_queue - 1)
  redis.call('ZREM', index, unpack(ARGV, start, stop))
  redis.call('HDEL', unacked, unpack(ARGV, start, stop))
end

for at = first_queue, #ARGV, steps + 2 do
  local left = 0
  for step = at + 2, at + 1 + steps do
    local list = prefix .. ARGV[step]
    while taken < limit do
      local message = redis.call('RPOP', list)
      if not message then break end
      local tag, items = note(message, ARGV[at])
      claimed[#claimed + 1] = ARGV[at]
      claimed[#claimed + 1] = tag
      claimed[#claimed + 1] = message
      taken = taken + items
    end
    if taken >= limit then left = left + redis.call('LLEN', list) end
  end
  -- For another worker that waits.
  local bell = prefix .. ARGV[at + 1]
  if left > 0 and redis.call('LLEN', bell) == 0 then redis.call('LPUSH', bell, '') end
  claimed[1] = claimed[1] + left
end
return claimed
