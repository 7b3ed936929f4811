-- Claim messages: take them from their lists and note them as unacknowledged, in one step.
--
-- Keys (kombu's format, each with kombu's global key prefix), in this order:
--   unacked                hash        claimed messages by delivery tag: [message, exchange, routing key]; added to
--   unacked_index          sorted set  their delivery tags by time of the claim, s; added to
-- and for each queue:
--   QUEUE\x06\x16bell      list        wake-up list: an empty token wakes a waiting worker; pushed while messages are left
--   QUEUE                  list        messages of the highest priority; taken from
--   QUEUE\x06\x16STEP      list        messages of lower priorities; taken from after those of higher ones
-- and in addition, of each of these two kinds of lists:
--   LIST\x06\x16of\x06\x16OWNER  list  messages of an owner; taken from
--   LIST\x06\x16turns      sorted set  owners with messages, by their next turn, and '' for the list itself; updated
--
-- Owners take turns: the next message is that of the owner with the lowest turn, which grows by the number of its items. So owners with
-- waiting messages get equal numbers of items, however many wait, and between two messages of one owner each other owner has
-- at most about as many items. A message joins its owner's list, and an owner who had none the turns, in `push` of the task store's
-- _prelude.lua: after the lowest turn, so that the owner who has that is next in any case. The messages of a list that belong to no
-- owner (of other clients, or restored ones) have turns like those of one owner. Without owners there are no turns.
--
-- Arguments: now in s, limit in items, then the names of the queues.
-- Answer: 1 if several owners have turns, else 0; then for each message queue, delivery tag, message. A message that cannot be read
-- has an empty tag and is noted nowhere.

local unacked, index, now, limit, queues = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), #ARGV - 2
local keys_per_queue = (#KEYS - 2) / queues
local OF, TURNS = '\6\22of\6\22', '\6\22turns'
local claimed = {0}
local taken = 0

-- Returns the delivery tag, and how many items the message carries.
local function note(message, queue)
  local read, document = pcall(cjson.decode, message)
  if not read or type(document) ~= 'table' then return '', 1 end
  local properties = type(document.properties) == 'table' and document.properties or {}
  local tag, delivery = properties.delivery_tag, properties.delivery_info
  if type(tag) ~= 'string' or type(delivery) ~= 'table' then return '', 1 end
  -- The queue that it is restored to: if the message names none, the queue that it was in.
  local names = type(delivery.exchange) == 'string' and type(delivery.routing_key) == 'string' and delivery.routing_key ~= ''
  local exchange = cjson.encode(names and delivery.exchange or '')
  local routing_key = cjson.encode(names and delivery.routing_key or queue)
  redis.call('ZADD', index, now, tag)
  redis.call('HSET', unacked, tag, '[' .. message .. ',' .. exchange .. ',' .. routing_key .. ']')
  local items = type(document.headers) == 'table' and document.headers.items
  if type(items) ~= 'number' or not (items >= 1 and items <= 1024) then items = 1 end
  return tag, items
end

-- Returns the key of the turns of a list and how many there are, that of the messages of the list itself included; nil and 0
-- without owners.
local function read_turns(list)
  local turns = list .. TURNS
  local count = redis.call('ZCARD', turns)
  if count == 0 then return nil, 0 end
  if redis.call('LLEN', list) == 0 or redis.call('ZSCORE', turns, '') then return turns, count end
  redis.call('ZADD', turns, redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')[2] + 1, '')
  return turns, count + 1
end

-- Returns the owner whose turn it is, nil if nobody has turns, and the list to take a message from.
local function whose_turn(list, turns)
  local owner = turns and redis.call('ZRANGE', turns, 0, 0)[1]
  if not owner or owner == '' then return owner, list end
  return owner, list .. OF .. owner
end

-- Take a message; returns how many items it has, nil if there is none.
local function take(list, queue)
  local message = redis.call('RPOP', list)
  if not message then return nil end
  local tag, items = note(message, queue)
  claimed[#claimed + 1] = queue
  claimed[#claimed + 1] = tag
  claimed[#claimed + 1] = message
  taken = taken + items
  return items
end

local function end_turn(owner, list, turns, items)
  if redis.call('EXISTS', list) == 0 then
    redis.call('ZREM', turns, owner)
  else
    redis.call('ZINCRBY', turns, items, owner)
  end
end

local function take_in_turns(list, turns, queue)
  while taken < limit do
    local owner, from = whose_turn(list, turns)
    if not owner then return end
    end_turn(owner, from, turns, take(from, queue) or 0)
  end
end

-- Take messages that all have the same owner, or none.
local function take_in_order(list, turns, queue)
  local owner, from = whose_turn(list, turns)
  while taken < limit and take(from, queue) do end
  if owner and redis.call('EXISTS', from) == 0 then redis.call('ZREM', turns, owner) end
end

for number = 1, queues do
  local queue, left = ARGV[2 + number], 0
  local wake_up = 3 + (number - 1) * keys_per_queue
  for list = wake_up + 1, wake_up + keys_per_queue - 1 do
    local turns, count = read_turns(KEYS[list])
    if count > 1 then
      claimed[1] = 1
      take_in_turns(KEYS[list], turns, queue)
    else
      take_in_order(KEYS[list], turns, queue)
    end
    if taken >= limit then left = left + redis.call('LLEN', KEYS[list]) + (turns and redis.call('ZCARD', turns) or 0) end
  end
  -- This worker or another one claims the messages that are left.
  if left > 0 and redis.call('LLEN', KEYS[wake_up]) == 0 then redis.call('LPUSH', KEYS[wake_up], '') end
end
return claimed
