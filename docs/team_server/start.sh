#!/bin/sh
# A team's tracking server: MLflow with PostgreSQL and passwords. `make server` runs it until Ctrl-C;
# docs/team-server.md says how to set it up for good. The same command again goes on with what is there.
#
#   SERVER_FOLDER     database, artifacts and secrets; its path at most 80 characters (mlruns/server)
#   SERVER_HOST       127.0.0.1; 0.0.0.0 for other machines, too
#   SERVER_PORT       5000
#   SERVER_NAME       by which others call this machine: tracking.lab.example
#   SERVER_ARTIFACTS  where artifacts go: a folder, or s3://BUCKET/PATH (artifacts/ in the folder)
#   SERVER_DATABASE   postgresql://USER@HOST/NAME that is there already; its password: in ~/.pgpass
#   SERVER_WORKERS    processes of the server (4), each about 400 MB
#   SERVER_UPGRADE    yes: bring the database to the installed MLflow first; make a backup before
set -eu

python=${PYTHON:-.venv/bin/python}
scripts=$(dirname "$0")
folder=${SERVER_FOLDER:-mlruns/server}
host=${SERVER_HOST:-127.0.0.1}
port=${SERVER_PORT:-5000}

fail() { echo "make server: $1" >&2; exit 2; }

# PostgreSQL refuses to run as root, for whom Debian's package has made a user.
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

secret() { # NAME: a file that only its owner can read, filled once
  [ -s "$secrets/$1" ] || head -c 24 /dev/urandom | base64 | tr '+/' '-_' >"$secrets/$1"
  cat "$secrets/$1"
}

is_running() { # the database; one that starts or ends at this moment is waited for
  waited=0
  while as_postgres pg_ctl -D "$data" status >/dev/null && [ $waited -lt 100 ]; do
    pg_isready -q -h "$data" && return 0
    waited=$((waited + 1))
    sleep 0.1
  done
  return 1
}

start_database() { # on a socket in a folder of its own: no port, and no password
  programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  PATH=${programs:+$programs:}$PATH
  command -v initdb >/dev/null || fail "there is no PostgreSQL here: apt install postgresql"
  data=$folder/postgresql
  [ ${#data} -le 90 ] || fail "$folder is too long for a socket: set SERVER_FOLDER to a shorter path"
  mkdir -p "$data"
  if [ "$(id -u)" = 0 ]; then chown postgres: "$data"; fi
  # Whoever runs this is the database's owner; the system says who asks.
  [ -e "$data/PG_VERSION" ] ||
    as_postgres initdb -D "$data" -U "$(id -un)" -A peer -E UTF8 --locale C.UTF-8 >/dev/null
  if ! is_running; then
    trap 'as_postgres pg_ctl -D "$data" -m fast stop >/dev/null' EXIT
    as_postgres pg_ctl -D "$data" -l "$data/log" -w start \
      -o "-c listen_addresses='' -c unix_socket_directories='$data' -c unix_socket_permissions=0700" \
      >/dev/null || fail "PostgreSQL does not start: $data/log says why"
  fi
  export PGHOST="$data" PGUSER="$(id -un)"
  psql -d postgres -Atc "SELECT 1 FROM pg_database WHERE datname = 'digitlab'" | grep -q 1 ||
    createdb digitlab
  database=postgresql:///digitlab
}

[ -x "$python" ] || fail "$python is missing: make setup"
"$python" -c 'import psycopg, flask_wtf' 2>/dev/null ||
  fail "psycopg and Flask-WTF are missing: pip install -e '.[server]'"
"$python" -c 'import socket, sys; socket.create_server((sys.argv[1], int(sys.argv[2])))' "$host" "$port" \
  2>/dev/null || fail "$host:$port cannot be listened on: set SERVER_HOST or SERVER_PORT"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
chmod 711 "$folder" # PostgreSQL's user passes through
umask 077
secrets=$folder/secrets
mkdir -p "$secrets"
database=${SERVER_DATABASE:-}
[ -n "$database" ] || start_database
artifacts=${SERVER_ARTIFACTS:-$folder/artifacts}

# Everyone may write to every study; who made it may delete it. A password is checked in 250 ms: once
# a minute, not at every request.
cat >"$secrets/basic_auth.ini" <<INI
[mlflow]
default_permission = EDIT
database_uri = $database
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
INI

# Not as arguments, which all users of this machine can read.
MLFLOW_AUTH_ADMIN_PASSWORD=$(secret admin_password)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret flask_secret_key)
MLFLOW_AUTH_CONFIG_PATH=$secrets/basic_auth.ini
MLFLOW_BACKEND_STORE_URI=$database
export MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_AUTH_CONFIG_PATH MLFLOW_BACKEND_STORE_URI
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
PATH=$(cd "$(dirname "$python")" && pwd):$PATH # which the server calls uvicorn by

echo "starting the server on http://${SERVER_NAME:-$host}:$port (half a minute)"
if [ "${SERVER_UPGRADE:-}" = yes ]; then
  mlflow db upgrade "$database" || fail "the database could not be upgraded"
fi
python -m mlflow.server.auth db upgrade --url "$database" >/dev/null 2>&1 ||
  fail "the database $database cannot be used"
cat <<TEXT
administrator: admin, password in $secrets/admin_password
add a user:    SERVER_FOLDER=$folder SERVER_PORT=$port $python $scripts/add_user.py NAME
then, where runs are recorded:
  export MLFLOW_TRACKING_URI=http://${SERVER_NAME:-$host}:$port
  export MLFLOW_TRACKING_USERNAME=NAME MLFLOW_TRACKING_PASSWORD=...
TEXT
set -- --host "$host" --port "$port" --workers "${SERVER_WORKERS:-4}" --artifacts-destination "$artifacts"
if [ -n "${SERVER_NAME:-}" ]; then
  set -- "$@" --allowed-hosts "$SERVER_NAME,$SERVER_NAME:$port,localhost:*,127.0.0.1:*"
  set -- "$@" --cors-allowed-origins "http://$SERVER_NAME:$port,https://$SERVER_NAME,http://127.0.0.1:$port"
fi
mlflow server --app-name basic-auth "$@" &
server=$!
trap 'kill $server 2>/dev/null' INT TERM HUP

# Before it creates a run digitlab looks for one that has its record's tag. Without this index that takes
# 310 ms where there are a million runs, with it 40 ms as where there are few.
index="CREATE INDEX IF NOT EXISTS digitlab_record ON tags (value) WHERE key = 'digitlab.record'"
until psql -q "$database" -c "$index" 2>/dev/null || ! kill -0 $server 2>/dev/null; do sleep 1; done
while kill -0 $server 2>/dev/null; do
  wait $server || code=$? # a signal ends the waiting first, then the server
done
exit "${code:-0}"
