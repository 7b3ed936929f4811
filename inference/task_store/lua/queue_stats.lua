-- Describe a queue: length, rate, and the places of tasks in it.
--
-- Keys:
--   waiting:QUEUE  sorted set  tasks that wait, by acceptance number; read
--   running:QUEUE  set         tasks that run; counted
--   pace:QUEUE     hash        rate at which tasks end (see commit.lua); read
--   refused:QUEUE  hash        refused tasks that are expected again; added to
--   task:ID        hash        task record; read
--
-- Arguments: queue, tasks that were refused since the last call, id, ...
-- Answer: how many tasks wait, how many run, the age of the oldest waiting task in ms; of the rate: tasks that ended, in how many
-- ms
-- of work, in how many commits, urgent tasks a second, all as text; for how many ms longer than usual nothing has ended; the model;
-- how many refused tasks are expected again, as text; for each id how many tasks wait before it, -1 where it does not wait.

-- Part of the rate that is kept for those that come back.
local FOR_RETURNS = 0.5
local REFUSED_LIFE_MS = 120000

local queue, refused = ARGV[1], tonumber(ARGV[2])
local waiting = key('waiting', queue)
local oldest = redis.call('ZRANGE', waiting, 0, 0)[1]
local created = oldest and redis.call('HGET', record(oldest), 'created_at')
local age = created and now - created or 0

local at, model, ended, busy, commits, urgent =
  unpack(redis.call('HMGET', key('pace', queue), 'at', 'model', 'ended', 'busy_ms', 'commits', 'urgent'))
local urgent_rate, stalled = 0, 0
if at then
  local silent = math.max(0, now - at)
  local fade = fade_of_urgent(busy, commits)
  urgent_rate = urgent * math.exp(-silent / fade) * 1000 / fade
  stalled = math.max(0, math.min(silent, age) - busy / commits)
end

-- Clients that were told when to come back do so one after the other, as fast as there will be room for them.
local returns = 0
local since, expected = unpack(redis.call('HMGET', key('refused', queue), 'at', 'tasks'))
if since then
  local came = at and ended / busy * FOR_RETURNS * math.max(0, now - since) or 0
  returns = math.max(0, expected - came)
end
if refused > 0 then -- else nothing is written: a server that is full, or a replica, can be asked
  returns = returns + refused
  redis.call('HSET', key('refused', queue), 'at', now, 'tasks', returns)
  redis.call('PEXPIRE', key('refused', queue), REFUSED_LIFE_MS)
end

local places = {}
for i = 3, #ARGV do places[i - 2] = redis.call('ZRANK', waiting, ARGV[i]) or -1 end
return {redis.call('ZCARD', waiting), redis.call('SCARD', key('running', queue)), age, ended or '0', busy or '0', commits or '0',
  tostring(urgent_rate), math.floor(stalled), model or '', tostring(returns), places}
