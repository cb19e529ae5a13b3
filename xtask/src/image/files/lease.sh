#!/bin/sh
# What a DHCP lease means for a card. udhcpc runs it, with what the server said in the environment.
case $1 in
deconfig)
    ip link set "$interface" up
    ip addr flush dev "$interface"
    ;;
bound | renew)
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    ip addr replace "$ip/$mask" dev "$interface"
    # Of several cards the first has the way out.
    metric=$(cat "/sys/class/net/$interface/ifindex")
    [ -n "$router" ] && ip route replace default via "${router%% *}" dev "$interface" metric "$metric"
    if [ -n "$dns" ]; then
        for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    fi
    [ "$1" = bound ] && echo "prepare: $interface has $ip by DHCP" >/dev/console
    : >/run/lease
    ;;
esac
