#!/usr/bin/env bash
# Runs the systemd unit, with its hardening, on a Debian of its own: a virtual machine in which systemd is the first
# process. Wants root, and installs debootstrap and qemu (about 400 MB are fetched, once). Without hardware
# virtualisation it takes some ten minutes.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
. scripts/places.sh

[ "$(id -u)" -eq 0 ] || { echo "unit: making a machine's disk wants root" >&2; exit 1; }
program=${EVERPOINT_PROGRAM:-${CARGO_TARGET_DIR:-target}/release/everpoint}
machine=$cache/machine
packages=systemd,systemd-sysv,dbus,linux-image-amd64,postgresql-15,sudo,ca-certificates,curl,jq
limit=2400 # seconds, of the whole run

if ! command -v debootstrap qemu-system-x86_64 >/dev/null; then
    echo "unit: installing debootstrap qemu-system-x86" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap qemu-system-x86 >/dev/null
fi
if [ "$(cat "$machine/packages" 2>/dev/null)" != "$packages" ]; then
    echo "unit: fetching a Debian" >&2
    rm -rf "$machine"
    mkdir -p "$machine"
    debootstrap --variant=minbase --include="$packages" bookworm "$machine/root" >"$machine/log" 2>&1 ||
        { tail "$machine/log" >&2; exit 1; }
    rm -rf "$machine"/root/var/cache/apt/archives/*.deb "$machine"/root/var/lib/apt/lists/*
    echo "$packages" >"$machine/packages"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -a "$machine/root" "$scratch/root"
install -m 0755 "$program" "$scratch/root/usr/bin/everpoint"
strip "$scratch/root/usr/bin/everpoint"
install -m 0644 packaging/systemd/everpoint.service "$scratch/root/etc/systemd/system/"
install -m 0755 scripts/unit/inside.sh "$scratch/root/root/"
install -m 0644 scripts/unit/everpoint-test.service "$scratch/root/etc/systemd/system/"
ln -s ../everpoint-test.service "$scratch/root/etc/systemd/system/multi-user.target.wants/"
echo unit >"$scratch/root/etc/hostname"
echo "127.0.0.1 localhost unit" >"$scratch/root/etc/hosts"
echo "/dev/vda / ext4 defaults 0 1" >"$scratch/root/etc/fstab"
truncate -s 4G "$scratch/disk"
mke2fs -q -t ext4 -d "$scratch/root" "$scratch/disk"

accelerator=tcg,thread=multi
grep -qE '^flags.* (vmx|svm) ' /proc/cpuinfo && [ -w /dev/kvm ] && accelerator=kvm
echo "unit: booting ($accelerator)" >&2
timeout "$limit" qemu-system-x86_64 -machine q35 -accel "$accelerator" -cpu max -smp 2 -m 2048 -nographic -no-reboot \
    -kernel "$scratch"/root/boot/vmlinuz-* -initrd "$scratch"/root/boot/initrd.img-* \
    -append "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=no" \
    -drive "file=$scratch/disk,if=virtio,format=raw,cache=unsafe" -nic none </dev/null |
    tr -d '\r' | tee "$scratch/console" | grep --line-buffered '^unit: ' || true
grep -q '^unit: all is well$' "$scratch/console" || { tail -100 "$scratch/console" >&2; exit 1; }
