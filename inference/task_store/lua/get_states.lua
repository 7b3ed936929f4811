-- Read the states of tasks, which are a small part of their records.
--
-- Keys:
--   task:ID  hash  task record; read
--
-- Arguments: id, ...
-- Answer: for each id status, attempts, request_id, model and owner (or '') of its record; nothing if it has none.

local states = {}
for i, id in ipairs(ARGV) do
  local status, attempts, request_id, model, owner =
    unpack(redis.call('HMGET', record(id), 'status', 'attempts', 'request_id', 'model', 'owner'))
  states[i] = status and model and {status, attempts or 0, request_id, model, owner or ''} or {}
end
return states
