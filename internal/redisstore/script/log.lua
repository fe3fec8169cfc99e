-- Reads a part of a room's log together with its head.
-- KEYS 1 room  2 members  3 log
-- ARGV 1 user that must be a member, '' for anyone  2 XRANGE or XREVRANGE  3 first  4 last  5 most entries
--      6 most bytes of them; two entries are given at least: one who has the first goes on from there
-- Returns {head, n, entries as Redis gives them, 1 when bytes cut them short or else 0, membership version}, or
-- 'NOROOM', 'NOTMEMBER'.
local room = redis.call('HMGET', KEYS[1], 'head', 'n', 'ver')
if not room[1] then return 'NOROOM' end
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 'NOTMEMBER' end
local first, left, bytes = ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, n = {}, 0
while left > 0 do
  -- By portions, so that of what is too much one portion is made and no more.
  local most = math.min(left, 32)
  local portion = redis.call(ARGV[2], KEYS[3], first, ARGV[4], 'COUNT', most)
  local got = #portion
  for i = 1, got do
    local entry = portion[i]
    bytes = bytes - #entry[2][6] - 128 -- its tail, and what an event has besides
    if bytes < 0 and n >= 2 then return {room[1], room[2], entries, 1, room[3]} end
    n = n + 1
    entries[n] = entry
  end
  if got < most then break end
  left, first = left - most, '(' .. portion[most][1]
end
return {room[1], room[2], entries, 0, room[3]}
