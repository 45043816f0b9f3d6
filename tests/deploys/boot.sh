#!/bin/sh
# Boots the systemd of a root file system in the namespaces that this runs in. Usage: boot.sh ROOT
# What the kernel shares between all (its settings, its modules, its clock, the machine's devices) is out of reach.
set -eu
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
if [ -e proc/sysrq-trigger ]; then
  mount --bind proc/sysrq-trigger proc/sysrq-trigger
  mount -o remount,ro,bind proc/sysrq-trigger
fi
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
# Nodes of its own: systemd changes the owner and mode of its console.
while read -r device minor; do
  mknod -m 666 "dev/$device" c 1 "$minor"
done << 'END'
console 3
null 3
zero 5
full 7
random 8
urandom 9
END
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . mnt
umount -l /mnt
# As systemd has it where it is not in a container: what it mounts for one unit, such as credentials, is seen by all.
mount --make-rshared /
exec env -i container=rouse-test PATH=/usr/sbin:/usr/bin \
  setpriv --bounding-set=-sys_boot,-sys_module,-sys_rawio,-sys_time,-syslog,-wake_alarm \
  /usr/lib/systemd/systemd --show-status=0
