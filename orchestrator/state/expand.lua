-- A node becomes several: one for each item of a list, or those of a graph. They come in pieces of at most 200, children before their parents;
-- what has no parent is due at once. With the last piece the execution is over, and the node waits for what it became, by its rule.
-- ARGV: S, run, gen, node, attempt, inc, cats (usage, for the last piece), price version, lines, JSON {rule, gathers: how many of the nodes lead to
--       it, of: how many there are, source: what says which they are where nothing else does, and nodes {end of its id: task} of this piece then, optional: 1 or [ids], those of this piece
--       that the run does not need}, place of the first one of this piece (from 0), then per node id, wait, ctl, spec, verdict, fragment (its own, JSON; or the name of one that
--       comes with the piece), then '' and pairs name, JSON of fragments.
-- Repeating a piece changes nothing; pieces come in their order, from the first one, and what has been made is passed over. Returns {'more', 0, due nodes of the piece..}; {'done', unwritten 0|1|2 (as `cascade`), due nodes..} with the
-- last piece; {'stopped', unwritten, due nodes..} where the run or the node was cancelled meanwhile; {'clash', id}: the run has another node of
-- that id, and nothing has changed; {'fenced'}.
-- @include tenancy/kernel
-- @include tenancy/transport/messages
-- @include cost/ledger
-- @include orchestrator/state/nodes
local node, attempt, inc = ARGV[4], ARGV[5], ARGV[6]
local lines = ARGV[9] ~= '' and ARGV[9] or nil
local told, first = cjson.decode(ARGV[10]), tonumber(ARGV[11])
local waits, attempts = 'hg1:wait:' .. RG, 'hg1:attempt:' .. RG
read_cats(ARGV[7])

