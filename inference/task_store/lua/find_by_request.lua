-- List the tasks of a request id, a page at a time, oldest first.
--
-- Keys:
--   request:REQUEST_ID  sorted set  its tasks, by acceptance number; tasks without a record leave it
--   task:ID             hash        task record; read
--
-- Arguments: request_id, after, limit, the limit of entries to examine.
-- Answer: the acceptance number after which the next page begins, 0 on the last page; the ids of tasks with a number above `after`.

local request_id, after, limit, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local index = key('request', request_id)
local members = redis.call('ZRANGEBYSCORE', index, '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, most)
local entries = {}
for i = 1, #members, 2 do entries[#entries + 1] = {id = members[i], seq = tonumber(members[i + 1])} end
local rest = #entries == most and entries[most].seq or 0

-- A task without a request id has its own id as request id, and is not in the index.
local own, seq = unpack(redis.call('HMGET', record(request_id), 'request_id', 'seq'))
seq = tonumber(seq or 0)
if own == request_id and seq > after and (rest == 0 or seq < rest) then
  entries[#entries + 1] = {id = request_id, seq = seq}
  table.sort(entries, function(one, other) return one.seq < other.seq end)
end

local ids, gone, last = {}, {}, 0
for _, entry in ipairs(entries) do
  if redis.call('EXISTS', record(entry.id)) == 0 then
    gone[#gone + 1] = entry.id
  elseif #ids == limit then
    rest = last
    break
  else
    ids[#ids + 1] = entry.id
    last = entry.seq
  end
end
call_with_all(gone, 'ZREM', index)
return {rest, ids}
