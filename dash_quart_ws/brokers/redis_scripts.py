"""What Redis does in one step: Lua scripts, which are as atomic as MULTI, and can compute a position as well.

Keys, all below one prefix:

- `state`, a hash: `epoch` (a random name of this life of the data; another one when the server was restarted, replaced by
  a replica, or emptied), `run` (the server's own id), `position`, and `last`, the id of the stream's last entry
- `revocations`, a sorted set of `position signature json` by expiry
- `stream`, the announcements of what is added there; each names the one before it, so that a reader notices a gap
- `alive`, worker ids by when they were last heard of, by Redis' clock; `dead`, those that were declared so; `workers`,
  what they say of themselves; `here:ID`, the connections of one
- `sent:ID`, the last batch of revocations of one process, for a while: it may have to ask again whether that was stored
- `sessions` and `sessions-expire`, the records of sessions and when they expire
- `claims`, what apps' secrets may use this prefix; `claim:NAME`, who was the first to claim something, for a day
- `kept:NAME`, what is kept for a moment, with a signature in front of it; gone when it is read, or its time is up

A position is a number that only grows. It begins at the clock's milliseconds, and whenever data may have been lost it
jumps ahead by more than could have been: then no login has seen a later one than the next revocation gets.
"""

from __future__ import annotations

import functools
import hashlib

JUMP = 100_000
"""Positions that are skipped when Redis was restarted, replaced or emptied: more revocations than it can have lost."""

KEEP_EXPIRED = 24 * 3600
"""Seconds that an expired revocation stays: the workers' clocks need not be Redis' own."""

REMEMBER_BATCH = 600
"""Seconds after which a batch that is sent again is stored again: later positions, and no harm otherwise."""

REMEMBER_DEAD = 24 * 3600
"""Seconds that a worker may be suspended, and be told afterwards that it was declared dead."""

EPOCH = "EPOCH"
CLAIMED = "CLAIMED"
DEAD = "DEAD"
"""What scripts fail with: the data is not what the worker knows it as, the prefix is another app's, the worker is dead."""

_WORDS = """
local function whole(number) return string.format('%.0f', number) end
local function seconds() return tonumber(redis.call('TIME')[1]) end
"""

JOIN = (
    "#!lua flags=allow-oom\n"
    + _WORDS
    + f"""
-- KEYS: state claims; ARGV: run, known position, a new epoch, claims of the app (its own first)
if ARGV[4] then
    local theirs = redis.call('SMEMBERS', KEYS[2])
    local is_ours = #theirs == 0
    for i = 4, #ARGV do
        if redis.call('SISMEMBER', KEYS[2], ARGV[i]) == 1 then is_ours = true end
    end
    if not is_ours then return redis.error_reply('{CLAIMED} by another app') end
    redis.call('SADD', KEYS[2], ARGV[4])
end
local state = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'position', 'last')
local epoch, position, last = state[1], tonumber(state[3]) or 0, state[4]
local is_new = '0'
if not epoch or state[2] ~= ARGV[1] then
    epoch, is_new = ARGV[3], '1'
    position = math.max(math.max(position, tonumber(ARGV[2])) + {JUMP}, seconds() * 1000)
    if not last then last = whole(position) end
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'run', ARGV[1], 'position', whole(position), 'last', last)
elseif tonumber(ARGV[2]) > position then
    position = tonumber(ARGV[2])
    redis.call('HSET', KEYS[1], 'position', whole(position))
end
return {{epoch, whole(position), last, is_new}}
"""
)

ADVANCE = (
    "#!lua flags=allow-oom\n"
    + _WORDS
    + f"""
-- KEYS: state; ARGV: epoch, position. Gives the position, which is that one at least, and the last announcement up to there.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'position', 'last')
if state[1] ~= ARGV[1] then return redis.error_reply('{EPOCH} has changed') end
if tonumber(ARGV[2]) <= tonumber(state[2]) then return {{state[2], state[3]}} end
redis.call('HSET', KEYS[1], 'position', ARGV[2])
return {{ARGV[2], state[3]}}
"""
)

