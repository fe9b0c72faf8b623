#!/usr/bin/env bash
# Installs claude-harness for the user who calls this, as a service of systemd's user instance.
#
#   manage.sh install      build, install, enable and start it
#   manage.sh update       build and install again, restart, and go back if anything of it fails
#   manage.sh status       the service, and what it says of itself
#   manage.sh logs [ARG…]  its log; arguments go to journalctl, such as -f
#   manage.sh test         ask a question, and show the answer
#   manage.sh uninstall    stop and remove it; says what stays
#
# --dry-run       before or behind the command: only print what would be done
# --program FILE  install or update: take this program instead of building one
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
cache_dir="${XDG_CACHE_HOME:-$HOME/.cache}/claude-harness"
state_dir="${XDG_STATE_HOME:-$HOME/.local/state}/claude-harness"
url="${CLAUDE_HARNESS_URL:-http://127.0.0.1:8013}"
# What `update` replaces, and puts back if it fails.
installed=("$program" "$unit_dir/$unit" "$unit_dir/$socket")
# The oldest Rust that builds it; Cargo.toml has it as rust-version.
rust_version=1.95
dry_run=false
given_program=

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

say() { printf 'manage.sh: %s\n' "$*" >&2; }

fail() {
  say "$@"
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

# Whether the user's systemd can be reached. Asked before anything is built.
need_systemd() {
  need systemctl "this service is run by systemd; without it, run \`cargo run --release\`"
  need curl "install it from your distribution"
  $dry_run && return
  systemctl --user show-environment >/dev/null 2>&1 || fail "your user's systemd cannot be reached: log in \
as this user itself (not by \`su\` or \`sudo\`), or let root run \`loginctl enable-linger $(id -un)\` and set \
XDG_RUNTIME_DIR=/run/user/$(id -u). For a service of the whole machine, see deploy/claude-harness@.service"
}

build() {
  if [ -n "$given_program" ]; then
    [ -x "$given_program" ] || $dry_run || fail "$given_program is no program that can be run"
    return
  fi
  need cargo "install Rust $rust_version or later from rustup, or name a program that is built already by --program"
  if ! $dry_run; then
    local have
    have=$(cargo --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$rust_version" "$have" | sort -V | head -n 1)" = "$rust_version" ] ||
      fail "Rust $rust_version or later is needed, and this is $have: \`rustup update stable\`"
  fi
  run cargo build --release --locked --manifest-path "$root/Cargo.toml"
}

built() {
  local target="${CARGO_TARGET_DIR:-$root/target}"
  printf '%s' "${given_program:-$target/release/claude-harness}"
}

# What a program says its version is.
version_of() { timeout 10 "$1" --version 2>/dev/null || echo "an unknown version"; }

# A path as it stands between quotes in a unit.
in_unit() { printf '%s' "$1" | sed -e 's/[\\"]/\\&/g' -e 's/%/%%/g' -e 's/\$/$$/g'; }

# A text as it stands in the replacement of sed's s|…|…|.
in_sed() { printf '%s' "$1" | sed -e 's/[\\&|]/\\&/g'; }

put_units() {
  run mkdir -p "$unit_dir" || return
  if $dry_run; then
    printf 'would write: %s\n' "$unit_dir/$unit" "$unit_dir/$socket"
    return
  fi
  cp "$here/$socket" "$unit_dir/$socket" &&
    sed -e "s|@PROGRAM@|$(in_sed "$(in_unit "$program")")|g" -e "s|@CONFIG@|$(in_sed "$(in_unit "$config")")|g" \
      "$here/$unit" >"$unit_dir/$unit.new" &&
    mv "$unit_dir/$unit.new" "$unit_dir/$unit"
}

put_program() {
  # By rename: a program that runs cannot be written to.
  run mkdir -p "$bin_dir" &&
    run install -m 755 "$(built)" "$program.new" &&
    run mv "$program.new" "$program"
}

# The first configuration. A service has a short PATH, so the command line is named by its path; one
# that is a script also gets the folder of its interpreter, which npm puts beside it.
put_config() {
  run mkdir -p "$config_dir"
  [ -e "$config" ] && return
  run install -m 600 "$here/harness.toml" "$config"
  local cli
  cli=$(type -P claude || true)
  if [ -z "$cli" ]; then
    say "the command line \`claude\` is not on your PATH: only the model \`demo\` answers until it is
  installed (\`npm install -g @anthropic-ai/claude-code\`, then \`claude auth login\`) and found, in
  ~/.local/bin, ~/.claude/local or as \`[backends.claude] command\` in $config"
    return
  fi
  local quoted=${cli//\\/\\\\} folder
  quoted=${quoted//\"/\\\"}
  folder=$(dirname "$quoted")
  if $dry_run; then
    printf 'would write: command = "%s" to %s\n' "$quoted" "$config"
    return
  fi
  {
    printf '\n# Found on the PATH of whoever ran manage.sh install.\n[backends.claude]\ncommand = "%s"\n' "$quoted"
    if [ "$(head -c 2 "$cli" | tr -d '\0')" = '#!' ]; then
      printf 'env = { PATH = "%s:/usr/local/bin:/usr/bin:/bin" }\n' "$folder"
    fi
    printf '\n[backends.demo]\nprofile = "demo"\n'
  } >>"$config"
}

# Whether the unit runs, and something answers; another program at the address does not count.
answers() {
  for _ in $(seq 50); do
    if systemctl --user --quiet is-active "$unit" && curl -s --max-time 10 -o /dev/null "$url/health"; then
      sleep 1
      systemctl --user --quiet is-active "$unit" && return 0
    fi
    sleep 0.2
  done
  return 1
}

# Lets the service run without a session. Where that is not allowed it still runs, until the logout.
linger() {
  run loginctl enable-linger && return
  say "lingering could not be turned on, so the service ends when you log out: \`sudo loginctl enable-linger $(id -un)\`"
}

cmd_install() {
  need_systemd
  build
  put_program
  put_config
  put_units
  # What the unit lets the service write must be there before it starts.
  run mkdir -p "$HOME/.claude" "$cache_dir" "$state_dir"
  run systemctl --user daemon-reload
  run systemctl --user enable --now "$socket" "$unit" ||
    fail "it was installed, but it does not start: $0 logs"
  linger
  if ! $dry_run; then
    answers || fail "it does not run, or not at $url (CLAUDE_HARNESS_URL): $0 logs"
    cmd_status
  fi
}

# Keeps what is installed now as FILE.previous.
keep_previous() {
  local file
  for file in "${installed[@]}"; do
    rm -f "$file.previous"
    if [ -e "$file" ]; then cp -p "$file" "$file.previous"; fi
  done
}

# Puts back what `keep_previous` kept, and starts it.
go_back() {
  local file
  # Without a socket's unit before, the old program holds the address itself.
  [ -e "$unit_dir/$socket.previous" ] || systemctl --user disable --now "$socket" 2>/dev/null || true
  for file in "${installed[@]}"; do
    rm -f "$file.new"
    if [ -e "$file.previous" ]; then mv "$file.previous" "$file"; else rm -f "$file"; fi
  done
  systemctl --user daemon-reload
  systemctl --user reset-failed "$unit" 2>/dev/null || true
  systemctl --user restart "$unit" && answers
}

# Everything of an update that may fail and must then be undone. Each step says so itself: `set -e`
# does not hold in what an `if` asks for.
replace() {
  put_program || return
  put_units || return
  systemctl --user daemon-reload || return
  if ! systemctl --user --quiet is-active "$socket"; then
    # It was installed without a socket, and holds the address itself.
    systemctl --user stop "$unit" || return
    systemctl --user enable --now "$socket" || return
  fi
  systemctl --user restart "$unit" || return
  answers
}

cmd_update() {
  need_systemd
  [ -e "$program" ] || $dry_run || fail "it is not installed: $0 install"
  build
  if $dry_run; then
    put_program
    put_units
    run systemctl --user daemon-reload
    run systemctl --user restart "$unit"
    return
  fi
  local before after
  before=$(version_of "$program")
  keep_previous
  if replace; then
    after=$(version_of "$program")
    echo "updated: $before -> $after; the one before is $program.previous"
  elif go_back; then
    fail "the new version does not start, or not at $url (CLAUDE_HARNESS_URL); program and units of before are back ($before), and it runs: $0 logs"
  else
    fail "the new version does not start; program and units of before are back ($before), but that does not start either: $0 logs"
  fi
}

cmd_status() {
  run systemctl --user --no-pager --lines=0 status "$unit" || true
  if $dry_run; then
    run curl -s "$url/health"
  elif ! curl -sS --max-time 10 "$url/health"; then
    fail "nothing answers at $url (CLAUDE_HARNESS_URL): $0 install, or $0 logs"
  else
    echo
  fi
}

cmd_logs() { run journalctl --user --unit "$unit" "$@"; }

cmd_test() {
  local model="${CLAUDE_HARNESS_MODEL:-claude-haiku}"
  run curl -sS --fail-with-body "$url/v1/chat/completions" -H 'Content-Type: application/json' \
    -H "Authorization: Bearer ${CLAUDE_HARNESS_KEY:-none}" \
    -d "{\"model\":\"$model\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hi.\"}]}" || {
    local status=$?
    echo
    # 7 is curl's status for an address where nobody listens.
    [ $status = 7 ] && fail "nothing listens at $url (CLAUDE_HARNESS_URL): $0 status"
    fail "no answer; what to do stands in the message above, and in $url/health"
  }
  echo
}

cmd_uninstall() {
  if $dry_run || systemctl --user show-environment >/dev/null 2>&1; then
    run systemctl --user disable --now "$unit" "$socket" || true
  else
    say "your user's systemd cannot be reached: if the service runs, it goes on until the logout"
  fi
  local file
  for file in "${installed[@]}"; do run rm -f "$file" "$file.previous" "$file.new"; done
  run systemctl --user daemon-reload 2>/dev/null || true
  cat <<END
removed: the service, its units and its program. What stays:
  $config_dir  the configuration and the guests in it
  $cache_dir  compiled guests, which can go
  $state_dir  what was used (usage.sqlite), and the last good guests
  ~/.claude  the login of Claude Code, which is its own
  lingering, if nothing else needs it: loginctl disable-linger
END
}

arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=true ;;
    --program)
      [ $# -gt 1 ] || fail "--program wants a file behind it"
      given_program=$2
      shift
      ;;
    -h | --help)
      usage
      exit
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
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
