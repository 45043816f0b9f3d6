# Prints what the kernel tells about this machine. Writes nothing, loads nothing, needs no root.
#
# What is above this text sets: token, state, models, files (one path a line), peer_host, peer_port, probe.
# Records are "@file PATH", "@link PATH", "@fact NAME" or "@command NAME"; each line of their content begins with "|".

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
export PATH

fact() { printf '@fact %s\n|%s\n' "$1" "$2"; }

# One line of each file that can be read, without starting a program.
small() {
  for path in "$@"; do
    if [ -f "$path" ] && [ -r "$path" ]; then
      value=
      IFS= read -r value < "$path"
      [ -z "$value" ] || printf '@file %s\n|%s\n' "$path" "$value"
    fi
  done
}

# Up to $1 bytes of a file.
whole() {
  if [ -f "$2" ] && [ -r "$2" ]; then
    printf '@file %s\n' "$2"
    head -c "$1" "$2" | sed 's/^/|/'
    echo
  fi
}

target() { [ ! -L "$1" ] || printf '@link %s\n|%s\n' "$1" "$(readlink "$1")"; }

have() { command -v "$1" > /dev/null; }

# Up to $1 bytes of what a program says; $2 is what the record is called.
says() {
  limit=$1 name=$2
  shift 2
  have "$1" || return 0
  printf '@command %s\n' "$name"
  if have timeout; then
    timeout 8 "$@" < /dev/null
  else
    "$@" < /dev/null
  fi | head -c "$limit" | sed 's/^/|/'
  echo
}

# The nearest folder that exists.
near() {
  folder=$1
  while [ ! -d "$folder" ] && [ "$folder" != / ]; do folder=$(dirname "$folder"); done
  printf %s "$folder"
}

system() {
  says 64 date date +%s.%N
  small /proc/sys/kernel/ostype /proc/sys/kernel/osrelease /proc/sys/kernel/hostname /proc/1/comm /proc/uptime
  says 64 machine uname -m
  says 64 user id -u
  says 1024 groups id -Gn
  whole 4096 /etc/os-release
  says 256 systemd systemctl --version
  says 64 virtualisation systemd-detect-virt
  for name in sys_vendor product_name product_version bios_vendor chassis_type; do small "/sys/class/dmi/id/$name"; done
  small /proc/device-tree/model
  [ ! -d /sys/firmware/efi ] || fact uefi yes
  says 64 secure-boot od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
  if [ -e /dev/kvm ]; then
    if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then fact kvm usable; else fact kvm forbidden; fi
  fi
  printf '@command processes\n'
  for path in /proc/[0-9]*/comm; do IFS= read -r value < "$path" && printf '|%s\n' "$value"; done | sort -u
  # Services that run, also where other users' processes can't be seen.
  printf '@command units\n'
  for path in /sys/fs/cgroup/system.slice/*.service /sys/fs/cgroup/system.slice/*/*.service; do
    [ ! -d "$path" ] || printf '|%s\n' "${path##*/}"
  done
}

processor() {
  whole 16384 /proc/cpuinfo
  small /sys/devices/system/cpu/online
  small /sys/devices/system/cpu/cpu[0-9]*/topology/core_cpus_list \
    /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list
  small /sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
  whole 8192 /proc/meminfo
  small /sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/package_throttle_count
  small /sys/devices/platform/soc/soc:firmware/get_throttled
  small /sys/class/hwmon/hwmon*/name /sys/class/hwmon/hwmon*/temp*_input /sys/class/hwmon/hwmon*/temp*_label \
    /sys/class/hwmon/hwmon*/temp*_crit /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp
}

disks() {
  whole 131072 /proc/self/mountinfo
  says 1024 df.state df -Pk "$(near "$state")"
  says 1024 df.models df -Pk "$(near "$models")"
  printf '%s\n' "$files" | while IFS= read -r path; do
    [ -z "$path" ] || [ ! -f "$path" ] || printf '@command file %s\n|%s\n' "$path" "$(ls -lnL "$path")"
  done
  number=0
  for folder in /sys/block/*; do
    disk=${folder##*/}
    case $disk in loop* | ram* | zram* | dm-* | md* | sr* | fd* | nbd*) continue ;; esac
    [ -d "$folder" ] && [ "$number" -lt 16 ] || continue
    number=$((number + 1))
    small "$folder/size" "$folder/removable" "$folder/ro" "$folder/queue/rotational" "$folder/device/model" \
      "$folder/device/type" "$folder/device/life_time" "$folder/device/pre_eol_info"
    # A disk that stands still is not woken for this.
    [ "$(id -u)" != 0 ] || says 65536 "smart $disk" smartctl -n standby -j -i -H -A "/dev/$disk"
  done
}

network() {
  for folder in /sys/class/net/*; do
    [ -d "$folder" ] || continue
    small "$folder/operstate" "$folder/carrier" "$folder/speed" "$folder/duplex" "$folder/mtu" "$folder/address" \
      "$folder/type" "$folder/flags" "$folder/device/power/wakeup"
    target "$folder/device"
    target "$folder/device/driver"
    interface=${folder##*/}
    if [ -d "$folder/wireless" ] || [ -d "$folder/phy80211" ]; then
      fact "wireless $interface" yes
      says 2048 "iw $interface" iw dev "$interface" link
    fi
    [ ! -d "$folder/bridge" ] || fact "bridge $interface" yes
  done
  says 32768 addresses ip -o address show
  whole 16384 /proc/net/route
  whole 65536 /proc/net/ipv6_route
  whole 4096 /proc/net/wireless
  whole 65536 /proc/net/tcp
  whole 65536 /proc/net/tcp6
  [ "$(id -u)" != 0 ] || says 65536 listeners ss -Hltnp
  [ ! -e /run/systemd/timesync/synchronized ] || fact timesync yes
  if [ -n "$peer_host" ]; then
    says 4096 names getent ahosts "$peer_host"
    says 4096 ping ping -n -c 3 -i 0.3 -W 1 "$peer_host"
  fi
}

power() {
  small /sys/power/state /sys/power/mem_sleep /sys/power/disk
  [ ! -e /sys/class/rtc/rtc0/wakealarm ] || fact wakealarm yes
  small /sys/class/rtc/rtc0/name /sys/class/rtc/rtc0/device/power/wakeup
  small /sys/class/power_supply/*/type /sys/class/power_supply/*/scope /sys/class/power_supply/*/online \
    /sys/class/power_supply/*/status /sys/class/power_supply/*/capacity
}

graphics() {
  for folder in /sys/bus/pci/devices/*; do
    class=
    [ ! -r "$folder/class" ] || IFS= read -r class < "$folder/class"
    case $class in
      0x03* | 0x12*)
        small "$folder/class" "$folder/vendor" "$folder/device" "$folder/mem_info_vram_total"
        target "$folder/driver"
        ;;
    esac
  done
  for path in /dev/dri/renderD* /dev/nvidia0 /dev/kfd /dev/apex_0 /dev/hailo0; do
    [ ! -e "$path" ] || fact "device $path" yes
  done
  # Only where its driver is loaded already: the program would load it.
  [ ! -e /dev/nvidia0 ] || says 2048 nvidia nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits
}

main() {
  printf 'rouse-preflight 1 %s\n' "$token"
  system
  processor
  disks
  network
  power
  graphics
  says 8192 probe python3 -I -B -c "$probe" "$peer_host" "$peer_port"
  printf 'rouse-preflight end %s\n' "$token"
}

main < /dev/null 2> /dev/null
