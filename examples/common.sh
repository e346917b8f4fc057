# What the examples share: a Python environment, the tracecar binary, and programs that are started, waited for by
# their own first words, and stopped. Meant to be sourced.
#
# shellcheck shell=bash
set -euo pipefail

examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$examples")
target=${CARGO_TARGET_DIR:-$repository/target}

# The exit status that says "skipped", as automake has it.
readonly SKIPPED=77

work=$(mktemp -d "${TMPDIR:-/tmp}/tracecar-example.XXXXXX")
running=()

# Ends what was started, latest first: tracecar before the service that it stands in front of.
clean_up() {
    local status=$? index
    trap - EXIT
    # Whoever asks again in the meantime gets what is already being done.
    trap '' INT TERM
    for ((index = ${#running[@]} - 1; index >= 0; index--)); do
        kill -TERM "${running[index]}" 2>/dev/null || true
        wait "${running[index]}" 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }

fail() {
    echo "FAILED $*" >&2
    exit 1
}

skip() {
    echo "SKIPPED $*" >&2
    exit "$SKIPPED"
}

# python_with NAME: makes a virtual environment with the pinned packages of examples/NAME/requirements.txt, and sets
# $python. It stays under the target directory, so that a second run needs no network.
python_with() {
    local name=$1 requirements=$examples/$1/requirements.txt environment=$target/examples/$1 log=$work/pip.log
    python=$environment/bin/python
    command -v python3 >/dev/null || skip "$name: there is no python3"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || skip "$name: python3 is older than 3.10"
    if cmp -s "$requirements" "$environment/installed.txt" && "$python" --version >/dev/null 2>&1; then
        return
    fi
    rm -rf "$environment"
    python3 -m venv "$environment" >"$log" 2>&1 ||
        skip "$name: python3 cannot make a virtual environment: $(tail -n 1 "$log")"
    say "installing $(grep -v '^#' "$requirements" | tr '\n' ' ')"
    if ! "$python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >"$log" 2>&1; then
        cat "$log" >&2
        # A pin that the index does not know is our mistake; everything else is taken to be the network.
        grep -q 'from versions: [0-9]' "$log" && fail "$name: a pinned package cannot be had"
        skip "$name: the packages cannot be installed; is PyPI reachable?"
    fi
    cp "$requirements" "$environment/installed.txt"
}

# node_from MAJOR NAME: insists on Node of that version or later.
node_from() {
    command -v node >/dev/null || skip "$2: there is no node"
    (($(node --print 'process.versions.node.split(".")[0]') >= $1)) || skip "$2: node is older than $1"
}

# Sets $tracecar: the binary in TRACECAR_BIN, or a fresh release build.
find_tracecar() {
    tracecar=${TRACECAR_BIN:-}
    if [[ -n $tracecar ]]; then
        [[ -x $tracecar ]] || fail "TRACECAR_BIN names no program: $tracecar"
        return
    fi
    say "building tracecar"
    cargo build --release --quiet --manifest-path "$repository/Cargo.toml"
    tracecar=$target/release/tracecar
}

# start NAME PATTERN PROGRAM...: runs a program in the background and waits until a line of its standard error
# matches the extended regular expression; its first group is left in $address. The log goes to $work/NAME.log.
# Standard output stays where it is if that is a terminal, where tracecar draws trees, and is kept for later if not.
start() {
    local name=$1 pattern=$2 pipe=$work/$1.pipe log=$work/$1.log line
    shift 2
    mkfifo "$pipe"
    if [[ -t 1 ]]; then
        "$@" 2>"$pipe" &
    else
        "$@" >"$work/$name.out" 2>"$pipe" &
    fi
    running+=($!)
    exec 9<"$pipe"
    while IFS= read -r -t 30 -u 9 line; do
        printf '%s\n' "$line" >>"$log"
        if [[ $line =~ $pattern ]]; then
            address=${BASH_REMATCH[1]}
            # Somebody has to read the rest, or the program stops when the pipe is full.
            cat <&9 >>"$log" &
            exec 9<&-
            return
        fi
    done
    cat "$log" >&2 || true
    fail "$name did not start"
}

# start_tracecar SERVICE UPSTREAM [OPTION...]: puts tracecar in front of a service; leaves its address in $address.
# Traces go to standard output, as trees if that is a terminal and as JSON lines if not, unless told otherwise.
start_tracecar() {
    local service=$1 upstream=$2
    shift 2
    OTEL_TRACES_EXPORTER=${OTEL_TRACES_EXPORTER:-console} start tracecar 'passing requests on.*listen=([0-9.:]+)' \
        "$tracecar" run --service "$service" --to "$upstream" --listen 127.0.0.1:0 --admin 127.0.0.1:0 "$@"
}

# Stops tracecar, which was started last, insists that it ends well, and shows the traces not yet shown.
stop_tracecar() {
    local index=$((${#running[@]} - 1)) status=0
    kill -TERM "${running[index]}"
    wait "${running[index]}" || status=$?
    unset "running[index]"
    [[ $status == 0 ]] || fail "tracecar was told to stop and ended with status $status"
    if [[ -f $work/tracecar.out ]]; then
        cat "$work/tracecar.out"
    fi
}

# request WHAT CURL-ARGUMENT...: makes a request to $url and shows the status line and the documented additions.
request() {
    local what=$1 head=$work/head
    shift
    printf '\n-- %s\n' "$what"
    curl --silent --show-error --max-time 30 --output /dev/null --dump-header "$head" "$@"
    grep -iE '^(HTTP/|server-timing|x-correlation-id|location)' "$head" | tr -d '\r'
    # A trace id for everybody who asks is what this is about.
    grep -qi '^server-timing: trace;desc=00-[0-9a-f]\{32\}-' "$head" || fail "no trace id came back for: $what"
}

# drive SCRIPT [OPTION...]: runs a Python program of an example, one that uses common.py and starts tracecar itself.
drive() {
    local script=$1
    shift
    PYTHONPATH=$examples "$python" "$examples/$script" --tracecar "$tracecar" --work "$work" "$@"
}
