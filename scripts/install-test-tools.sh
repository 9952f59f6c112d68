#!/bin/sh
# Installs the programs that the tests use as peers, on Debian and when run as root.
# Elsewhere it says which are missing; the tests that need them are then skipped.
set -eu

missing=""
need() { # program, Debian package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need node nodejs
need npm npm
need systemd-analyze systemd
need curl curl
need wget wget
need jq jq
need shellcheck shellcheck
need git git
need logrotate logrotate
need nginx nginx-light
need caddy caddy
need wrk wrk

[ -n "$missing" ] || exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # shellcheck disable=SC2086 # a list of package names
    apt-get -qq install --yes --no-install-recommends $missing >/dev/null
else
    echo "not installed, and not root on Debian:$missing"
fi
