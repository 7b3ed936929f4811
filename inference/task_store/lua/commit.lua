-- owner, ttl_ms, then id, attempt, status, dead_letter, outcome, ... Gives 1 where it was written.
local owner, ttl = ARGV[1], tonumber(ARGV[2])
local written = {}
local counts = {} -- of ended tasks, by queue
for i = 3, #ARGV, 5 do
  local id, attempt, new_status, dead, outcome = unpack(ARGV, i, i + 4)
  local task = read(id)
  local ours = task.status and not TERMINAL[task.status] and task.owner == owner and (task.attempts or '0') == attempt
  if ours then
    finish(task, new_status, outcome, dead == '1' and KEEP or ttl)
    if dead == '1' then redis.call('ZADD', k('dead-letters'), now, id) end
    counts[task.queue] = (counts[task.queue] or 0) + 1
  end
  written[#written + 1] = ours and 1 or 0
end
for queue, count in pairs(counts) do
  local bucket = k('finished', queue, math.floor(now / 1000))
  redis.call('INCRBY', bucket, count)
  redis.call('PEXPIRE', bucket, 15000)
end
conclude()
return written
