-- Describe a queue: length, rate, and the places of tasks in it.
--
-- Keys:
--   waiting:QUEUE  sorted set  tasks that wait, by acceptance number; read
--   running:QUEUE  set         tasks that run; counted
--   shares:QUEUE   hash        by owner, number of waiting tasks; read
--   pace:QUEUE     hash        rate at which tasks end (see commit.lua); read
--   refused:QUEUE  hash        refused tasks that are expected again; added to
--   change:QUEUE   string      the change of the rate that a worker expects; read
--   task:ID        hash        task record; read
--
-- Arguments: queue, tasks that were refused since the last call, 1 if owners take turns, else 0, id, ...
-- Answer: number of waiting tasks; number of running tasks; age of the oldest waiting task, ms; of the rate, as text: tasks that
-- ended, ms of work, commits, urgent tasks per second; ms above the usual time in which no task has ended; the model; number of
-- refused tasks that are expected again, as text; the expected change, as its worker wrote it, or ''; for each id the number of
-- waiting tasks before it, -1 if it does not wait; owner, number of its waiting tasks, ...
-- If owners take turns, each other owner has at most as many tasks before a task as its own owner has.

-- Part of the rate that is reserved for refused tasks that are sent again.
local FOR_RETURNS = 0.5
local REFUSED_LIFE_MS = 120000

local queue, refused = ARGV[1], tonumber(ARGV[2])
local waiting = key('waiting', queue)
local oldest = redis.call('ZRANGE', waiting, 0, 0)[1]
local created = oldest and redis.call('HGET', record(oldest), 'created_at')
local age = is_number(created) and now - created or 0

local at, model, ended, busy, commits, urgent =
  unpack(redis.call('HMGET', key('pace', queue), 'at', 'model', 'ended', 'busy_ms', 'commits', 'urgent'))
local urgent_rate, stalled = 0, 0
if at then
  local silent = math.max(0, now - at)
  local fade = fade_of_urgent(busy, commits)
  urgent_rate = urgent * math.exp(-silent / fade) * 1000 / fade
  stalled = math.max(0, math.min(silent, age) - busy / commits)
end

-- Clients of refused tasks were told when to try again; they return one after the other, at the rate that is reserved for them.
local returns = 0
local since, expected = unpack(redis.call('HMGET', key('refused', queue), 'at', 'tasks'))
if since then
  local came = at and ended / busy * FOR_RETURNS * math.max(0, now - since) or 0
  returns = math.max(0, expected - came)
end
if refused > 0 then -- else the script only reads, so that it also runs on a full server and on a replica
  returns = returns + refused
  redis.call('HSET', key('refused', queue), 'at', now, 'tasks', returns)
  redis.call('PEXPIRE', key('refused', queue), REFUSED_LIFE_MS)
end

local shares = redis.call('HGETALL', key('shares', queue))
local own_tasks = {}
for i = 1, #shares, 2 do own_tasks[shares[i]] = tonumber(shares[i + 1]) end

local function place_of(id)
  local place = redis.call('ZRANK', waiting, id)
  if not place then return -1 end
  if ARGV[3] == '0' or #shares < 4 then return place end
  local own = own_tasks[redis.call('HGET', record(id), 'owner') or '']
  return own and math.min(place, own * #shares / 2 - 1) or place
end

local places = {}
for i = 4, #ARGV do places[i - 3] = place_of(ARGV[i]) end
return {redis.call('ZCARD', waiting), redis.call('SCARD', key('running', queue)), age, ended or '0', busy or '0', commits or '0',
  tostring(urgent_rate), math.floor(stalled), model or '', tostring(returns), redis.call('GET', key('change', queue)) or '', places,
  shares}
