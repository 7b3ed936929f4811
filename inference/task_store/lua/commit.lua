-- Commit outcomes of tasks that the holder holds, each with its outbox entries and its reply.
--
-- Keys:
--   task:ID             hash        task record; ended
--   waiting:QUEUE       sorted set  tasks that wait, urgent ones also in `urgent`; an ended task leaves both
--   urgent:QUEUE        sorted set  urgent waiting tasks, by priority
--   running:QUEUE       set         tasks that run; an ended task leaves it
--   shares:QUEUE        hash        by owner, number of waiting tasks; decreased
--   open-tasks          hash        by owner, number of tasks that have not ended; decreased
--   leases              sorted set  task ids by end of the lease, ms; an ended task leaves it
--   deadlines           sorted set  task ids by deadline, ms; an ended task leaves it
--   image:ID            string      inline image; deleted
--   inline-bytes        string      bytes of all inline images; decreased
--   outbox:SINK         stream      gets the task id of a task that succeeded
--   webhooks            sorted set  tasks whose webhook waits for its event, by the time of their end, ms; added to
--   webhooks:RECEIVER   sorted set  those of a receiver, by the time of the next attempt, ms; added to
--   webhook-receivers   sorted set  receivers, by the time of their next event, ms; added to
--   webhook-outages     hash        receivers that are down; read
--   request:REQUEST_ID  sorted set  tasks of a request id; lives as long as the record
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; lives as long as the record
--   batch:BATCH_ID      string      items of a batch; lives as long as the last record of them
--   seq:lives           sorted set  the record's time to live is noted here
--   dead-letters        sorted set  tasks that are dead letters, by time, ms; added to
--   pace:QUEUE          hash        rate at which tasks end, and batches by minute; see `note_pace`
--
-- Arguments: holder, ttl_ms, then for each task id, attempt, status, dead_letter (0 or 1), model, outcome.
-- `model` is the version that made the result; '' if there is no result.
-- Answer: 1 for each task whose outcome was written, else 0.

local holder, ttl = ARGV[1], tonumber(ARGV[2])
local written = {}
local batches = {} -- by queue, of the tasks that ran: number, urgent ones, when the first was accepted and started, model

local function count(task, model)
  local batch = batches[task.queue] or {ended = 0, urgent = 0, since = now, started = now}
  batch.ended = batch.ended + 1
  if tonumber(task.priority) > 0 then batch.urgent = batch.urgent + 1 end
  batch.since = math.min(batch.since, tonumber(task.created_at))
  if model ~= '' then
    batch.model = model
    batch.started = math.min(batch.started, tonumber(task.started_at))
  end
  batches[task.queue] = batch
end

-- Note the rate at which tasks end in the hash pace:QUEUE: tasks that ended, and ms in which there was work. Both fade, so that
-- their quotient is the recent rate. There was no work between one commit and the acceptance of the first task of the next commit;
-- more than 2 * FADE_MS of work count only while the model ran. The last commits count for any duration and age, except the commits
-- of another version of the model. A commit without a result does not tell the version.
--
-- The field `minute:N` has `MINUTE IMAGES BATCHES`, the tasks and commits of one of the last FILL_MINUTES minutes since the epoch,
-- for `get_batch_fill`; N is the remainder of the minute, so that a new minute replaces the oldest one.
local LEAST_KEPT, LIFE_MS, FILL_MINUTES = 0.7, 86400000, 15

local function note_pace(queue, batch)
  local pace_key = key('pace', queue)
  local minute = math.floor(now / 60000)
  local fill_field = 'minute:' .. minute % FILL_MINUTES
  local at, model, ended, busy, commits, urgent, fill =
    unpack(redis.call('HMGET', pace_key, 'at', 'model', 'ended', 'busy_ms', 'commits', 'urgent', fill_field))
  at = tonumber(at or batch.since)
  local ran = batch.model or model or ''
  local fade = math.exp(-math.max(0, now - at) / FADE_MS)
  local kept = 0
  if model == ran then kept = math.max(fade, LEAST_KEPT) end
  local worked = math.min(math.max(1, now - math.max(at, batch.since)), math.max(2 * FADE_MS, now - batch.started))
  busy, commits = (busy or 0) * kept + worked, (commits or 0) * kept + 1
  local of_minute, images, batches = string.match(fill or '', '^(%d+) (%d+) (%d+)$')
  if tonumber(of_minute) ~= minute then images, batches = 0, 0 end
  local urgent_kept = math.exp(-math.max(0, now - at) / fade_of_urgent(busy, commits))
  redis.call('HSET', pace_key, 'at', now, 'model', ran, 'ended', (ended or 0) * kept + batch.ended,
    'busy_ms', busy, 'commits', commits, 'urgent', (urgent or 0) * urgent_kept + batch.urgent,
    fill_field, minute .. ' ' .. images + batch.ended .. ' ' .. batches + 1)
  redis.call('PEXPIRE', pace_key, LIFE_MS)
end

for i = 3, #ARGV, 6 do
  local id, attempt, new_status, dead, model, outcome = unpack(ARGV, i, i + 5)
  local task = read(id)
  local ours = task.status and not TERMINAL[task.status] and task.holder == holder and (task.attempts or '0') == attempt
  if ours then
    finish(task, new_status, outcome, dead == '1' and KEEP or ttl)
    if dead == '1' then redis.call('ZADD', key('dead-letters'), now, id) end
    if task.status == 'running' and new_status ~= 'expired' then count(task, model) end
  end
  written[#written + 1] = ours and 1 or 0
end
for queue, batch in pairs(batches) do note_pace(queue, batch) end
flush_effects()
return written
