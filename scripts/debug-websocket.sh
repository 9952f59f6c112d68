#!/bin/sh
# Says in plain words whether the JetCamer agent of this machine is connected, and if not, why
# and what to do. Reads only: it changes nothing and prints no secret. Needs a POSIX shell, sed,
# awk and one of curl, wget, python3; uses systemctl, journalctl and `jetcamer doctor` where
# they are there.
#
# Exit status: 0 connected and healthy; 1 the agent runs and is not connected yet, or something
# wants attention; 2 the agent does not run, or its link fails.

set -u
LC_ALL=C
export LC_ALL

UNIT=jetcamer-agent
DEFAULT_CONFIG=/etc/jetcamer/agent.config.json
DEFAULT_LISTEN=127.0.0.1:9811

usage() {
    cat <<'END'
Usage: debug-websocket.sh [--quick] [--config FILE]

  --quick         do not run `jetcamer doctor` at the end
  --config FILE   the agent's configuration file (also JETCAMER_AGENT_CONFIG;
                  default /etc/jetcamer/agent.config.json)

The address of the agent's local interface is JETCAMER_WEB (host:port) where that is set,
else webListen of the configuration file, else 127.0.0.1:9811.

Exit status: 0 healthy, 1 degraded, 2 not running or failing.
END
}

QUICK=no
CONFIG=${JETCAMER_AGENT_CONFIG:-}
while [ $# -gt 0 ]; do
    case $1 in
        --quick) QUICK=yes ;;
        --config)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            CONFIG=$2
            shift
            ;;
        --config=*) CONFIG=${1#--config=} ;;
        -h | --help) usage; exit 0 ;;
        *)
            printf 'debug-websocket.sh: unknown argument: %s\n' "$1" >&2
            usage >&2
            exit 2
            ;;
    esac
    shift
done
CONFIG_NAMED=${CONFIG:+yes}
CONFIG=${CONFIG:-$DEFAULT_CONFIG}

# --- what the report is made of -----------------------------------------------------------

