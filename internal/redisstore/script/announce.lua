-- Notes an upload that begins, so that what becomes of it is never out of sight.
-- KEYS 1 what is due (sorted set: attachment -> when its bytes go, ms)
-- ARGV 1 attachment  2 in how long its bytes go (ms)
-- Returns 1.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
return 1
