-- Lets the members of a room see an attachment, and keeps it.
-- KEYS 1 attachment (hash)  2 what is due
-- ARGV 1 attachment  2 room  3 for how long it is kept from now on (ms), '0' for good
--      4 how much later its bytes go (ms)  5 most rooms
-- Returns 1, or 'NOATTACHMENT', 'MOSTROOMS'. Running it again changes nothing but the times.
local n = redis.call('HGET', KEYS[1], 'rooms')
if not n then return 'NOATTACHMENT' end
if redis.call('HEXISTS', KEYS[1], 'r:' .. ARGV[2]) == 0 then
  if tonumber(n) >= tonumber(ARGV[5]) then return 'MOSTROOMS' end
  redis.call('HSET', KEYS[1], 'r:' .. ARGV[2], '1', 'rooms', string.format('%.0f', tonumber(n) + 1))
end
if ARGV[3] == '0' then
  redis.call('PERSIST', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 1
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[3]) + tonumber(ARGV[4])), ARGV[1])
return 1
