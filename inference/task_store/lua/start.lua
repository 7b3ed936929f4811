-- owner, lease_ms, id, ... Gives the attempt's number, 0 where the task may not run.
local owner, lease = ARGV[1], tonumber(ARGV[2])
local attempts, started = {}, {}
for i = 3, #ARGV do
  local attempt = start(ARGV[i], owner)
  if attempt > 0 then started[#started + 1] = ARGV[i] end
  attempts[#attempts + 1] = attempt
end
lease_all(started, lease)
note_started()
return attempts
