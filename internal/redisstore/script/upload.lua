-- Makes an announced upload an attachment that no message names yet.
-- KEYS 1 attachment (hash)  2 what is due
-- ARGV 1 attachment  2 for how long it is kept (ms)  3 how much later its bytes go (ms)  4… fields and values
-- Returns 1, or 'NOATTACHMENT' when it was given up meanwhile. Running it again changes nothing but the times.
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 'NOATTACHMENT' end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[2]) + tonumber(ARGV[3])), ARGV[1])
return 1
