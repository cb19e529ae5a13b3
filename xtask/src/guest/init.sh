#!/bin/busybox sh
# The first process of a guest: loads the drivers of its disk, network, channel and shared folder, and hands over to
# systemd. It says each boot's id on the console, before anything that a test does: what was not said was no boot.
b=/bin/busybox

fail() {
    echo "guest: init failed: $*"
    $b poweroff -f
}

$b mkdir -p /proc /sys /dev /root
$b mount -t proc proc /proc || fail /proc
$b mount -t sysfs sysfs /sys || fail /sys
$b mount -t devtmpfs devtmpfs /dev || fail /dev
echo "guest: boot $($b cat /proc/sys/kernel/random/boot_id)"

while read -r module; do
    $b insmod "/modules/$module" || fail "$module"
done </modules.order

# A network that is there before systemd takes no service and no waiting.
$b ip link set lo up
$b ip link set eth0 up || fail eth0
$b ip addr add 10.0.2.15/24 dev eth0 || fail "address"
$b ip route add default via 10.0.2.2 || fail "route"

$b mount -t ext4 -o rw /dev/vda /root || fail "root file system"
$b mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /root/run || fail /run
$b mkdir /root/run/share
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=none share /root/run/share || fail "shared folder"
$b cp /root/run/share/guest-hand /root/run/guest-hand || fail "guest-hand"
for folder in proc sys dev; do
    $b mount --move "/$folder" "/root/$folder" || fail "$folder"
done
exec $b switch_root /root /sbin/init
