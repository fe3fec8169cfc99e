-- Makes a room with its first members (DELIVERY M1).
-- KEYS 1 room (also the channel's name)  2 members  3 outbox
-- ARGV 1 room  2 name  3 owner, '' for none  4 PUBLISH or SPUBLISH
--      5 what stands before channels' names
--      6… user and the user's `joined` event up to the head, for each member
-- Returns {version, created (ms), outbox ID of each member, …}, or 'EXISTS'.
if redis.call('EXISTS', KEYS[1]) == 1 then return 'EXISTS' end
local time = redis.call('TIME')
local ms = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
redis.call('HSET', KEYS[1], 'name', ARGV[2], 'head', '0-0', 'n', '0', 'ver', ms, 'created', ms)
local answer = {ms, ms}
for i = 6, #ARGV, 2 do
  local user = ARGV[i]
  redis.call('HSET', KEYS[2], user, user == ARGV[3] and 'owner' or 'member')
  answer[#answer + 1] = redis.call('XADD', KEYS[3], '*', 'r', ARGV[1], 'u', user, 'v', ms, 'h', '0-0', 'op', '+')
  redis.call(ARGV[4], ARGV[5] .. KEYS[1], ARGV[i + 1] .. '0-0"}')
end
return answer
