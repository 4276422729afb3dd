-- How far the record is behind the log.
--
-- hg1:recorded, hg1:recorded:at   the last event that is in SQL, `epoch-seq`, and when the recorder said so

-- Whether an event has waited for the recorder longer than `most_ms` (0 or '': no limit). A recorder that has nothing to do is never behind: what
-- counts is the age of the first event that is not on record, looked at only where the recorder was silent for as long.
local function is_recorder_behind(most_ms)
  local most = tonumber(most_ms or '') or 0
  if most <= 0 then return false end
  local row = redis.call('MGET', 'hg1:recorded', 'hg1:recorded:at')
  if not row[1] or NOW - tonumber(row[2] or 0) <= most then return false end
  local first = redis.call('XRANGE', 'hg1:events', '(' .. row[1], '+', 'COUNT', 1)[1]
  return first ~= nil and NOW - cjson.decode(first[2][2]).at > most
end
