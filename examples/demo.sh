#!/usr/bin/env bash
# The main job in a minute: serve the two models that ship with the project, stream, continue a session, classify.
set -euo pipefail
cd "$(dirname "$0")/.."

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

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$'; printf ' %q' "$@"; printf '\n'; "$@"; }
metric_names='ssp_(generation_tokens_total|prompt_tokens_total|classify_sequences_total|time_to_first_token_seconds_count|request_success_total|sessions)'
scrape() { python -c 'import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())' \
  "http://127.0.0.1:$metrics_port/metrics" | grep -E "^$metric_names" | sort; }

say "1. Start the server with both models"
echo '$ ssp-server serve'
ssp-server serve --port 0 --metrics-port 0 --log-format json 2>"$work/log" &
server=$!
for _ in $(seq 1200); do
  grep -q '"serving"' "$work/log" && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
field() { grep '"serving"' "$work/log" | python -c "import json, sys; print(json.loads(sys.stdin.readline())['$1'])"; }
SSP_TARGET=$(field address); export SSP_TARGET
metrics_port=$(field metrics_port)
show ssp health
show ssp models
scrape >"$work/before"

say "2. Stream a completion, token by token"
show ssp generate $'def read_config(path):\n    """' --max-tokens 200 --temperature 0.6 --seed 7

say "3. A session: its state stays on the server, and each call goes on where the last one stopped"
session=$(ssp sessions open --model python-bytes | grep -oE '[A-Za-z0-9_-]+\.[0-9a-f]{32}' | head -n 1)
echo "session $session"
show ssp sessions append "$session" $'import unittest\n\nclass TestStack(unittest.TestCase):\n'
show ssp generate --session "$session" --max-tokens 120 --temperature 0.6 --seed 1
show ssp generate --session "$session" $'\n    def test_empty(self):\n' --max-tokens 120 --temperature 0.6 --seed 1
show ssp sessions get "$session"
show ssp sessions close "$session"

say "4. Classify DNA: six made-up promoters and six backgrounds (examples/make_fasta.py)"
show ssp classify examples/promoters.fasta

say "5. What the metrics saw"
scrape | diff --changed-group-format='%>' --unchanged-group-format='' "$work/before" - || true

say "Done. Next"
cat <<'NEXT'
  make serve                                   keep the server running on 127.0.0.1:50051
  ssp generate "import os" --max-tokens 100    talk to it (source .venv/bin/activate first)
  ssp-model train --data FILE --out runs/mine  train a model of your own, then `ssp-model convert`
  README.md                                    the Python client, sessions, numbers
NEXT
