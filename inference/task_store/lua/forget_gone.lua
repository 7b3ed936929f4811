-- queue, limit. Removes members of the queue's sets whose record is gone or says something else, of at most `limit` of each set,
-- at random: the record was evicted, or ended by a version that does not know the set. Gives how many they were.
local queue, limit = ARGV[1], ARGV[2]

local function forget(key, ids, status, remove)
  local gone = {}
  for _, id in ipairs(ids) do
    if redis.call('HGET', record(id), 'status') ~= status then gone[#gone + 1] = id end
  end
  call_with_all(gone, remove, key)
  return #gone
end

local running, waiting, urgent = k('running', queue), k('waiting', queue), k('urgent', queue)
return forget(running, redis.call('SRANDMEMBER', running, limit), 'running', 'SREM')
  + forget(waiting, redis.call('ZRANDMEMBER', waiting, limit), 'queued', 'ZREM')
  + forget(urgent, redis.call('ZRANDMEMBER', urgent, limit), 'queued', 'ZREM')
