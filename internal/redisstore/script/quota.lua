-- Takes bytes off what a user may upload in a time.
-- KEYS 1 the user's uploads (string: bytes)
-- ARGV 1 bytes  2 most bytes  3 in how long (ms)
-- Returns 0 when they were taken, or in how many ms the user may upload again; nothing was taken then.
-- Run again after an answer was lost, it takes them twice: the user waits a little longer.
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used + tonumber(ARGV[1]) > tonumber(ARGV[2]) then
  -- One upload is always possible, however small the quota, when there was none before.
  if used > 0 then return math.max(redis.call('PTTL', KEYS[1]), 1) end
end
redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 0
