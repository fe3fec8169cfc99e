-- Reads a room's head and membership version, and the roles of users, at one moment.
-- KEYS 1 room  2 members
-- ARGV users
-- Returns {head, n, version, role of each user or '', …}, or 'NOROOM'.
local room = redis.call('HMGET', KEYS[1], 'head', 'n', 'ver')
if not room[1] then return 'NOROOM' end
local answer = {room[1], room[2], room[3]}
for first = 1, #ARGV, 1000 do -- unpack has a limit
  local roles = redis.call('HMGET', KEYS[2], unpack(ARGV, first, math.min(first + 999, #ARGV)))
  for i = 1, #roles do answer[#answer + 1] = roles[i] or '' end
end
return answer
