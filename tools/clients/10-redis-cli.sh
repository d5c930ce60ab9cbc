#!/usr/bin/env bash
# redis-cli as a console: every kind of command once, its answer compared.
set -euo pipefail
# shellcheck source=tools/clients/common.sh
. "$(dirname "$0")/common.sh"
start_server --shards 2

cli() { redis-cli -p "$port" "$@" 2>&1; }

is "PING" "$(cli PING)" "PONG"
is "ECHO" "$(cli ECHO "two words")" "two words"
matches "INFO" "$(cli INFO server)" "*# Server*ringway_version*"
matches "HELLO 3" "$(cli -3 HELLO 3)" "*proto*3*"
is "DBSIZE of nothing" "$(cli DBSIZE)" "0"
is "COUNTKEYSINSLOT of nothing" "$(cli CLUSTER COUNTKEYSINSLOT 9000)" "0"
matches "CLIENT LIST" "$(cli CLIENT LIST)" "id=* name=*"
[ "$(cli COMMAND COUNT)" -gt 40 ] || fail "COMMAND COUNT: $(cli COMMAND COUNT)"
matches "COMMAND DOCS" "$(cli COMMAND DOCS port.register)" "*summary*"

# Locks.
is "SET NX PX" "$(cli SET lock:a me NX PX 20000)" "OK"
is "SET NX PX of a taken name" "$(cli SET lock:a you NX PX 20000)" ""
is "GET" "$(cli GET lock:a)" "me"
is "EXISTS" "$(cli EXISTS lock:a lock:b)" "1"
ttl=$(cli PTTL lock:a)
{ [ "$ttl" -gt 10000 ] && [ "$ttl" -le 20000 ]; } || fail "PTTL: $ttl"
is "PEXPIRE" "$(cli PEXPIRE lock:a 15000)" "1"
unlock='if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end'
is "EVAL of another's unlock" "$(cli EVAL "$unlock" 1 lock:a you)" "0"
is "EVAL of the owner's unlock" "$(cli EVAL "$unlock" 1 lock:a me)" "1"
is "GET of a free name" "$(cli GET lock:a)" ""
digest=$(cli SCRIPT LOAD "$unlock")
is "SET EX" "$(cli SET lock:a me EX 20 NX)" "OK"
is "EVALSHA" "$(cli EVALSHA "$digest" 1 lock:a me)" "1"
cli SET lock:a me NX PX 20000 >/dev/null
is "DEL" "$(cli DEL lock:a lock:b)" "1"
matches "SET without NX" "$(cli SET a b)" "UNSUPPORTED *"

# Names live as long as the connection: one redis-cli for the whole story.
story=$(cli <<'COMMANDS'
PORT.REGISTER svc/a svc/b
PORT.QUERY nobody
PORT.RELEASE svc/b
PORT.LIST COUNT 4096 PREFIX svc/
PORT.LIST CURSOR 8192: COUNT 4096 PREFIX svc/
DBSIZE
COMMANDS
)
matches "PORT.* in one connection" "$story" "1
[0-9a-f]*
1
[0-9a-f]*

1
*svc/a*
1"
for _ in $(seq 1000); do
    [ "$(cli DBSIZE)" != 0 ] || break
done
is "the names of a connection that ended" "$(cli PORT.QUERY svc/a)" ""

# A session is not bound to the connection.
opened=$(cli SESSION.OPEN 7 LEASE 20000 ADDRESS 10.0.0.7:80)
matches "SESSION.OPEN" "$opened" "session
*
secret
*
lease_ms
20000
epoch
1
resumed
0"
session=$(sed -n 2p <<<"$opened")
secret=$(sed -n 4p <<<"$opened")
is "SESSION.RENEW" "$(cli SESSION.RENEW "$session" "$secret")" "OK"
matches "SESSION.INFO" "$(cli SESSION.INFO "$session")" "*10.0.0.7:80*"
matches "SESSION.NODE" "$(cli SESSION.NODE 7)" "*$session*"
matches "SESSION.LIST" "$(cli SESSION.LIST)" "*$session*"
is "SESSION.KILL" "$(cli SESSION.KILL "$session")" "OK"
matches "SESSION.RENEW of a dead one" "$(cli SESSION.RENEW "$session" "$secret")" "NOSESSION *"

# A cluster of its shards.
matches "CLUSTER INFO" "$(cli CLUSTER INFO)" "*cluster_state:ok*"
is "CLUSTER KEYSLOT" "$(cli CLUSTER KEYSLOT 'foo{bar}baz')" "5061"
matches "CLUSTER SLOTS" "$(cli CLUSTER SLOTS)" "*16383*"
is "redis-cli -c, SET" "$(cli -c SET lock:c me NX PX 20000)" "OK"
is "redis-cli -c, GET" "$(cli -c GET lock:c)" "me"
matches "SHARD.MAP" "$(cli SHARD.MAP)" "0
0
8191
*"
matches "SHARD.STATS" "$(cli SHARD.STATS 1)" "{*\"shard\":1*}"
matches "an unknown command" "$(cli NO.SUCH)" "ERR *"

stop_server
echo "redis-cli: ok"
