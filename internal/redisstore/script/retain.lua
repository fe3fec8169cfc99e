-- Says how much of a room's log is kept, where that is not what the deployment keeps (send.lua).
-- KEYS 1 room  2 log
-- ARGV 1 'entries age bytes' with '-' for the deployment's, '' for all of them
--      2 the age that holds from now on (ms), '0' for any
-- Returns 1, or 'NOROOM'. Running it again changes nothing.
if redis.call('EXISTS', KEYS[1]) == 0 then return 'NOROOM' end
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'keep')
else
  redis.call('HSET', KEYS[1], 'keep', ARGV[1])
end
if ARGV[2] == '0' then
  redis.call('PERSIST', KEYS[2])
else
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return 1
