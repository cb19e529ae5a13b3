#!/bin/sh
# Stands in for stress-ng: tells that it runs, then does what it is told over a FIFO.
for word; do
    case $last in
    --yaml) metrics=$word ;;
    --timeout) seconds=${word%s} ;;
    esac
    last=$word
done
exec 3<>"$here/orders" 4<>"$here/told"
tell() { echo "$*" >&4; }
tell "started $$"
while read -r order count <&3; do
    case $order in
    lines)
        at=$(/bin/cat "$here/printed")
        until=$((at + count))
        while [ "$at" -lt "$until" ]; do
            at=$((at + 1))
            echo "line $at"
        done
        echo "$at" >"$here/printed"
        tell "printed $at"
        ;;
    child)
        (trap '' TERM; exec /bin/sleep 100000) >/dev/null 2>&1 &
        tell "child $!"
        ;;
    stubborn)
        trap '' TERM
        tell "stubborn"
        ;;
    pass)
        /bin/sleep "$seconds"
        printf -- '---\nmetrics:\n    - stressor: cpu\n      bogo-ops: %s\n' "$((seconds * 1000))" >"$metrics"
        printf '      bogo-ops-per-second-real-time: 1000.0\n      wall-clock-time: %s.0\n...\n' "$seconds" >>"$metrics"
        exit 0
        ;;
    fail)
        echo "stress-ng: fail:  [$$] cpu: sqrt error detected on sqrt(7)" >&2
        exit 2
        ;;
    esac
done