local rows, at = {}, 12
while ARGV[at] and ARGV[at] ~= '' do
  rows[#rows + 1] = {id = ARGV[at], wait = ARGV[at + 1], ctl = ARGV[at + 2], spec = ARGV[at + 3], verdict = ARGV[at + 4], fragment = ARGV[at + 5]}
  at = at + 6
end
at = at + 1

local function reply(kind, left)
  local named, answer = {}, {kind, left}
  local function name(id)
    if not named[id] and state_of(id) == 'due' then
      named[id] = true
      answer[#answer + 1] = id
    end
  end
  for _, row in ipairs(rows) do name(row.id) end
  for _, id in ipairs(due_now) do name(id) end
  return answer
end

local run = get_run()
local state = run and state_of(node)
if not state then return {'fenced'} end
local lease = read_lease(node)
local made = tonumber(redis.call('HGET', waits, node .. ':made') or -1)
if not (lease and lease.live and lease.attempt == attempt and lease.inc == inc) then
  if redis.call('HGET', attempts, node .. ':done') ~= attempt or not live(inc) then return {'fenced'} end
  if made >= told.of then return reply('done', unwritten(run)) end
  rows = {}
  return UNFINISHED[state] and {'fenced'} or reply('stopped', unwritten(run))
end

-- The execution ends with this call: its message goes, and what it used can be settled by whoever comes.
local function close()
  redis.call('HSET', attempts, node .. ':done', attempt, node .. ':prices', ARGV[8])
  note_usage(RG, node, attempt, ARGV[7])
  local m = unhold(inc, lease.tag)
  if m then drop(lease.tag, m) end
end

local stop = redis.call('HGET', 'hg1:stop:' .. RG, node) or terminated(run, node)
if stop or run.status ~= 'running' or run.stopped then
  local ctl, reason = ctl_of(node), stop or run.stopped or redis.call('HGET', 'hg1:run:' .. RG, 'reason') or 'the run was cancelled'
  close()
  set_outcome(run, node, 'cancelled', {attempt = tonumber(attempt), reason = reason, lines = lines, price_version = lines and ARGV[8],
    decision = run.terminated or nil}, ctl)
  propagate(run, node, 'bad', ctl)
  local left = cascade(run, 200)
  announce_due(run.tenant)
  maybe_end(run)
  rows = {}
  return reply('stopped', left)
end

local known = math.max(0, made) - first  -- rows of this piece that were made before
if known < 0 then error('EXPAND a piece of ' .. node .. ' was left out') end
for i = known + 1, #rows do
  if state_of(rows[i].id) then return {'clash', rows[i].id} end
end

if made < 0 then
  local ctl = ctl_of(node)
  if ctl.expects then count_needed(-micros(ctl.expects)) end
  ctl.expects, ctl.map, ctl.when, ctl.least = nil, nil, nil, tonumber(told.rule)
  ctl.floor, ctl.rule, ctl.gathers, ctl.of, ctl.source = '0', told.rule, told.gathers, told.of, told.source
  redis.call('HSET', 'hg1:ctl:' .. RG, node, (cjson.encode(ctl):gsub('"next":{}', '"next":[]')))
  redis.call('HDEL', waits, node .. ':ok')
  redis.call('HSET', waits, node, told.gathers, node .. ':made', 0, node .. ':taken', 1)
  made = 0
end

-- What the hold covers of the floors of the new nodes is theirs; the rest must fit when they begin. A control begins with its floors.
local purse = read_purse(RG)
local free = purse.hold - purse.needed
local function claim(ctl)
  local found = cjson.decode(ctl)
  local need = micros(found.floor or '0') + micros(found.expects or '0')
  if need == 0 then return ctl end
  if need <= free then
    free = free - need
    count_needed(need)
    return ctl
  end
  local rest = ctl:gsub('^{"floor": ?"%d+"', '{"floor":"0"'):gsub('^{"floor":"0", ?"expects": ?"%d+"', '{"floor":"0","expects":"0"')
  return rest
end

-- What an earlier generation has done of them is not done again.
local adopted, generations = {}, {}
local function adopt(row)
  local text = redis.call('HGET', 'hg1:adopts:' .. RG, row.id)
  if not text then return end
  local generation, verdict, result = text:match('^(%d+)|(.-)|(.*)$')
  redis.call('HDEL', 'hg1:adopts:' .. RG, row.id)
  if generation == '0' then
    local ctl = redis.call('HGET', 'hg1:ctl:' .. RG, row.id)
    redis.call('HSET', 'hg1:ctl:' .. RG, row.id, ctl:sub(1, -2) .. ',"source":' .. cjson.encode(result) .. '}')
    return
  end
  redis.call('HSET', 'hg1:result:' .. RG, row.id, result)
  if verdict ~= '' then redis.call('HSET', 'hg1:verdict:' .. RG, row.id, verdict) else redis.call('HDEL', 'hg1:verdict:' .. RG, row.id) end
  generations[row.id] = tonumber(generation)
  adopted[#adopted + 1] = row.id
end

local created = math.max(0, #rows - known)
for i = known + 1, #rows do
  local row = rows[i]
  redis.call('HSET', 'hg1:state:' .. RG, row.id, 'pending')
  redis.call('HSET', waits, row.id, row.wait)
  redis.call('HSET', 'hg1:ctl:' .. RG, row.id, claim(row.ctl))
  redis.call('HSET', 'hg1:spec:' .. RG, row.id, row.spec)
  if row.verdict ~= '' then redis.call('HSET', 'hg1:verdict:' .. RG, row.id, row.verdict) end
  if row.fragment:sub(1, 1) == '{' then
    redis.call('HSET', 'hg1:fragment:' .. RG, 'of:' .. row.id, row.id, row.id, row.fragment)
  else
    redis.call('HSET', 'hg1:fragment:' .. RG, 'of:' .. row.id, row.fragment)
  end
  adopt(row)
end
for i = at, #ARGV - 1, 2 do redis.call('HSET', 'hg1:fragment:' .. RG, ARGV[i], ARGV[i + 1]) end
local last = math.max(made, first + #rows) >= told.of
if created > 0 then
  redis.call('HINCRBY', 'hg1:run:' .. RG, 'total', created)
  redis.call('HSET', 'hg1:run:' .. RG, 'grown', 1)
  run.left = redis.call('HINCRBY', 'hg1:run:' .. RG, 'left', created)
  redis.call('HSET', waits, node .. ':made', int(first + #rows))
  for i = known + 1, #rows do
    if tonumber(rows[i].wait) == 0 and not generations[rows[i].id] then became_due(rows[i].id) end
  end
  node_event('node.expanded', run.tenant, node, {attempt = tonumber(attempt), first = first, count = #rows, of = told.of, rule = told.rule,
    gathers = told.gathers, source = told.source, nodes = told.nodes, optional = told.optional, lines = last and lines or nil,
    price_version = last and lines and ARGV[8] or nil})
end
if #adopted > 0 then
  local ctls = {}
  for i, id in ipairs(adopted) do
    ctls[i] = ctl_of(id)
    write_outcome(run, id, 'succeeded', ctls[i])
  end
  emit({t = 'node.adopted', tenant = run.tenant, run = RUN, gen = tonumber(GEN), nodes = generations})
  for i, id in ipairs(adopted) do propagate(run, id, 'succeeded', ctls[i]) end
end
local left = 0
if last then
  close()
  redis.call('HDEL', 'hg1:lease:' .. RG, node)
  redis.call('HSET', 'hg1:state:' .. RG, node, 'pending')
  local count = redis.call('HMGET', waits, node, node .. ':ok', node .. ':taken', node .. ':bad')
  if count[4] then redis.call('RPUSH', 'hg1:cascade:' .. RG, node)
  else decide(node, told.rule, tonumber(count[1]), tonumber(count[2] or 0), count[3]) end
  left = cascade(run, 200)
end
announce_due(run.tenant)
progress()
return reply(last and 'done' or 'more', left)
