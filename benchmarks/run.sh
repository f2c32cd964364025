#!/usr/bin/env bash
# All figures of docs/performance.md, into runs/bench; about twenty minutes. Nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/bench
mkdir -p "$out"
if [ -z "${SSP_METRICS_URL:-}" ]; then
  python -m benchmarks.position | tee "$out/position.txt"
  python -m benchmarks.selective_scan | tee "$out/selective_scan.txt"
  python -m benchmarks.engine --no-large | tee "$out/engine.txt"
  python -m benchmarks.front | tee "$out/front.txt"
  python -m benchmarks.resume | tee "$out/resume.txt"
  python -m benchmarks.residence | tee "$out/residence.txt"
  python -m benchmarks.deterministic | tee "$out/deterministic.txt"
  python -m benchmarks.start | tee "$out/start.txt"
  exec bash examples/with_server.sh bash benchmarks/run.sh
fi
for streams in 1 16 64; do
  ssp bench generate --model python-bytes --concurrency "$streams" --num-prompts $((streams * 4)) --prompt-tokens 64 \
    --max-tokens 256 --json "$out/generate-$streams.json" --plot "$out/generate-$streams" | tee "$out/generate-$streams.txt"
done
ssp bench position --model python-bytes --positions 20000 --plot "$out" --json "$out/position.json" | tee "$out/position-served.txt"
ssp bench sessions --model python-bytes --count 1000 --metrics-url "$SSP_METRICS_URL" | tee "$out/sessions.txt"
ssp bench classify --model arabidopsis-promoters --lengths 50 251 1000 | tee "$out/classify.txt"
python benchmarks/fork.py --target "$SSP_TARGET" --model python-bytes | tee "$out/fork.txt"
python benchmarks/step.py --target "$SSP_TARGET" --model python-bytes | tee "$out/step.txt"
python -m benchmarks.crowd | tee "$out/crowd.txt"
