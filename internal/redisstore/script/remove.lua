-- Takes a member out of a room: removed by another, or leaving (DELIVERY M1).
-- KEYS 1 room (also the channel's name)  2 members  3 outbox  4 the members' own last messages
-- ARGV 1 room  2 who asks, '' for a server key  3 user  4 PUBLISH or SPUBLISH  5 the `left` event
--      6 what stands before channels' names
-- Returns {version, head, outbox ID}, or 'NOROOM', 'NOTMEMBER' (who asks), 'NOTALLOWED', 'NOMEMBER' (user).
local room = redis.call('HMGET', KEYS[1], 'head', 'ver')
local head, version = room[1], room[2]
if not head then return 'NOROOM' end
local is = redis.call('HGET', KEYS[2], ARGV[3])
if ARGV[2] ~= '' then
  local mine = redis.call('HGET', KEYS[2], ARGV[2])
  if not mine then return 'NOTMEMBER' end
  if ARGV[2] ~= ARGV[3] then
    if mine ~= 'owner' and mine ~= 'admin' then return 'NOTALLOWED' end
    if mine == 'admin' and is == 'owner' then return 'NOTALLOWED' end
  end
end
if not is then return 'NOMEMBER' end
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
version = string.format('%.0f', math.max(tonumber(version) + 1, ms))
redis.call('HDEL', KEYS[2], ARGV[3])
redis.call('HDEL', KEYS[4], ARGV[3])
redis.call('HSET', KEYS[1], 'ver', version)
local entry = redis.call('XADD', KEYS[3], '*', 'r', ARGV[1], 'u', ARGV[3], 'v', version, 'h', head, 'op', '-')
redis.call(ARGV[4], ARGV[6] .. KEYS[1], ARGV[5])
return {version, head, entry}
