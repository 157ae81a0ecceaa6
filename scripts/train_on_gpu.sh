#!/usr/bin/env bash
# One run within ten minutes of one GPU: little goes there, little comes back.
#
#     scripts/train_on_gpu.sh CONFIG.toml OUT [MINUTES]
#
# CONFIG.toml names sources, or a pool of features that was made elsewhere (data.pool), since extraction takes longer
# than training. OUT gets config.toml, log.jsonl and the best weights in float16, in files of at most 16 MB. Without a
# GPU it trains on the CPU for as long, which shows that everything is there.
set -euo pipefail
config=$1 out=$2 minutes=${3:-8}
run=$(mktemp -d)
trap 'echo "stopped; what there is of the run lies in $run" >&2' ERR
mkdir -p "$out"
python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: training on the CPU")' >&2
lightglue train "$config" -o "$run" --minutes "$minutes" --precision auto --json | tee "$out/result.json"
cp "$run/config.toml" "$run/log.jsonl" "$out/"
python "$(dirname "$0")/shard_weights.py" "$run/best/weights.safetensors" "$out"
nvidia-smi --query-gpu=name,memory.used,utilization.gpu --format=csv 2>/dev/null >"$out/gpu.csv" || true
rm -r "$run"
