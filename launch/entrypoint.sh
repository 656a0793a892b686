#!/usr/bin/env bash
# launch/entrypoint.sh LOGS COMMAND...: runs the command, and also writes its output to a file in the
# directory LOGS that is named after this host.
set -euo pipefail
logs=$1
shift
mkdir -p "$logs"
# exec replaces this shell, which would not pass SIGTERM on to the command.
exec "$@" > >(tee -a "$logs/$(hostname).log") 2>&1
