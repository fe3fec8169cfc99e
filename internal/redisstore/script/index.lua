-- Writes a membership change into the user's index, moves rooms_rev and tells the user's
-- channel (DELIVERY M3).
-- KEYS 1 the user's rooms  2 memory of the removal  3 the user's channel
-- ARGV 1 room  2 version  3 '+' or '-'  4 head when the user joined
--      5 the event up to the closing brace  6 PUBLISH or SPUBLISH  7 how long a removal is remembered (ms)
--      8 '' for a change; for a repair the version that was found wrong in the index, of the room or of its
--      removal, '0' when it had none
--      9 ordinal of that head  10 what stands before channels' names
-- Who joins has read what was said before: the read marker starts at that head, and is never moved back.
-- Returns 1 when the index changed, 0 when it knew better. Running it again changes nothing.
local field = 'r:' .. ARGV[1]
local is = redis.call('HGET', KEYS[1], field)
local known = is and string.match(is, '^%d+') or redis.call('GET', KEYS[2]) or '0'
if ARGV[8] == '' then
  if tonumber(ARGV[2]) <= tonumber(known) then
    -- A repair may have come before the very change it stood in for, with the head of a later moment.
    -- What was said in between is unread, unless the user has moved the marker since.
    local mark = 'm:' .. ARGV[1]
    if ARGV[3] == '+' and is and ARGV[2] == string.match(is, '^%d+') and ARGV[2] .. ' ' .. ARGV[4] ~= is then
      local head = string.match(is, ' (%S+)$')
      local marked = redis.call('HGET', KEYS[1], mark)
      if marked and string.match(marked, '^%S+') == head and tonumber(ARGV[9]) < tonumber(string.match(marked, '%d+$')) then
        redis.call('HSET', KEYS[1], field, ARGV[2] .. ' ' .. ARGV[4], mark, ARGV[4] .. ' ' .. ARGV[9])
      end
    end
    return 0
  end
elseif is then
  -- A repair replaces only what it found wrong: another change may have come in between.
  if ARGV[8] ~= string.match(is, '^%d+') then return 0 end
elseif ARGV[3] == '-' or (ARGV[8] ~= known and tonumber(ARGV[2]) <= tonumber(known)) then
  return 0
end
if ARGV[3] == '+' then
  redis.call('HSET', KEYS[1], field, ARGV[2] .. ' ' .. ARGV[4])
  redis.call('DEL', KEYS[2])
  if not is then redis.call('HINCRBY', KEYS[1], 'c', 1) end
  if ARGV[9] ~= '0' then
    local ms, seq = string.match(redis.call('HGET', KEYS[1], 'm:' .. ARGV[1]) or '0-0', '^(%d+)-(%d+)')
    local toms, toseq = string.match(ARGV[4], '^(%d+)-(%d+)$')
    ms, seq, toms, toseq = tonumber(ms), tonumber(seq), tonumber(toms), tonumber(toseq)
    -- By the IDs: ordinals begin again at what a failover has lost.
    if toms > ms or (toms == ms and toseq > seq) then
      redis.call('HSET', KEYS[1], 'm:' .. ARGV[1], ARGV[4] .. ' ' .. ARGV[9])
    end
  end
else
  if redis.call('HDEL', KEYS[1], field) == 1 then redis.call('HINCRBY', KEYS[1], 'c', -1) end
  redis.call('HDEL', KEYS[1], 'm:' .. ARGV[1], 'd:' .. ARGV[1])
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[7])
end
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local rev = string.format('%.0f', math.max(tonumber(redis.call('HGET', KEYS[1], 'rev') or '0') + 1, ms))
redis.call('HSET', KEYS[1], 'rev', rev)
redis.call(ARGV[6], ARGV[10] .. KEYS[3], ARGV[5] .. ',"rooms_rev":' .. rev .. '}')
return 1
