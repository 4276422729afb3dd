-- Open an epoch: bind the log and every script to the Redis server that runs now.
--
-- hg1:epoch   hash {epoch, server, seq, tags, rebuild}; rebuild = token of the rebuild that is under way
-- hg1:events  stream; the first event of an epoch is epoch.opened
--
-- ARGV: S, epoch (above every epoch before), rebuilt 0|1, token of the rebuild ('' = none is under way), after (the recorder's
--       cursor: what the record holds before this epoch).
-- Returns 1; 0 when the server is another one than S, the epoch is not new, or another rebuild is under way.
local running = redis.call('INFO', 'server'):match('run_id:(%x+)')
local row = redis.call('HMGET', 'hg1:epoch', 'epoch', 'rebuild')
if running ~= ARGV[1] or tonumber(row[1] or 0) >= tonumber(ARGV[2]) or (row[2] or '') ~= ARGV[4] then return 0 end
local t = redis.call('TIME')
redis.call('HSET', 'hg1:epoch', 'epoch', ARGV[2], 'server', ARGV[1], 'seq', 1)
redis.call('HDEL', 'hg1:epoch', 'rebuild')
redis.call('XADD', 'hg1:events', ARGV[2] .. '-1', 'e', cjson.encode({t = 'epoch.opened', at = t[1] * 1000 + math.floor(t[2] / 1000),
  epoch = tonumber(ARGV[2]), server = ARGV[1], rebuilt = tonumber(ARGV[3]), after = ARGV[5]}))
return 1
