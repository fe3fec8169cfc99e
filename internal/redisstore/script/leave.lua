-- Leaves seats: a gateway's own ones, when their users are gone, or those of a gateway that died.
-- KEYS 1 whom the gateway holds  2… for each user the presence (also its channel's name) and the rooms
-- ARGV 1 gateway  2 PUBLISH or SPUBLISH  3 what stands before channels' names
--      4 '' when the gateway does it itself, 'dead' when it died
--      5… user and seq for each; a seat with a newer seq was taken again, and stays
-- Announces those who have no seat left, in the step that takes them off the gateway's list (DELIVERY
-- P2): whoever runs it next for a dead gateway finds them gone and says nothing. Returns how many were
-- announced, or 'DEAD' when the gateway was declared dead and does not know it yet.
if ARGV[4] == '' and redis.call('SISMEMBER', KEYS[1], '') == 1 then return 'DEAD' end
local time = redis.call('TIME')
local ms = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local announced = 0
for i = 2, #KEYS, 2 do
  local user, seq = ARGV[i + 3], ARGV[i + 4]
  local newer = false
  if ARGV[4] == '' then
    local seat = redis.call('HGET', KEYS[i], ARGV[1])
    newer = seat and tonumber(string.match(seat, '^%d+')) > tonumber(seq)
  end
  if not newer then
    local listed = redis.call('SREM', KEYS[1], user)
    if listed == 1 or ARGV[4] == '' then
      local seated = redis.call('HDEL', KEYS[i], ARGV[1])
      if listed + seated > 0 and redis.call('EXISTS', KEYS[i]) == 0 then
        announced = announced + 1
        redis.call('HSET', KEYS[i + 1], 'seen', ms)
        redis.call(ARGV[2], ARGV[3] .. KEYS[i], '0 ' .. ms)
      end
    end
  end
end
return announced
