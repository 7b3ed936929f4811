-- outcome, ttl_ms, limit
local outcome, ttl, limit = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local due = redis.call('ZRANGEBYSCORE', k('deadlines'), '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local task = read(id)
  if task.status then
    finish(task, 'expired', outcome, ttl)
  else
    redis.call('ZREM', k('deadlines'), id)
  end
end
conclude()
-- No task is open, so no image is inline: those that Redis evicted were not subtracted.
if redis.call('ZCARD', k('deadlines')) == 0 then redis.call('DEL', k('inline-bytes')) end
return due