STATUS=0
ok() { printf '[ ok ] %s\n' "$*"; }
info() { printf '[info] %s\n' "$*"; }
warn() {
    printf '[warn] %s\n' "$*"
    [ "$STATUS" -ge 1 ] || STATUS=1
}
fail() {
    printf '[FAIL] %s\n' "$*"
    STATUS=2
}
todo() { printf '       %s\n' "$@"; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- JSON without jq ----------------------------------------------------------------------

# Reads a JSON object on standard input and prints one line "name<TAB>value" for each scalar in
# it; a member of an inner object is named outer.inner. With an argument, only the member of
# that name, without its name. Control characters are printed as spaces: a peer's words may not
# steer the terminal. Status 1 where the text is not a JSON object.
json_members() {
    awk -v wanted="${1:-}" '
    function quit() { exit 1 }
    function skip() { while (pos <= size && index(" \t\r\n", substr(text, pos, 1))) pos++ }
    function hex4(digits,    i, v, k) {
        v = 0
        for (i = 1; i <= 4; i++) {
            k = index("0123456789abcdef", tolower(substr(digits, i, 1)))
            if (!k || length(digits) < 4) quit()
            v = v * 16 + k - 1
        }
        return v
    }
    function utf8(c) {
        if (c < 32) return " "
        if (c < 128) return sprintf("%c", c)
        if (c < 2048) return sprintf("%c%c", 192 + int(c / 64), 128 + c % 64)
        if (c < 65536)
            return sprintf("%c%c%c", 224 + int(c / 4096), 128 + int(c / 64) % 64, 128 + c % 64)
        return sprintf("%c%c%c%c", 240 + int(c / 262144), 128 + int(c / 4096) % 64, \
            128 + int(c / 64) % 64, 128 + c % 64)
    }
    function string(    out, c, code, low) {
        pos++
        out = ""
        while (pos <= size) {
            c = substr(text, pos++, 1)
            if (c == "\"") return out
            if (c != "\\") { out = out c; continue }
            if (pos > size) quit()
            c = substr(text, pos++, 1)
            if (index("\"\\/", c)) out = out c
            else if (index("bfnrt", c)) out = out " "
            else if (c == "u") {
                code = hex4(substr(text, pos, 4)); pos += 4
                if (code >= 55296 && code < 56320 && substr(text, pos, 2) == "\\u") {
                    low = hex4(substr(text, pos + 2, 4)); pos += 6
                    code = 65536 + (code - 55296) * 1024 + low - 56320
                }
                out = out utf8(code)
            } else quit()
        }
        quit()
    }
    function show(name, value) {
        gsub(/[\001-\037\177]/, " ", name); gsub(/\302[\200-\237]/, " ", name)
        gsub(/[\001-\037\177]/, " ", value); gsub(/\302[\200-\237]/, " ", value)
        if (wanted == "") lines = lines name "\t" value "\n"
        else if (name == wanted) lines = value "\n"
    }
    function value(name, depth,    c, key, i, word) {
        if (depth > 20) quit()
        skip()
        c = substr(text, pos, 1)
        if (c == "{") {
            pos++; skip()
            if (substr(text, pos, 1) == "}") { pos++; return }
            while (1) {
                skip()
                if (substr(text, pos, 1) != "\"") quit()
                key = string(); skip()
                if (substr(text, pos++, 1) != ":") quit()
                value(name == "" ? key : name "." key, depth + 1); skip()
                c = substr(text, pos++, 1)
                if (c == "}") return
                if (c != ",") quit()
            }
        }
        if (c == "[") {
            pos++; skip()
            if (substr(text, pos, 1) == "]") { pos++; return }
            for (i = 0; ; i++) {
                value(name "." i, depth + 1); skip()
                c = substr(text, pos++, 1)
                if (c == "]") return
                if (c != ",") quit()
            }
        }
        if (c == "\"") { show(name, string()); return }
        word = ""
        while (pos <= size && index("+-.0123456789abcdefghijklmnopqrstuvwxyzE", substr(text, pos, 1)))
            word = word substr(text, pos++, 1)
        if (word == "null") return
        if (word != "true" && word != "false" && word !~ /^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$/)
            quit()
        show(name, word)
    }
    { text = text $0 "\n" }
    END {
        size = length(text); pos = 1
        skip()
        if (substr(text, pos, 1) != "{") quit()
        value("", 0); skip()
        if (pos <= size) quit()
        printf "%s", lines
    }'
}

# --- HTTP without curl --------------------------------------------------------------------

WORK=$(mktemp -d "${TMPDIR:-/tmp}/jetcamer-debug.XXXXXX") || exit 2
trap 'rm -rf "$WORK"' EXIT
trap 'exit 2' HUP INT TERM

# fetch URL [SECONDS]: the body goes to $WORK/body, the HTTP status to $HTTP ("000": no answer),
# what went wrong to $TROUBLE. Never through a proxy. The token is for the agent only, and is handed
# over in a file or in the environment, where other users cannot read it, never as an argument.
fetch() {
    HTTP=000
    TROUBLE=
    token=
    case $1 in "$BASE"/*) token=$TOKEN ;; esac
    : >"$WORK/body"
    : >"$WORK/trouble"
    if have curl; then
        if [ -n "$token" ]; then
            HTTP=$(printf 'header = "Authorization: Bearer %s"\n' "$token" |
                curl -q -sS --noproxy '*' --max-time "${2:-5}" -K - -o "$WORK/body" \
                    -w '%{http_code}' "$1" 2>"$WORK/trouble")
        else
            HTTP=$(curl -q -sS --noproxy '*' --max-time "${2:-5}" -o "$WORK/body" \
                -w '%{http_code}' "$1" 2>"$WORK/trouble")
        fi
    elif have wget; then
        (
            unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
            umask 077
            printf '%s\n' "${token:+header = Authorization: Bearer $token}" >"$WORK/wgetrc"
            WGETRC=$WORK/wgetrc
            export WGETRC
            set -- "$1" "${2:-5}"
            if wget --version 2>/dev/null | grep -q GNU; then
                wget -nv -S -t 1 -T "$2" -O "$WORK/body" "$1"
            else
                wget -S -T "$2" -O "$WORK/body" "$1"
            fi
        ) 2>"$WORK/trouble"
        HTTP=$(sed -n 's|.*HTTP/1\.[01] \([0-9][0-9][0-9]\).*|\1|p' "$WORK/trouble" | tail -n 1)
    else
        HTTP=$(JETCAMER_DEBUG_TOKEN=$token python3 - "$1" "${2:-5}" "$WORK/body" 2>"$WORK/trouble" <<'END'
import os, sys, urllib.error, urllib.request
url, seconds, path = sys.argv[1], float(sys.argv[2]), sys.argv[3]
request = urllib.request.Request(url)
if os.environ["JETCAMER_DEBUG_TOKEN"]:
    request.add_header("Authorization", "Bearer " + os.environ["JETCAMER_DEBUG_TOKEN"])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    answer = opener.open(request, timeout=seconds)
except urllib.error.HTTPError as error:
    answer = error
except Exception as error:
    sys.exit(str(error))
with open(path, "wb") as body:
    body.write(answer.read())
print(answer.status)
END
        )
    fi
    HTTP=${HTTP:-000}
    TROUBLE=$(tail -n 1 "$WORK/trouble" | tr -d '\000-\037\177')
}

# --- where the agent listens --------------------------------------------------------------

if ! have awk || ! { have curl || have wget || have python3; }; then
    fail "this script needs awk and one of curl, wget or python3"
    exit 2
fi

# closed_folder FILE: the folder that keeps this user from seeing whether there is the file.
closed_folder() {
    folder=$1
    while :; do
        case $folder in
            /*/*) folder=${folder%/*} ;;
            /*) folder=/ ;;
            */*) folder=${folder%/*} ;;
            *) folder=. ;;
        esac
        [ ! -d "$folder" ] || break
    done
    [ -x "$folder" ] || printf '%s\n' "$folder"
}

TOKEN=
LISTEN=
USER_NAME=$(id -un 2>/dev/null || id -u)
if [ ! -e "$CONFIG" ] && CLOSED=$(closed_folder "$CONFIG") && [ -n "$CLOSED" ]; then
    info "configuration: $USER_NAME cannot look at $CONFIG ($CLOSED is closed to this user), so the defaults are assumed"
    todo "To see it, run this as: sudo $0"
elif [ ! -e "$CONFIG" ]; then
    if [ -n "$CONFIG_NAMED" ]; then
        fail "configuration: there is no file $CONFIG; the agent refuses to start without a file that was named"
    else
        ok "configuration: no $CONFIG, so the defaults hold"
    fi
elif [ ! -r "$CONFIG" ]; then
    info "configuration: $CONFIG is not readable for $USER_NAME, so the defaults are assumed"
    todo "To see it, run this as: sudo $0"
elif ! json_members "" <"$CONFIG" >/dev/null; then
    fail "configuration: $CONFIG is not valid JSON; the agent does not start with it"
    todo "Correct it (a comma too many or too few is usual), then: sudo systemctl restart $UNIT"
else
    ok "configuration: $CONFIG"
    LISTEN=$(json_members webListen <"$CONFIG")
    TOKEN=$(json_members webToken <"$CONFIG" | tr -d '\042\134')
fi
LISTEN=${JETCAMER_WEB:-${LISTEN:-$DEFAULT_LISTEN}}
LISTEN=${LISTEN#http://}
LISTEN=${LISTEN%/}
case $LISTEN in
    :* | 0.0.0.0:*) LISTEN=127.0.0.1:${LISTEN##*:} ;;
    '[::]':*) LISTEN="[::1]:${LISTEN##*:}" ;;
esac
BASE=http://$LISTEN

# --- words for what the agent tells -------------------------------------------------------

# member NAME: the member of the status answer, empty where it is absent.
member() { printf '%s\n' "$MEMBERS" | sed -n "s/^$1	//p" | head -n 1; }

# advise WORDS: what to do about the cause that lastError or the log names.
advise() {
    case $1 in
        *invalid_signature*)
            todo "The server has another secret for this agent. Compare wsSecret (or the AWS secret key)" \
                "with the server's secret for agent \"$AGENT\"; they must be the same text." ;;
        *unknown_agent*)
            todo "The server does not know agent \"$AGENT\". Register it there, or set instanceId in" \
                "$CONFIG to the name that the server knows." ;;
        *invalid_timestamp*)
            todo "The clocks differ by more than 5 minutes. Look at: timedatectl" ;;
        *replaced_by_new_connection*)
            todo "Another agent with the same agentId \"$AGENT\" connected. Two machines may not share" \
                "an instanceId: give one of them another in $CONFIG." ;;
        *auth_timeout*)
            todo "The server did not receive the auth message in time: look for a proxy that holds messages back." ;;
        *[Pp]roxy*)
            todo "The proxy refuses or is not there. Check wsProxy in $CONFIG, or HTTPS_PROXY and NO_PROXY" \
                "in the service's environment." ;;
        *"answer to the TLS"* | *"answer to the WebSocket"*)
            todo "Something accepts the connection and then says nothing: the server hangs, or another service" \
                "listens there. Check wsApiUrl and look into the server's log." ;;
        *"not speak TLS"*)
            todo "The server at that port has no TLS. Check the port; without TLS the URL begins with ws://." ;;
        *certificate* | *TLS* | *tls* | *SAN*)
            todo "The server's certificate is not accepted. For a private CA set wsCaFile; where the URL" \
                "names an IP address, the certificate must carry it as an IP SAN, or set wsServerName." ;;
        *refused*)
            todo "Nothing listens there, or a firewall refuses. Check that the server runs at that address and port." ;;
        *"not found"* | *resol* | *DNS* | *dns* | *lookup*)
            case $1 in
                *404*) todo "The server has no WebSocket at that path: the URL usually ends in /agent." ;;
                *) todo "The host name of wsApiUrl has no address. Check its spelling and this machine's DNS." ;;
            esac ;;
        *unreachable* | *route*)
            todo "There is no route to the server. Check the network, the routes and the firewall." ;;
        *404*) todo "The server has no WebSocket at that path: the URL usually ends in /agent." ;;
        *" 400"*)
            todo "The server does not take this request: the path is usually /agent; a port for TLS wants wss://." ;;
        *"during the WebSocket upgrade"*)
            todo "The server closes instead of answering. Check the port and ws:// or wss://, and the server's log." ;;
        *401* | *403*)
            todo "The server, or a gateway before it, refuses the connection. Look into its log." ;;
        *429* | *502* | *503* | *504* | *1012* | *1013*)
            todo "The server is there and is not ready or too busy. The agent tries again by itself." ;;
        *pong*)
            todo "The server or its connection was gone without a word. The agent has noticed and connects anew." ;;
        *time* | *deadline* | *"no answer"*)
            todo "The server or a firewall on the way swallows packets. Check that outbound traffic to" \
                "that port is allowed." ;;
        *) todo "Look into the server's log for what it saw at that moment." ;;
    esac
}

# Why a URL is missing: is the metadata service there, and does it know a public address?
look_at_metadata() {
    case ${AWS_EC2_METADATA_DISABLED:-} in
        [Tt][Rr][Uu][Ee])
            info "metadata service: switched off by AWS_EC2_METADATA_DISABLED"
            return
            ;;
    esac
    metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
    fetch "${metadata%/}/latest/meta-data/public-ipv4" 2
    case $HTTP in
        200) info "metadata service: answers with the public address $(tr -d '\000-\037\177' <"$WORK/body" | head -c 60)" ;;
        401) info "metadata service: reachable, wants IMDSv2 (the agent speaks it)" ;;
        404) info "metadata service: reachable, but this instance has no public IPv4 address" ;;
        000) info "metadata service: no answer from $metadata (not an EC2 instance, or it is switched off)" ;;
        *) info "metadata service: HTTP $HTTP from $metadata" ;;
    esac
}

how_to_give_a_secret() {
    todo "Either store the AWS credentials; the link starts at once:" \
        "  printf '{\"AWS_ACCESS_KEY_ID\": \"...\", \"AWS_SECRET_ACCESS_KEY\": \"...\"}' |" \
        "    curl -X PUT -H 'Content-Type: application/json' --data-binary @- $BASE/internal/set-aws-config" \
        "or set \"wsSecret\" in $CONFIG; the agent looks again every ten seconds."
}

how_to_give_a_url() {
    todo "Set \"wsApiUrl\": \"wss://<server>/agent\" in $CONFIG; the agent looks again every" \
        "ten seconds. On EC2 it finds the URL by itself: let the EC2 metadata service answer with a public IPv4 address."
}

say_state() {
    state=$(member state)
    missing=$(member missing)
    error=$(member lastError)
    attempt=$(member attempt)
    retry=$(member nextRetrySeconds)
    AGENT=$(member agentID)
    url=$(member apiURL)
    if [ -z "$state" ]; then # the agent before version 5 tells no state
        if [ "$(member hasConnection)" = true ]; then
            state=online
        elif [ "$(member canStart)" = true ]; then
            state='backing off'
        else
            state=waiting
        fi
    fi

    if [ "$(member hasSecret)" = true ]; then
        source=$(member secretSource)
        ok "secret: set${source:+ (from $source)}"
    else
        warn "secret: none found (configuration, stored credentials, environment)"
    fi
    if [ -n "$url" ]; then
        ok "server: $url, as agent \"$AGENT\""
    else
        warn "server: no URL (wsApiUrl is not set and no public address was found)"
        look_at_metadata
    fi

    case $state in
        online)
            since=$(member connectedSince)
            ok "link: connected to $url${since:+ since $since}"
            case $attempt in
                '' | 0 | 1 | 2) [ -z "$error" ] || info "link: the last disturbance was: $error" ;;
                *)
                    warn "link: opened less than a minute ago, after $attempt failures in a row; the last: $error"
                    advise "$error"
                    ;;
            esac
            ;;
        waiting)
            case $missing in
                secret)
                    warn "link: waiting for a secret; it starts by itself when there is one"
                    how_to_give_a_secret
                    ;;
                apiURL)
                    warn "link: waiting for the server's URL; it starts by itself when there is one"
                    how_to_give_a_url
                    ;;
                *)
                    warn "link: waiting${missing:+ for $missing}"
                    [ "$(member hasSecret)" = true ] || how_to_give_a_secret
                    [ -n "$url" ] || how_to_give_a_url
                    ;;
            esac
            ;;
        'backing off')
            fail "link: down${attempt:+ after $attempt failed attempts}: ${error:-no reason given}"
            retry=${retry%%.*}
            case $retry in
                '') todo "It tries again by itself." ;;
                0) todo "It tries again by itself now." ;;
                *) todo "It tries again by itself in $retry s." ;;
            esac
            advise "$error"
            ;;
        connecting)
            case $attempt in
                '' | 0) warn "link: connecting to $url right now; run this again in ten seconds" ;;
                *)
                    fail "link: connecting again after $attempt failed attempts; the last: ${error:-no reason given}"
                    advise "$error"
                    ;;
            esac
            ;;
        closing) warn "link: closing (the agent is stopping, or moves to another server or key)" ;;
        stopped)
            fail "link: stopped; the agent is about to end"
            todo "sudo systemctl restart $UNIT"
            ;;
        *) warn "link: in a state this script does not know: $state" ;;
    esac
}

say_unit() {
    have systemctl || return 0
    systemctl cat "$UNIT" >/dev/null 2>&1 || {
        todo "There is no systemd unit $UNIT on this machine: install the agent, or start it by hand."
        return 0
    }
    active=$(systemctl is-active "$UNIT" 2>/dev/null)
    case $active in
        active) todo "systemd says that $UNIT is active: it may listen elsewhere (JETCAMER_WEB=host:port), or hang." ;;
        failed | activating)
            todo "systemd says that $UNIT is $active: it starts and ends. The last lines of its log tell why:" \
                "  sudo journalctl -u $UNIT -n 20 --no-pager" ;;
        *) todo "systemd says that $UNIT is ${active:-not running}. Start it: sudo systemctl start $UNIT" ;;
    esac
}

not_running() {
    fail "agent: not running: no answer at $BASE${TROUBLE:+ ($TROUBLE)}"
    say_unit
    todo "If the agent listens elsewhere: JETCAMER_WEB=host:port $0"
}

say_log() {
    have journalctl || return 0
    lines=$(journalctl -u "$UNIT" --no-pager -q -o cat -n 300 2>/dev/null |
        tr -d '\000-\010\013-\037\177' |
        grep -E '\[ws\].*(fail|error|closed|refused|reject|drop|warn|invalid)' | tail -n 5)
    [ -n "$lines" ] || return 0
    info "log: the last lines about trouble (sudo journalctl -u $UNIT | grep '\\[ws\\]' shows all)"
    printf '%s\n' "$lines" | sed 's/^/         /'
}

# The program `jetcamer`: on PATH, where README.md installs it, or in this script's own checkout.
find_jetcamer() {
    case $0 in
        */*) here=${0%/*} ;;
        *) here=. ;;
    esac
    command -v jetcamer && return 0
    for program in /opt/jetcamer/bin/jetcamer "$here/../.venv/bin/jetcamer"; do
        if [ -x "$program" ]; then
            printf '%s\n' "$program"
            return 0
        fi
    done
}

# --- the report ---------------------------------------------------------------------------

AGENT=
fetch "$BASE/internal/ws-status"
case $HTTP in
    200)
        if MEMBERS=$(json_members "" <"$WORK/body") && printf '%s\n' "$MEMBERS" | grep -q '^hasConnection	'; then
            ok "agent: running, answers at $BASE"
            say_state
        else
            fail "agent: something answers at $BASE, and it is not a JetCamer agent"
            todo "Another program may have taken the port: ss -ltnp" \
                "If the agent listens elsewhere: JETCAMER_WEB=host:port $0"
        fi
        ;;
    000)
        case $TROUBLE in
            *[Tt]imed\ out* | *timeout*)
                fail "agent: hangs: $BASE accepts the connection and does not answer"
                todo "Restart it: sudo systemctl restart $UNIT" \
                    "and keep its log before it is gone: sudo journalctl -u $UNIT -n 300 --no-pager"
                ;;
            *) not_running ;;
        esac
        ;;
    401)
        fail "agent: running at $BASE, and wants a token"
        todo "Run this as a user who may read webToken in $CONFIG."
        ;;
    403)
        fail "agent: something at $BASE refuses requests by this address (HTTP 403)"
        todo "Use the address as webListen in $CONFIG has it: JETCAMER_WEB=host:port $0"
        ;;
    *)
        fail "agent: something answers at $BASE with HTTP $HTTP, and it is not a JetCamer agent that works"
        todo "Another program may have taken the port: ss -ltnp" \
            "If it is the agent, restart it: sudo systemctl restart $UNIT"
        ;;
esac
[ "$STATUS" -eq 0 ] || say_log

if [ "$QUICK" = no ]; then
    JETCAMER=$(find_jetcamer)
    if [ -n "$JETCAMER" ]; then
        printf '\njetcamer doctor:\n'
        if [ -n "$CONFIG_NAMED" ]; then
            "$JETCAMER" doctor --config "$CONFIG"
        else
            "$JETCAMER" doctor
        fi
        doctor=$?
        [ "$doctor" -le 2 ] || doctor=2
        [ "$doctor" -le "$STATUS" ] || STATUS=$doctor
    else
        info "jetcamer is neither on PATH nor in /opt/jetcamer/bin, so the deep checks (jetcamer doctor) were not run"
    fi
fi

printf '\n'
case $STATUS in
    0) echo "All is well." ;;
    1) echo "The agent runs; see [warn] above." ;;
    *) echo "Something is broken; see the first [FAIL] above." ;;
esac
exit "$STATUS"
