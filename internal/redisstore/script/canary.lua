-- A gateway's sign of life to itself, on the way that sends take (DELIVERY L1): it writes, so a
-- primary that was demoted refuses it. One that is full refuses it too, but only a primary does so
-- for that reason: receiving goes on.
-- KEYS 1 canary  2 epoch  3 the gateway's channel
-- ARGV 1 token  2 a new epoch, used when there is none  3 PUBLISH or SPUBLISH  4 TTL of the canary (ms)
--      5 what stands before channels' names (keys.go)
-- Publishes 'token epoch time', the time in ms. Returns how many subscribers of this server got it: none means that the
--      gateway listens elsewhere.
local epoch = redis.call('GET', KEYS[2])
local set = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
if set.err and not (epoch and (string.find(set.err, '^OOM') or string.find(set.err, '^MISCONF'))) then
  return set
end
if not epoch then
  epoch = ARGV[2]
  redis.call('SET', KEYS[2], epoch)
end
local time = redis.call('TIME')
return redis.call(ARGV[3], ARGV[5] .. KEYS[3], ARGV[1] .. ' ' .. epoch .. ' ' .. string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)))
