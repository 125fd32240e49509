#!/usr/bin/env bash
# Train on a Cloud TPU slice of any size: the same command on every worker, until it is done.
#
#   scripts/tpu.sh [--dry-run] create          make the slice (SPOT=1: preemptible; QUEUED=1: wait for it)
#   scripts/tpu.sh [--dry-run] setup           send this checkout to all workers and install
#   scripts/tpu.sh [--dry-run] run MODULE ...  start `python -m MODULE ...` on all workers, in the background
#   scripts/tpu.sh [--dry-run] logs [WORKER]   follow the log of a worker (default: 0)
#   scripts/tpu.sh [--dry-run] stop            save and exit: no more restarts
#   scripts/tpu.sh [--dry-run] on WORKER TEXT  run a shell command on a worker, or on all
#   scripts/tpu.sh [--dry-run] fetch PATH      copy a folder from worker 0; a relative path is in the checkout
#   scripts/tpu.sh [--dry-run] delete          delete the slice: until then it costs money
#   scripts/tpu.sh again COMMAND               run a command again while it exits with 75, 134 or 137
#
# NAME and ZONE say which slice; TYPE and RUNTIME say what `create` makes, such as v5litepod-16 and
# v2-alpha-tpuv5-lite; PROJECT is gcloud's default unless set. --dry-run prints the commands and runs none.
set -euo pipefail

HOME_THERE=contrastive_jax  # the checkout, in the home of each worker
MAX_RESTARTS=${MAX_RESTARTS:-100}
PAUSE=${PAUSE:-10}  # seconds before a restart

dry_run=""
if [[ ${1:-} == --dry-run ]]; then
  dry_run=1
  shift
fi

execute() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

fail() {
  echo "error: $*" >&2
  exit 2
}

need() {
  local name
  for name in "$@"; do
    [[ ${!name:-} ]] || fail "$name is not set; see the head of scripts/tpu.sh"
  done
}

tpu() {  # KIND VERB ARGUMENTS: gcloud for this slice
  need NAME ZONE
  local kind=$1 verb=$2
  shift 2
  execute gcloud compute tpus "$kind" "$verb" "$@" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"}
}

on_workers() {  # WORKER TEXT
  (($# == 2)) || fail "on needs a worker, or all, and one quoted command: on 0 'df -h'"
  tpu tpu-vm ssh "$NAME" "--worker=$1" "--command=$2"
}

create() {
  need NAME ZONE TYPE RUNTIME
  if [[ ${QUEUED:-} ]]; then
    tpu queued-resources create "$NAME" "--node-id=$NAME" "--accelerator-type=$TYPE" \
      "--runtime-version=$RUNTIME" ${SPOT:+--spot}
  else
    tpu tpu-vm create "$NAME" "--accelerator-type=$TYPE" "--version=$RUNTIME" ${SPOT:+--spot}
  fi
}

setup() {
  local archive
  archive=$(mktemp -d)/checkout.tar.gz
  trap 'rm -rf "$(dirname "$archive")"' RETURN
  if [[ ! $dry_run ]]; then
    git ls-files -z --cached --others --exclude-standard |
      tar --null --ignore-failed-read -czf "$archive" --files-from=-
  fi
  tpu tpu-vm scp "$archive" "$NAME:checkout.tar.gz" --worker=all
  # The Python of an image may be older than jax needs; uv installs one. Files that an earlier
  # checkout had must not stay on some workers: they compare their code when they start.
  on_workers all "set -e; mkdir -p $HOME_THERE; cd $HOME_THERE; rm -rf configs contrastive_jax experiments;\
 tar -xzf ../checkout.tar.gz; python3 -m pip install -q --user uv; export PATH=\$HOME/.local/bin:\$PATH;\
 [ -d .venv ] || uv venv -q --python 3.12 .venv;\
 uv pip install -q --python .venv/bin/python -r requirements.txt 'jax[tpu]';\
 .venv/bin/python -c 'import jax; print(jax.__version__)'"
}

run() {
  (($#)) || fail "run needs the module and its flags, such as: run experiments.simclr --config=..."
  local arguments
  arguments=$(printf '%q ' "$@")
  on_workers all "cd $HOME_THERE && if kill -0 \$(cat ../run.pid) 2>/dev/null; then\
 echo 'a run is active; to end it: scripts/tpu.sh stop' >&2; exit 6; fi;\
 MAX_RESTARTS=$MAX_RESTARTS PAUSE=$PAUSE nohup setsid bash scripts/tpu.sh again .venv/bin/python -m $arguments\
 > ../run.log 2>&1 < /dev/null & echo \$! > ../run.pid"
}

again() {  # COMMAND: each start resumes from the last checkpoint
  (($#)) || fail "again needs a command"
  local restarts=0 code child="" stopping=""
  trap 'stopping=1; [[ ! $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM INT
  while true; do
    "$@" &
    child=$!
    [[ ! $stopping ]] || kill -TERM "$child" 2>/dev/null || true  # it came before $! was known
    while kill -0 "$child" 2>/dev/null; do
      wait "$child" || true  # a signal interrupts the wait
    done
    code=0
    wait "$child" || code=$?
    case $code in
      75 | 134 | 137) ;;  # stopped and saved; another worker died; killed
      *) return "$code" ;;
    esac
    [[ ! $stopping ]] || return "$code"
    if ((restarts == MAX_RESTARTS)); then
      echo "gave up after $restarts restarts" >&2
      return "$code"
    fi
    restarts=$((restarts + 1))
    echo "exit code $code: restart $restarts of $MAX_RESTARTS in $PAUSE s" >&2
    child=""
    sleep "$PAUSE"
    [[ ! $stopping ]] || return "$code"
  done
}

stop() {
  on_workers all 'kill -TERM $(cat run.pid)'
}

delete() {
  if [[ ${QUEUED:-} ]]; then
    tpu queued-resources delete "$NAME" --force --quiet
  else
    tpu tpu-vm delete "$NAME" --quiet
  fi
}

command=${1:-}
shift || true
case $command in
  create | setup | stop | delete) "$command" ;;
  run | again) "$command" "$@" ;;
  on) on_workers "$@" ;;
  logs) on_workers "${1:-0}" "tail -n 100 -F run.log" ;;
  fetch)
    (($#)) || fail "fetch needs a path, such as runs/r18"
    [[ $1 == /* ]] && path=$1 || path=$HOME_THERE/$1
    need NAME
    tpu tpu-vm scp --recurse "$NAME:$path" "./$(basename "$1")" --worker=0
    ;;
  *)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
esac