APPEND = (
    "#!lua\n"
    + _WORDS
    + f"""
-- KEYS: state revocations stream alive sent
-- ARGV: epoch, worker, number of the batch, longest stream, then for each: position, expiry, text
-- Gives the positions and the living workers. The same batch once more gives the same, and changes nothing.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'position', 'last')
if state[1] ~= ARGV[1] then return redis.error_reply('{EPOCH} has changed') end
local sent = redis.call('GET', KEYS[5])
if sent then
    local batch = cjson.decode(sent)
    if batch[1] == ARGV[3] then return {{batch[2], redis.call('ZRANGE', KEYS[4], 0, -1)}} end
end
local position, last, positions = tonumber(state[2]), state[3], {{}}
for i = 5, #ARGV, 3 do
    position = math.max(position, tonumber(ARGV[i]) - 1) + 1
    local name = whole(position)
    local entry = name .. ' ' .. ARGV[i + 2]
    redis.call('ZADD', KEYS[2], ARGV[i + 1], entry)
    local ask = ARGV[3] .. '.' .. whole((i - 5) / 3)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], name .. '-0',
        'after', last, 'entry', entry, 'by', ARGV[2], 'ask', ask)
    last = name
    positions[#positions + 1] = name
end
redis.call('HSET', KEYS[1], 'position', last, 'last', last)
redis.call('SET', KEYS[5], cjson.encode({{ARGV[3], positions}}), 'EX', {REMEMBER_BATCH})
for _, over in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', seconds() - {KEEP_EXPIRED}, 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[2], over)
end
return {{positions, redis.call('ZRANGE', KEYS[4], 0, -1)}}
"""
)

RESTORE = (
    "#!lua\n"
    + _WORDS
    + f"""
-- KEYS: state revocations stream; ARGV: epoch, longest stream, then for each: expiry, entry. What is there is left alone.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'position', 'last')
if state[1] ~= ARGV[1] then return redis.error_reply('{EPOCH} has changed') end
local position, last, added = tonumber(state[2]), state[3], 0
for i = 3, #ARGV, 2 do
    if redis.call('ZADD', KEYS[2], 'NX', ARGV[i], ARGV[i + 1]) == 1 then
        position = position + 1
        local name = whole(position)
        redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], name .. '-0', 'after', last, 'entry', ARGV[i + 1])
        last = name
        added = added + 1
    end
end
if added > 0 then redis.call('HSET', KEYS[1], 'position', last, 'last', last) end
return added
"""
)

BEAT = (
    "#!lua flags=allow-oom\n"
    + _WORDS
    + f"""
-- KEYS: state alive workers dead here; ARGV: epoch, worker, facts, seconds after which a worker is dead
-- Gives the living workers, and those of them that have to be declared dead.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return redis.error_reply('{EPOCH} has changed') end
if redis.call('ZSCORE', KEYS[4], ARGV[2]) then return redis.error_reply('{DEAD} by the word of another worker') end
local now = seconds()
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[5], {REMEMBER_DEAD})
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - {REMEMBER_DEAD})
return {{redis.call('ZRANGE', KEYS[2], 0, -1), redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. whole(now - ARGV[4]))}}
"""
)

CLAIM = (
    "#!lua flags=allow-oom\n"
    + _WORDS
    + """
-- KEYS: alive workers dead here; ARGV: worker, seconds after which it is dead
-- Declares it dead, and gives what it was and had; nothing when it lives, or when somebody was quicker.
local heard = redis.call('ZSCORE', KEYS[1], ARGV[1])
local now = seconds()
if not heard or tonumber(heard) >= now - tonumber(ARGV[2]) then return false end
local facts, here = redis.call('HGET', KEYS[2], ARGV[1]), redis.call('HGETALL', KEYS[4])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('DEL', KEYS[4])
return {facts, here}
"""
)

LEAVE = """#!lua flags=allow-oom
-- KEYS: alive workers here; ARGV: worker
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
"""

RECORD = """#!lua
-- KEYS: sessions sessions-expire; ARGV: now, then for each: session, expiry (0: it is over), text
for i = 2, #ARGV, 3 do
    if ARGV[i + 1] == '0' then
        redis.call('HDEL', KEYS[1], ARGV[i])
        redis.call('ZREM', KEYS[2], ARGV[i])
    else
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
        redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i])
    end
end
for _, over in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1], 'LIMIT', 0, 100)) do
    redis.call('HDEL', KEYS[1], over)
    redis.call('ZREM', KEYS[2], over)
end
return 1
"""

ALL = (JOIN, ADVANCE, APPEND, RESTORE, BEAT, CLAIM, LEAVE, RECORD)


@functools.cache
def name_of(text: str) -> str:
    """What Redis calls a script that it has loaded."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
