#!/usr/bin/env bash
# Installs claude-harness for the user who calls this, as a service of systemd's user instance.
#
#   manage.sh install      build, install, enable and start it
#   manage.sh update       build and install again, restart, and go back if it does not start
#   manage.sh status       the service, and what it says of itself
#   manage.sh logs [ARG…]  its log; arguments go to journalctl, such as -f
#   manage.sh test         ask a question, and show the answer
#   manage.sh uninstall    stop and remove it; the configuration stays
#
# --dry-run, before or behind the command, only prints what would be done.
#
# Where the configuration listens elsewhere than on 127.0.0.1:8013 or has `api_keys`, set
# CLAUDE_HARNESS_URL and CLAUDE_HARNESS_KEY; CLAUDE_HARNESS_MODEL is the model that `test` asks.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
unit=claude-harness.service
socket=claude-harness.socket
bin_dir="${XDG_BIN_HOME:-$HOME/.local/bin}"
program="$bin_dir/claude-harness"
config_dir="${XDG_CONFIG_HOME:-$HOME/.config}/claude-harness"
config="$config_dir/harness.toml"
unit_dir="${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"
url="${CLAUDE_HARNESS_URL:-http://127.0.0.1:8013}"
dry_run=false

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

fail() {
  printf 'manage.sh: %s\n' "$*" >&2
  exit 1
}

# Does something, or says what would be done.
run() {
  if $dry_run; then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

need() { command -v "$1" >/dev/null 2>&1 || $dry_run || fail "\`$1\` is needed: $2"; }

built() {
  local target="${CARGO_TARGET_DIR:-$root/target}"
  printf '%s/release/claude-harness' "$target"
}

build() {
  need cargo "install Rust from your distribution or from rustup"
  run cargo build --release --locked --manifest-path "$root/Cargo.toml"
}

put_unit() {
  run mkdir -p "$unit_dir"
  if $dry_run; then
    printf 'would write: %s\n' "$unit_dir/$unit" "$unit_dir/$socket"
    return
  fi
  cp "$here/$socket" "$unit_dir/$socket"
  sed -e "s|@PROGRAM@|$program|g" -e "s|@CONFIG@|$config|g" "$here/$unit" >"$unit_dir/$unit"
}

put_program() {
  run mkdir -p "$bin_dir"
  if [ -e "$program" ]; then run cp -p "$program" "$program.previous"; fi
  # By rename: a program that runs cannot be written to.
  run install -m 755 "$(built)" "$program.new"
  run mv "$program.new" "$program"
}

put_config() {
  run mkdir -p "$config_dir"
  if [ ! -e "$config" ]; then run install -m 600 "$here/harness.toml" "$config"; fi
}

# Whether the unit runs, and something answers; another program at the address does not count.
answers() {
  for _ in $(seq 50); do
    if systemctl --user --quiet is-active "$unit" && curl -s -o /dev/null "$url/health"; then
      sleep 1
      systemctl --user --quiet is-active "$unit" && return 0
    fi
    sleep 0.2
  done
  return 1
}

cmd_install() {
  need systemctl "this service is run by systemd; without it, run \`cargo run --release\`"
  need curl "install it from your distribution"
  build
  put_program
  put_config
  put_unit
  # What the unit lets the service write must be there before it starts.
  run mkdir -p "$HOME/.claude" "$HOME/.cache/claude-harness"
  run systemctl --user daemon-reload
  run systemctl --user enable --now "$socket" "$unit"
  run loginctl enable-linger
  if ! $dry_run; then
    answers || fail "it does not run, or not at $url (CLAUDE_HARNESS_URL): $0 logs"
    cmd_status
  fi
}

cmd_update() {
  [ -e "$program" ] || $dry_run || fail "it is not installed: $0 install"
  build
  put_program
  put_unit
  run systemctl --user daemon-reload
  if ! systemctl --user --quiet is-active "$socket" 2>/dev/null; then
    # It was installed without a socket, and holds the address itself.
    run systemctl --user stop "$unit"
    run systemctl --user enable --now "$socket"
  fi
  run systemctl --user restart "$unit"
  if ! $dry_run && ! answers; then
    mv "$program.previous" "$program"
    systemctl --user restart "$unit"
    fail "the new version does not run, or not at $url (CLAUDE_HARNESS_URL), so the one before is back: $0 logs"
  fi
}

cmd_status() {
  run systemctl --user --no-pager --lines=0 status "$unit" || true
  run curl -s "$url/health"
  echo
}

cmd_logs() { run journalctl --user --unit "$unit" "$@"; }

cmd_test() {
  local model="${CLAUDE_HARNESS_MODEL:-claude-haiku}"
  run curl -sS --fail-with-body "$url/v1/chat/completions" -H 'Content-Type: application/json' \
    -H "Authorization: Bearer ${CLAUDE_HARNESS_KEY:-none}" \
    -d "{\"model\":\"$model\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hi.\"}]}"
  echo
}

cmd_uninstall() {
  run systemctl --user disable --now "$unit" "$socket" || true
  run rm -f "$unit_dir/$unit" "$unit_dir/$socket" "$program" "$program.previous"
  run systemctl --user daemon-reload
  echo "the configuration stays in $config_dir"
}

arguments=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=true ;;
    -h | --help)
      usage
      exit
      ;;
    *) arguments+=("$argument") ;;
  esac
done
set -- "${arguments[@]+"${arguments[@]}"}"

case ${1:-} in
  install | update | status | logs | test | uninstall)
    command=$1
    shift
    "cmd_$command" "$@"
    ;;
  "")
    usage >&2
    exit 2
    ;;
  *) fail "\`$1\` is unknown: install, update, status, logs, test or uninstall" ;;
esac
