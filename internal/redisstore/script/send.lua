-- Appends one message to a room's log and publishes it.
-- KEYS 1 room (hash; also the channel's name)  2 members  3 log  4 idempotency key  5 the members' own last messages
-- ARGV 1 room  2 user  3 '1' when the user must be a member, '0' when not, '2' when only what was
--      accepted before is answered  4 hash of the body  5 tail
--      6 TTL of the idempotency key (ms)  7 PUBLISH or SPUBLISH
--      8 most entries in the log  9 their most age (ms), '0' for any  10 most bytes, '0' for any;
--      the room's field 'keep' may say otherwise (retain.lua)  11 what stands before channels' names
-- Returns 'id prev n' for a new message, and for each 16th at the least how many older ones were trimmed,
--      by count, age and bytes, and how many are left: 'id prev n 100 0 0 9916'; {'id prev n', tail} for
--      one that was stored before, without the tail when it was trimmed since; or 'REUSED', 'LIMITED'
--      (3 is '2', and nothing was), 'NOROOM', 'NOTMEMBER', or 'HOLD ms' when the room is held back:
--      try again then. Running it again changes nothing (for the key's TTL).
-- Numbers stay text or below 2^53, where Lua's doubles are exact.
local prior = redis.call('GET', KEYS[4])
if prior then
  -- Before membership: a message that was accepted is answered even after its sender left.
  local at, hash = string.match(prior, '^(%S+ %S+ %S+) (.*)$')
  if hash ~= ARGV[4] then return 'REUSED' end
  local id = string.match(at, '^%S+')
  local entry = redis.call('XRANGE', KEYS[3], id, id)[1]
  return {at, entry and entry[2][6]}
end
if ARGV[3] == '2' then return 'LIMITED' end
local room = redis.call('HMGET', KEYS[1], 'head', 'n', 'pace', 'keep')
local head = room[1]
if not head then return 'NOROOM' end
local member = redis.call('HEXISTS', KEYS[2], ARGV[2])
if ARGV[3] == '1' and member == 0 then return 'NOTMEMBER' end

if room[3] then
  -- The room's deliveries have fallen behind: messages are spaced out, by GCRA with 20 ms of burst,
  -- until pace.lua's lease ends. A next message that is further ahead than one can be was put there
  -- before the clock was set back, and so was the lease: neither counts.
  local interval, lasts, tat, who = string.match(room[3], '^(%d+) (%d+) (%d+) (.*)$')
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  if now < tonumber(lasts) and tonumber(tat) <= now + 20000 + tonumber(interval) then
    tat = math.max(now, tonumber(tat))
    if tat - now > 20000 then return 'HOLD ' .. string.format('%.0f', math.ceil((tat - now - 20000) / 1000)) end
    redis.call('HSET', KEYS[1], 'pace', string.format('%s %s %.0f %s', interval, lasts, tat + tonumber(interval), who))
  end
end
local n = string.format('%.0f', tonumber(room[2]) + 1)
local id = redis.call('XADD', KEYS[3], '*', 'p', head, 'n', n, 't', ARGV[5])
-- The log gives growing IDs as long as it exists. It may have aged out whole, and the clock of a
-- new primary be behind: then the head decides. 45 is '-': with 13 digits before it text compares
-- as numbers do.
if not (string.byte(id, 14) == 45 and string.byte(head, 14) == 45 and #id >= #head and id > head) then
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local headms, headseq = string.match(head, '^(%d+)-(%d+)$')
  ms, seq, headms, headseq = tonumber(ms), tonumber(seq), tonumber(headms), tonumber(headseq)
  if ms < headms or (ms == headms and seq <= headseq) then
    redis.call('XDEL', KEYS[3], id)
    id = string.format('%.0f-%.0f', headms, headseq + 1)
    redis.call('XADD', KEYS[3], id, 'p', head, 'n', n, 't', ARGV[5])
  end
end
redis.call('HSET', KEYS[1], 'head', id, 'n', n)
-- Who sends has read what was there: nobody's own messages are unread to them. It stands with the
-- room, because the user's side is another slot, and would be another round trip.
if member == 1 then redis.call('HSET', KEYS[5], ARGV[2], id .. ' ' .. n) end
local at = id .. ' ' .. head .. ' ' .. n
redis.call('SET', KEYS[4], at .. ' ' .. ARGV[4], 'PX', ARGV[6])
redis.call(ARGV[7], ARGV[11] .. KEYS[1], '{"type":"message","room":"' .. ARGV[1] .. '","id":"' .. id ..
  '","prev":"' .. head .. '","n":' .. n .. ',' .. ARGV[5])

local entries, age, bytes = ARGV[8], ARGV[9], ARGV[10]
if room[4] then
  local e, a, b = string.match(room[4], '^(%S+) (%S+) (%S+)$')
  if e ~= '-' then entries = e end
  if a ~= '-' then age = a end
  if b ~= '-' then bytes = b end
end
-- An idle room's log goes whole; a busy one's end is cut now and then, by count and bytes by whole nodes
-- of the stream. By age that would be much too late where little is said: a node has a hundred messages,
-- and sixteen may take long, so each message cuts when its room was silent for a share of the age.
-- Without an age none may stand from before it was changed, or from a process that has another still:
-- the whole log would go with what was sent a moment ago. It costs 0.2 of a send's 10 us.
local quiet = false
if age ~= '0' then
  redis.call('PEXPIRE', KEYS[3], age)
  quiet = (tonumber(string.sub(id, 1, 13)) or 0) - (tonumber(string.sub(head, 1, 13)) or 0) > age / 256
else
  redis.call('PERSIST', KEYS[3])
end
if tonumber(n) % 16 ~= 0 and not quiet then return at end
local byage, bybytes = 0, 0
local bycount = redis.call('XTRIM', KEYS[3], 'MAXLEN', '~', entries)
if age ~= '0' then
  local oldest = tonumber(string.match(id, '^%d+')) - tonumber(age)
  byage = redis.call('XTRIM', KEYS[3], 'MINID', string.format('%.0f', math.max(oldest, 0)))
end
if bytes ~= '0' then
  local has = redis.call('XLEN', KEYS[3])
  -- Redis estimates it from five of the stream's nodes; the embedded one can't.
  local takes = redis.pcall('MEMORY', 'USAGE', KEYS[3], 'SAMPLES', 5)
  if type(takes) ~= 'number' then takes = has * (#ARGV[5] + 80) end
  if takes > tonumber(bytes) then
    -- However few bytes, one stays: 0 would take the last node too, and with it what this very script appends.
    bybytes = redis.call('XTRIM', KEYS[3], 'MAXLEN', '~', math.max(1, math.floor(has * tonumber(bytes) / takes)))
  end
end
return at .. ' ' .. bycount .. ' ' .. byage .. ' ' .. bybytes .. ' ' .. redis.call('XLEN', KEYS[3])
