-- id, outcome, ttl_ms
local id, outcome, ttl = unpack(ARGV)
local status = redis.call('HGET', k('task', id), 'status')
if not status then return 'unknown' end
if TERMINAL[status] then return 'finished' end
finish(id, 'canceled', outcome, tonumber(ttl))
send_replies()
return 'canceled'
