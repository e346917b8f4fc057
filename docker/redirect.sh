#!/bin/sh
# Redirects the TCP connections that leave this network namespace (a pod, a container) to tracecar's transparent
# listener on loopback, which asks the kernel where they were going (SO_ORIGINAL_DST). Run it in an init container,
# or by `ip netns exec`; it needs NET_ADMIN and root. It keeps to rules of its own, may be run again, and takes
# everything back with --remove.
#
# nftables is tried first: one table holds all of our rules for IPv4 and IPv6, is put in place in one transaction, is
# removed as a whole, cannot be mixed up with what others have there, and needs no NET_RAW. iptables is for older
# kernels and smaller images.

set -eu

usage() {
    cat <<'EOF'
usage: redirect.sh [--remove] [--dry-run] [--help]

  --remove    take the rules away again
  --dry-run   print what would be done, and do nothing

Environment:
  TRACECAR_PORT           where outbound.transparent listens, on 127.0.0.1 and ::1   (15001)
  TRACECAR_UID            the user that tracecar runs as; its own traffic goes out   (65532)
  TRACECAR_PORTS          ports to redirect, "80,443" or "8000-8999", or "all"       (80,443)
  TRACECAR_EXCLUDE_PORTS  ports to leave alone                                       ()
  TRACECAR_EXCLUDE_CIDRS  destinations to leave alone, "10.0.0.0/8,fd00::/8"         ()
  TRACECAR_BACKEND        nft, iptables, or auto                                     (auto)
EOF
}

say() { printf 'redirect.sh: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
wrong() {
    say "$*"
    exit 2
}

remove=
dry_run=
for argument in "$@"; do
    case $argument in
    --remove) remove=yes ;;
    --dry-run) dry_run=yes ;;
    --help | -h)
        usage
        exit 0
        ;;
    *)
        usage >&2
        wrong "there is no option $argument"
        ;;
    esac
done

port=${TRACECAR_PORT:-15001}
uid=${TRACECAR_UID:-65532}
ports=${TRACECAR_PORTS:-80,443}
exclude_ports=${TRACECAR_EXCLUDE_PORTS:-}
exclude_cidrs=${TRACECAR_EXCLUDE_CIDRS:-}
backend=${TRACECAR_BACKEND:-auto}

# Everything below goes into rules, so it is looked at before anything is changed.

is_number() { # text, least, most
    case $1 in
    '' | *[!0-9]* | ??????????*) return 1 ;;
    esac
    [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

check_ports() { # name of the variable, its value
    case $2 in
    '' | ,* | *, | *,,* | *[!0-9,-]*) wrong "$1 is a list of ports such as 80,8000-8999, not \"$2\"" ;;
    esac
    for range in $(printf '%s' "$2" | tr ',' ' '); do
        first=${range%%-*}
        last=${range#*-}
        is_number "$first" 1 65535 && is_number "$last" 1 65535 && [ "$first" -le "$last" ] ||
            wrong "$1 has \"$range\", which is no port and no range of ports"
    done
}

is_number "$port" 1 65535 || wrong "TRACECAR_PORT is a port, not \"$port\""
is_number "$uid" 0 999999999 || wrong "TRACECAR_UID is the number of a user, not \"$uid\""
[ "$uid" -ne 0 ] || wrong "TRACECAR_UID is 0: whatever runs as root would go out untraced; run tracecar as another user"
[ "$ports" = all ] || check_ports TRACECAR_PORTS "$ports"
[ -z "$exclude_ports" ] || check_ports TRACECAR_EXCLUDE_PORTS "$exclude_ports"
case $backend in
auto | nft | iptables) ;;
*) wrong "TRACECAR_BACKEND is nft, iptables or auto, not \"$backend\"" ;;
esac

cidrs_v4=
cidrs_v6=
case $exclude_cidrs in
*[!0-9a-fA-F:./,]*) wrong "TRACECAR_EXCLUDE_CIDRS is a list such as 10.0.0.0/8,fd00::/8, not \"$exclude_cidrs\"" ;;
esac
for cidr in $(printf '%s' "$exclude_cidrs" | tr ',' ' '); do
    case $cidr in
    *:*) cidrs_v6="$cidrs_v6 $cidr" ;;
    *.*) cidrs_v4="$cidrs_v4 $cidr" ;;
    *) wrong "TRACECAR_EXCLUDE_CIDRS has \"$cidr\", which is no address" ;;
    esac
done

has() { command -v "$1" >/dev/null 2>&1; }

# Says why the kernel said no, as far as can be told from what a tool printed.
explain() { # tool, its output
    case $2 in
    *'ermission denied'* | *'not permitted'* | *'must be root'* | *'you need to be root'*)
        fail "$1 may not change rules here: run as root with the capability NET_ADMIN (iptables may need NET_RAW too):
$2"
        ;;
    *) fail "$1 failed:
$2" ;;
    esac
}

# ---- nftables

# Lists as sets: "80, 443".
nft_set() { printf '%s' "$1" | tr -s ', ' ',' | sed 's/^,//; s/,$//; s/,/, /g'; }

nft_remove_text() {
    # Deleting what is not there would be an error, so it is made sure that it is there.
    printf 'table inet tracecar\ndelete table inet tracecar\n'
}

