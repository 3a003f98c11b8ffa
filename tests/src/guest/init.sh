#!/bin/busybox sh
# First program of a guest: loads the modules, then runs the lines that come through the virtio port,
# one at a time. Answer to each: exit code, length of the output, a newline, the output.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
  insmod "/modules/$module" || echo "guest: $module does not load"
done </modules/order
ip link set lo up
while ! [ -e /sys/class/virtio-ports ] || [ -z "$(ls /sys/class/virtio-ports)" ]; do sleep 0.1; done
exec 3<>"/dev/$(ls /sys/class/virtio-ports)"
echo "guest: $(uname -r) is ready after $(cut -d' ' -f1 /proc/uptime) s"
while :; do
  while read -r line <&3; do
    timeout 60 sh -c "$line" >/tmp/out 2>&1 </dev/null 3>&-
    code=$?
    echo "$code $(wc -c </tmp/out)" >&3
    cat /tmp/out >&3
  done
  # The host is not connected.
  sleep 0.1
done
