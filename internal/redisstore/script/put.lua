-- Adds a member to a room, or changes its role (DELIVERY M1).
-- KEYS 1 room (also the channel's name)  2 members  3 outbox
-- ARGV 1 room  2 who asks, '' for a server key  3 user  4 role, '' for what it is or member
--      5 most members  6 PUBLISH or SPUBLISH  7 the `joined` event up to the head
--      8 what stands before channels' names  9 '1' when the user is in as many rooms as one may be
-- Returns {'added', version, head, n, role, outbox ID}, {'changed' or 'same', version, head, n, role},
--      or 'NOROOM', 'NOTMEMBER', 'NOTALLOWED', 'TOOMANY', 'FULL'.
local room = redis.call('HMGET', KEYS[1], 'head', 'ver', 'n')
local head, version, n = room[1], room[2], room[3]
if not head then return 'NOROOM' end
local is = redis.call('HGET', KEYS[2], ARGV[3])
local role = ARGV[4]
if role == '' then role = is or 'member' end
if ARGV[2] ~= '' then
  local mine = redis.call('HGET', KEYS[2], ARGV[2])
  if not mine then return 'NOTMEMBER' end
  if not (ARGV[2] == ARGV[3] and is == role) then -- asking for what one is changes nothing
    if mine ~= 'owner' and mine ~= 'admin' then return 'NOTALLOWED' end
    if mine == 'admin' and is ~= role and (role == 'owner' or is == 'owner') then return 'NOTALLOWED' end
  end
end
if is == role then return {'same', version, head, n, role} end
if is then
  redis.call('HSET', KEYS[2], ARGV[3], role)
  return {'changed', version, head, n, role}
end
if ARGV[9] == '1' then return 'TOOMANY' end
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[5]) then return 'FULL' end
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
version = string.format('%.0f', math.max(tonumber(version) + 1, ms))
redis.call('HSET', KEYS[2], ARGV[3], role)
redis.call('HSET', KEYS[1], 'ver', version)
local entry = redis.call('XADD', KEYS[3], '*', 'r', ARGV[1], 'u', ARGV[3], 'v', version, 'h', head, 'op', '+', 'n', n)
redis.call(ARGV[6], ARGV[8] .. KEYS[1], ARGV[7] .. head .. '"}')
return {'added', version, head, n, role, entry}
