-- Remove members of a queue's sets whose record is gone or has another status: it was evicted, or ended by an older version of the
-- service that does not know the set.
--
-- Keys:
--   waiting:QUEUE  sorted set  tasks that wait; members are removed
--   urgent:QUEUE   sorted set  urgent waiting tasks; members are removed
--   running:QUEUE  set         tasks that run; members are removed
--   shares:QUEUE   hash        by owner, number of waiting tasks; deleted if no task waits
--   started:QUEUE  hash        by priority and owner, the highest number that has started; fields of owners without tasks are deleted
--   task:ID        hash        task record; read
--
-- Arguments: queue, limit: at most this many random members of each set, and fields of `started`, are examined.
-- Answer: the number of removed members.

local queue, limit = ARGV[1], ARGV[2]

local function forget(set_key, ids, status, remove)
  local gone = {}
  for _, id in ipairs(ids) do
    if redis.call('HGET', record(id), 'status') ~= status then gone[#gone + 1] = id end
  end
  call_with_all(gone, remove, set_key)
  return #gone
end

local running, waiting, urgent = key('running', queue), key('waiting', queue), key('urgent', queue)
local gone = forget(running, redis.call('SRANDMEMBER', running, limit), 'running', 'SREM')
  + forget(waiting, redis.call('ZRANDMEMBER', waiting, limit), 'queued', 'ZREM')
  + forget(urgent, redis.call('ZRANDMEMBER', urgent, limit), 'queued', 'ZREM')
-- No task waits, so no owner has one: those whose records are gone were not subtracted.
if redis.call('EXISTS', waiting) == 0 then redis.call('DEL', key('shares', queue)) end
-- The number of an owner is needed while tasks of the owner wait. Where owners take no turns, the highest number of a priority counts
-- for all owners: it stays.
local started, shares = key('started', queue), key('shares', queue)
local fields, highest = redis.call('HRANDFIELD', started, limit, 'WITHVALUES'), {}
for i = 1, #fields, 2 do
  local priority, number = string.match(fields[i], '^%d+'), tonumber(fields[i + 1])
  highest[priority] = math.max(highest[priority] or 0, number)
end
for i = 1, #fields, 2 do
  local priority, owner = string.match(fields[i], '^(%d+) (.+)$')
  if owner and tonumber(fields[i + 1]) < highest[priority] and redis.call('HEXISTS', shares, owner) == 0 then
    redis.call('HDEL', started, fields[i])
  end
end
return gone
