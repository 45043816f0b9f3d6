"""The Debian packages of each root that a build needs; `packages.lock` pins them with all that they depend on."""

from image_build.layout import Platform

SUITE = "trixie"
COMPONENTS = ("main", "non-free-firmware")
"""Wi-Fi and graphics of ordinary computers need firmware that Debian calls non-free."""

_BOOT = ("systemd-boot", "systemd-boot-efi", "systemd-repart", "systemd-cryptsetup", "cryptsetup-bin")
_SYSTEM = (
    "ca-certificates",
    "dbus",
    "dosfstools",
    "e2fsprogs",
    "gpg",
    "gpgv",
    "iproute2",
    "kmod",
    "less",
    "libnss-resolve",
    "openssh-server",
    "polkitd",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-container",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "tzdata",
    "udev",
    "xz-utils",
)
_NETWORK = ("ethtool", "iw", "iwd", "nftables", "wireguard-tools", "wireless-regdb")
_NODE = ("bubblewrap", "ipmitool", "libgomp1", "mosquitto", "prometheus-node-exporter", "restic", "smartmontools")
_FIRMWARE = {
    "amd64": (
        "firmware-atheros",
        "firmware-brcm80211",
        "firmware-iwlwifi",
        "firmware-mediatek",
        "firmware-misc-nonfree",
        "firmware-realtek",
    ),
    "arm64": ("firmware-brcm80211", "firmware-realtek"),
}
_MICROCODE = {"amd64": ("amd64-microcode", "intel-microcode"), "arm64": ()}


def appliance(platform: Platform) -> tuple[str, ...]:
    """Return what is in the image; the deploys find it installed."""
    # A kernel package wants something that makes an initial RAM disk; this is the smallest, and is not used.
    return (
        platform.kernel_package,
        "tiny-initramfs",
        *_BOOT,
        *_SYSTEM,
        *_NETWORK,
        *_NODE,
        *_FIRMWARE[platform.architecture],
    )


def initrd(platform: Platform) -> tuple[str, ...]:
    """Return what the initial RAM disk is made in. It is a root of its own, so that the image needs no dracut."""
    programs = ("cpio", "dosfstools", "dracut-core", "e2fsprogs", "kmod", "systemd", "tiny-initramfs", "udev", "zstd")
    return (platform.kernel_package, *programs, *_MICROCODE[platform.architecture], *_BOOT)


def tools(platform: Platform) -> tuple[str, ...]:
    """Return the programs that pack, sign and boot an image."""
    firmware = {"amd64": ("ovmf", "qemu-system-x86"), "arm64": ("qemu-efi-aarch64", "qemu-system-arm")}
    return (
        "cryptsetup-bin",
        "docker-registry",
        "dosfstools",
        "e2fsprogs",
        "erofs-utils",
        "fdisk",
        "gpg",
        "gpg-agent",
        "gpgv",
        "mtools",
        "qemu-utils",
        "squashfs-tools",
        "systemd-boot-efi",
        "systemd-ukify",
        "xz-utils",
        "zstd",
        *firmware[platform.architecture],
    )


def builder() -> tuple[str, ...]:
    """Return what compiles wheels for the image."""
    return ("build-essential", "ca-certificates", "python3-dev", "python3-venv")
