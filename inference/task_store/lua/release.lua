-- owner, id, ...
for i = 2, #ARGV do
  local id = ARGV[i]
  local status, holder, queue, seq = unpack(redis.call('HMGET', record(id), 'status', 'owner', 'queue', 'seq'))
  if holder == ARGV[1] and not TERMINAL[status] then
    redis.call('HSET', record(id), 'requeued_at', now) -- its message is given back too
    give_back(id)
    wait_again(id, queue, seq)
  end
end
return 1
