#!/usr/bin/env bash
# launch/entrypoint.sh LOGS COMMAND...: runs the command, and also writes its output to a file in LOGS,
# a directory or an address such as gs://BUCKET/logs, that is named after this host.
set -euo pipefail
logs=$1
shift
# exec replaces this shell, which would not pass SIGTERM on to the command.
if [[ $logs == *://* ]]; then
  exec python "$(dirname "$0")/logged.py" "$logs/$(hostname).log" "$@"
fi
mkdir -p "$logs"
exec "$@" > >(tee -a "$logs/$(hostname).log") 2>&1
