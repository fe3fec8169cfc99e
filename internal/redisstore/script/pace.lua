-- Sets how fast a room may be sent to, for a while (gateway/pace). Another gateway's slower pace
-- stands until its lease ends.
-- KEYS 1 room
-- ARGV 1 microseconds between messages, '0' to let the room go  2 lease (ms)  3 who sets it
-- Returns 1 when it was set, 0 when another's stands or there is no such room.
local room = redis.call('HMGET', KEYS[1], 'head', 'pace')
if not room[1] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local tat = now
if room[2] then
  local interval, lasts, was, who = string.match(room[2], '^(%d+) (%d+) (%d+) (.*)$')
  -- As in send.lua: what is further ahead is of a clock that was set back since.
  local stands = tonumber(lasts) > now and tonumber(was) <= now + 20000 + tonumber(interval)
  if who ~= ARGV[3] and stands and (ARGV[1] == '0' or tonumber(interval) > tonumber(ARGV[1])) then return 0 end
  if stands then tat = math.min(math.max(now, tonumber(was)), now + 20000 + tonumber(ARGV[1])) end
end
if ARGV[1] == '0' then
  redis.call('HDEL', KEYS[1], 'pace')
else
  redis.call('HSET', KEYS[1], 'pace', string.format('%s %.0f %.0f %s', ARGV[1], now + tonumber(ARGV[2]) * 1000, tat, ARGV[3]))
end
return 1
