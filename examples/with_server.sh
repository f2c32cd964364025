#!/usr/bin/env bash
# Runs a command beside a server of the shipped models on free ports, and stops the server after it.
# The command finds it by SSP_TARGET (gRPC) and SSP_METRICS_URL (Prometheus).
set -euo pipefail

work=$(mktemp -d)
server=""
cleanup() {
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT

ssp-server serve --port 0 --metrics-port 0 --log-format json 2>"$work/log" &
server=$!
for _ in $(seq 1200); do
  grep -q '"serving"' "$work/log" && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
field() { grep '"serving"' "$work/log" | python -c "import json, sys; print(json.loads(sys.stdin.readline())['$1'])"; }
SSP_TARGET=$(field address)
SSP_METRICS_URL="http://127.0.0.1:$(field metrics_port)/metrics"
export SSP_TARGET SSP_METRICS_URL
"$@"
