-- Reads a part of a room's log together with its head.
-- KEYS 1 room  2 members  3 log
-- ARGV 1 user that must be a member, '' for anyone  2 XRANGE or XREVRANGE  3 first  4 last  5 count
-- Returns {head, n, entries as Redis gives them}, or 'NOROOM', 'NOTMEMBER'.
local room = redis.call('HMGET', KEYS[1], 'head', 'n')
if not room[1] then return 'NOROOM' end
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 'NOTMEMBER' end
return {room[1], room[2], redis.call(ARGV[2], KEYS[3], ARGV[3], ARGV[4], 'COUNT', ARGV[5])}
