#!/bin/sh
# What a live image needs before its agent starts: drivers, disks, network, SSH. Process 1 runs it once. Nothing here ends the
# boot: what is missing is said, and the agent says what it cannot do.

say() {
    echo "prepare: $*"
}

ip link set lo up

# Drivers for what the kernel found, and again for what those found.
known=
for _ in 1 2 3 4; do
    aliases=$(find /sys/devices -name modalias -exec cat {} + | sort -u)
    [ "$aliases" = "$known" ] && break
    known=$aliases
    echo "$aliases" | xargs -r modprobe -a -b -q
done
while read -r module; do
    # A machine without a BMC refuses its driver.
    modprobe -q "$module" || say "no device for $module"
done </etc/groundcrew/modules

# Disks and network cards come after their drivers, in their own time: 2 s without a new one, 30 s at most.
seen=
same=0
for _ in $(seq 120); do
    now=$(ls /sys/class/block /sys/class/net /sys/class/nvme 2>/dev/null)
    if [ "$now" = "$seen" ]; then same=$((same + 1)); else same=0; fi
    seen=$now
    [ "$same" -ge 8 ] && break
    sleep 0.25
done

# The network: as ip= says (client:server:gateway:netmask:host:device:method:dns:dns, as the kernel documents it), else by
# DHCP on every card.
spec=
for word in $(cat /proc/cmdline); do
    case $word in ip=*) spec=${word#ip=} ;; esac
done
cards=
for card in /sys/class/net/*; do
    [ -e "$card/device" ] && cards="$cards ${card##*/}"
done
[ -n "$cards" ] || say "no network card"
# Also those without an address: a link that is down says nothing of its speed.
for card in $cards; do
    ip link set "$card" up
done
IFS=: read -r address _ gateway netmask host device _ dns more <<END
$spec
END
[ -n "$host" ] && hostname "$host"
case $address in
[0-9]*.*)
    [ -n "$device" ] || device=${cards# } device=${device%% *}
    say "$device has $address by the kernel command line"
    ip addr replace "$address/${netmask:-32}" dev "$device"
    [ -n "$gateway" ] && ip route replace default via "$gateway" dev "$device"
    for server in $dns ${more%%:*}; do
        echo "nameserver $server" >>/etc/resolv.conf
    done
    # Cards negotiate for some seconds; one without a cable never has a carrier.
    for _ in $(seq 40); do
        down=
        for card in $cards; do
            [ "$(cat "/sys/class/net/$card/carrier" 2>/dev/null)" = 1 ] || down=$card
        done
        [ -n "$down" ] || break
        sleep 0.25
    done
    ;;
*)
    for card in $cards; do
        # It stays, renews its lease, and asks without end where nobody answers.
        udhcpc -f -i "$card" -s /etc/groundcrew/lease -x hostname:"$(hostname)" >/dev/null 2>&1 &
    done
    for _ in $(seq 60); do
        [ -e /run/lease ] && break
        sleep 0.25
    done
    [ -e /run/lease ] || say "no DHCP server has answered yet:$cards"
    ;;
esac

mkdir -p /run/sshd
[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
(
    while :; do
        /usr/sbin/sshd -D -e
        sleep 5
    done
) &
