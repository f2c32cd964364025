#!/usr/bin/env bash
# The main job in a minute: serve the two models that ship with the project, stream, continue a session, classify.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${SSP_METRICS_URL:-}" ]; then
  printf '\n\033[1m1. Start the server with both models\033[0m\n$ ssp-server serve\n'
  exec bash examples/with_server.sh bash examples/demo.sh
fi

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$'; printf ' %q' "$@"; printf '\n'; "$@"; }
moved='ssp_(generation_tokens|prompt_tokens|classify_sequences|request_success)_total|ssp_time_to_first_token_seconds_count'
scrape() {
  python -c 'import os, urllib.request as u; print(u.urlopen(os.environ["SSP_METRICS_URL"]).read().decode())' |
    grep -E "^($moved)" | sort
}

show ssp health
show ssp models
before=$(scrape || true)

say "2. Stream a completion, token by token"
show ssp generate $'def read_config(path):\n    """' --max-tokens 200 --temperature 0.6 --seed 7

say "3. A session: its state stays on the server, and each call goes on where the last one stopped"
session=$(ssp sessions open --model python-bytes | grep -oE '[A-Za-z0-9_-]+\.[0-9a-f]{32}' | head -n 1)
show ssp sessions append "$session" $'import unittest\n\nclass TestStack(unittest.TestCase):\n'
show ssp generate --session "$session" --max-tokens 120 --temperature 0.6 --seed 1
show ssp generate --session "$session" $'\n    def test_empty(self):\n' --max-tokens 120 --temperature 0.6 --seed 1
show ssp sessions get "$session"
show ssp sessions close "$session"

say "4. Classify DNA: six made-up promoters and six backgrounds (examples/make_fasta.py)"
show ssp classify examples/promoters.fasta

say "5. The metrics that moved"
comm -13 <(printf '%s\n' "$before") <(scrape)

say "Done. Next"
cat <<'NEXT'
  source .venv/bin/activate                    then, in two terminals:
  make serve                                   keep the server running on 127.0.0.1:50051
  ssp generate "import os" --max-tokens 100    talk to it
  ssp-model train --data FILE --out runs/mine  train a model of your own, then `ssp-model convert`
  README.md                                    the Python client, sessions, numbers
NEXT
