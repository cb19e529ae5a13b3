#!/bin/sh
# Writes down how a unit that a test started has ended, so that it outlives a reboot: NAME.end holds systemd's
# SERVICE_RESULT, EXIT_CODE and EXIT_STATUS.
set -eu
printf '%s %s %s\n' "$SERVICE_RESULT" "${EXIT_CODE:-none}" "${EXIT_STATUS:-none}" >"/var/lib/guest/$1.end.new"
mv "/var/lib/guest/$1.end.new" "/var/lib/guest/$1.end"
sync -f /var/lib/guest
