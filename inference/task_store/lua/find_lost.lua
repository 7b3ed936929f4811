-- Find waiting tasks whose message is lost.
--
-- Keys:
--   waiting:QUEUE              sorted set  tasks that wait, by acceptance number; read
--   task:ID                    hash        task record; `requeued_at` is set
--   leases                     sorted set  task ids by end of the lease, ms; read
--   lost-looked-to:QUEUE:WALK  string      acceptance number after which the next call continues
--
-- Each call examines `limit` tasks and continues where the last call stopped; after the last task it starts at the oldest again. So
-- a long queue is examined in several calls. The two kinds of call (WALK is `all` or `overtaken`) have a position each, or the
-- shorter walk would end the longer one too early.
--
-- Arguments: queue, grace_ms, limit, 1 if owners take turns, else 0, then 'all', or for each priority and owner (`PRIORITY` or
-- `PRIORITY OWNER`) the acceptance number of the last task to examine.
-- Answer: the ids.

local queue, grace, limit, turns = unpack(ARGV, 1, 4)
local all = ARGV[5] == 'all'
local up_to, highest = {}, 0
for i = 5, all and 0 or #ARGV, 2 do
  up_to[ARGV[i]] = tonumber(ARGV[i + 1])
  highest = math.max(highest, up_to[ARGV[i]])
end
if not all and highest == 0 then return {} end -- no task was overtaken
local place = key('lost-looked-to', queue, all and 'all' or 'overtaken')
local looked_to = redis.call('GET', place)
local found = redis.call('ZRANGEBYSCORE', key('waiting', queue), '(' .. (looked_to or 0), all and '+inf' or highest,
  'WITHSCORES', 'LIMIT', 0, limit)
local lost = {}
for i = 1, #found, 2 do
  local id = found[i]
  local record_key = record(id)
  local created, requeued, seq, priority, owner =
    unpack(redis.call('HMGET', record_key, 'created_at', 'requeued_at', 'seq', 'priority', 'owner'))
  local order = owner and turns == '1' and (priority or '') .. ' ' .. owner or priority
  local counts = is_number(created) and is_number(seq) and is_number(requeued or 0) and (all or tonumber(seq) <= (up_to[order] or 0))
  if counts and not is_leased(id) and tonumber(requeued or created) + tonumber(grace) <= now then
    redis.call('HSET', record_key, 'requeued_at', now)
    lost[#lost + 1] = id
  end
end
if #found == 2 * tonumber(limit) then
  redis.call('SET', place, found[#found], 'PX', 60000)
elseif looked_to then
  redis.call('DEL', place)
end
return lost
