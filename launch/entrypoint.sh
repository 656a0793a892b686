#!/usr/bin/env bash
# launch/entrypoint.sh LOGS COMMAND...: runs the command; what it prints is also kept in a file of
# the directory LOGS that is called after this host.
set -euo pipefail
logs=$1
shift
mkdir -p "$logs"
# In place of this shell, which would not pass SIGTERM on to it.
exec "$@" > >(tee -a "$logs/$(hostname).log") 2>&1
