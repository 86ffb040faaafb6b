# shellcheck shell=bash
# A throwaway PostgreSQL for scripts that source this file; nothing here runs by itself.
#
#   postgres_install_if_missing [PACKAGE…]   installs PostgreSQL when it is not there, and the packages named with it
#   postgres_start [SETTING=VALUE…]          starts one on a free port; sets PG_URL, PG_BIN, PG_ROOM and PG_PORT
#   postgres_stop                            takes it down with all that it holds
#
# Installing needs root. PostgreSQL refuses to run as root, so it is then run as the user postgres, or nobody.

postgres_find() {
  local bin
  bin=$(find /usr/lib/postgresql -maxdepth 3 -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1) || true
  if [ -z "$bin" ] && command -v initdb >/dev/null; then bin=$(dirname "$(command -v initdb)"); fi
  printf '%s' "$bin"
}

postgres_install_if_missing() {
  local missing=("$@")
  [ -n "$(postgres_find)" ] || missing=(postgresql "${missing[@]}")
  if [ "${#missing[@]}" -gt 0 ]; then
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
}

postgres_as_owner() { if [ "$(id -u)" = 0 ]; then runuser -u "$PG_OWNER" -- "$@"; else "$@"; fi; }

postgres_start() {
  PG_BIN=$(postgres_find)
  # Below /tmp, so that a user other than root can own it.
  PG_ROOM=$(mktemp -d /tmp/grantd-postgres.XXXXXX)
  PG_OWNER=postgres
  if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 || PG_OWNER=nobody
    chown "$PG_OWNER" "$PG_ROOM"
  fi
  chmod 755 "$PG_ROOM"
  postgres_as_owner "$PG_BIN/initdb" -D "$PG_ROOM/data" -U postgres -A trust -E UTF8 --no-sync >/dev/null
  PG_PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  local options="-p $PG_PORT -k $PG_ROOM -c listen_addresses=127.0.0.1" setting
  for setting in "$@"; do options+=" -c $setting"; done
  postgres_as_owner "$PG_BIN/pg_ctl" -D "$PG_ROOM/data" -w -l "$PG_ROOM/log" start -o "$options" >/dev/null
  PG_URL="postgres://postgres@127.0.0.1:$PG_PORT/postgres"
  export PG_URL PG_BIN PG_ROOM PG_PORT
}

# Safe to call before, after, and more than once.
postgres_stop() {
  [ -n "${PG_ROOM:-}" ] || return 0
  postgres_as_owner "$PG_BIN/pg_ctl" -D "$PG_ROOM/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$PG_ROOM"
  PG_ROOM=
}