nft_text() {
    nft_remove_text
    [ -z "$remove" ] || return 0
    echo 'table inet tracecar {'
    echo '    chain output {'
    echo '        type nat hook output priority -100; policy accept;'
    echo '        meta l4proto != tcp return'
    echo '        # What tracecar sends would come back to it for ever.'
    echo "        meta skuid $uid return"
    echo '        # The neighbours in the pod, by loopback or by the address of the pod.'
    echo '        oifname "lo" return'
    [ -z "$cidrs_v4" ] || echo "        ip daddr { $(nft_set "$cidrs_v4") } return"
    [ -z "$cidrs_v6" ] || echo "        ip6 daddr { $(nft_set "$cidrs_v6") } return"
    [ -z "$exclude_ports" ] || echo "        tcp dport { $(nft_set "$exclude_ports") } return"
    if [ "$ports" = all ]; then
        echo "        meta l4proto tcp redirect to :$port"
    else
        echo "        tcp dport { $(nft_set "$ports") } redirect to :$port"
    fi
    echo '    }'
    echo '}'
}

run_nft() {
    if [ -n "$dry_run" ]; then
        echo "nft -f - <<'EOF'"
        nft_text
        echo EOF
        return
    fi
    said=$(nft_text | nft -f - 2>&1) || explain nft "$said"
}

# Whether this kernel has what our rules need; asked with --check, which changes nothing.
nft_works() { nft_text | nft --check -f - >/dev/null 2>&1; }

# ---- iptables

# Runs a tool, or prints how it would be run.
run() {
    if [ -n "$dry_run" ]; then
        echo "$*"
        return
    fi
    said=$("$@" 2>&1) || explain "$1" "$said"
}

# The match `multiport` takes 15 ports at most, so each has a rule of its own.
iptables_ports() { # tool, ports, target...
    tool=$1
    list=$2
    shift 2
    for range in $(printf '%s' "$list" | tr ',' ' '); do
        run "$tool" -w -t nat -A TRACECAR -p tcp --dport "$(printf '%s' "$range" | tr '-' ':')" "$@"
    done
}

iptables_remove() { # tool
    # The jump first: from then on nobody is in the chain. There may be several if somebody added them by hand.
    while "$1" -w -t nat -C OUTPUT -p tcp -j TRACECAR >/dev/null 2>&1; do
        run "$1" -w -t nat -D OUTPUT -p tcp -j TRACECAR
        [ -z "$dry_run" ] || break
    done
    if "$1" -w -t nat -L TRACECAR -n >/dev/null 2>&1; then
        run "$1" -w -t nat -F TRACECAR
        run "$1" -w -t nat -X TRACECAR
    fi
}

run_iptables() { # tool, destinations to leave alone
    if ! said=$("$1" -w -t nat -L OUTPUT -n 2>&1); then
        [ -n "$dry_run" ] || explain "$1" "$said"
        say "note: $1 would fail here: $said"
    fi
    iptables_remove "$1"
    [ -z "$remove" ] || return 0
    run "$1" -w -t nat -N TRACECAR
    run "$1" -w -t nat -A TRACECAR -m owner --uid-owner "$uid" -j RETURN
    run "$1" -w -t nat -A TRACECAR -o lo -j RETURN
    for cidr in $2; do
        run "$1" -w -t nat -A TRACECAR -d "$cidr" -j RETURN
    done
    [ -z "$exclude_ports" ] || iptables_ports "$1" "$exclude_ports" -j RETURN
    if [ "$ports" = all ]; then
        run "$1" -w -t nat -A TRACECAR -p tcp -j REDIRECT --to-ports "$port"
    else
        iptables_ports "$1" "$ports" -j REDIRECT --to-ports "$port"
    fi
    # Last, so that nothing passes through half a chain. Unlike with nft there is a moment without redirection where
    # the script is run again.
    run "$1" -w -t nat -A OUTPUT -p tcp -j TRACECAR
}

run_both() {
    run_iptables iptables "$cidrs_v4"
    if ! has ip6tables; then
        say "there is no ip6tables: connections over IPv6 are not redirected"
    elif [ -e /proc/net/if_inet6 ]; then
        run_iptables ip6tables "$cidrs_v6"
    fi
}

# ---- which of the two

# What was put in place by either is taken away, whichever would be chosen today.
if [ "$backend" = auto ] && [ -n "$remove" ] && has nft && nft_works && has iptables; then
    run_nft
    backend=iptables
elif [ "$backend" = auto ]; then
    if has nft && { nft_works || ! has iptables; }; then
        backend=nft
    elif has iptables; then
        backend=iptables
    else
        fail "there is neither nft nor iptables in PATH; install nftables or iptables in this image"
    fi
fi
has "$backend" || fail "there is no $backend in PATH; install it in this image, or leave TRACECAR_BACKEND at auto"

case $backend in
nft) run_nft ;;
iptables) run_both ;;
esac

if [ -n "$dry_run" ]; then
    exit 0
elif [ -n "$remove" ]; then
    say "no rules of tracecar are left"
else
    say "redirecting TCP to ports $ports to 127.0.0.1:$port and [::1]:$port, but for that of user $uid ($backend)"
fi
