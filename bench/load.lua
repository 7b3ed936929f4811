-- wrk's script: BODY is a file that holds the request's body, CONTENT_TYPE its type. Prints one line to be parsed.
local file = io.open(os.getenv('BODY'), 'rb')
wrk.method = 'POST'
wrk.body = file:read('*a')
wrk.headers['Content-Type'] = os.getenv('CONTENT_TYPE')
file:close()

done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format('FIGURES %d %.6f %.3f %.3f %d\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
