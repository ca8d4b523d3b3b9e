#!/bin/sh
# What the official image's entrypoint does for docker-compose.yml, on Debian's PostgreSQL:
# a cluster at the first start, a superuser with a password, one database, then the server.
set -eu
[ "$1" = postgres ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chown postgres: "$PGDATA" /var/run/postgresql
  exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  printf %s "$POSTGRES_PASSWORD" >/tmp/password
  initdb --username "$user" --pwfile /tmp/password --auth-host scram-sha-256 --no-sync
  rm /tmp/password
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "create database ${POSTGRES_DB:-postgres};" |
    grep -v ' postgres;' | postgres --single postgres >/dev/null
fi
exec "$@" -c listen_addresses='*'
