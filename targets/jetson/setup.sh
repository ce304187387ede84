#!/usr/bin/env bash
# Gets what `cargo jetson` needs on an x86-64 Linux machine, without root, into .cross/ (which git ignores):
#   rust/      an aarch64 standard library and the compiler it belongs to (only where rustup does not serve)
#   zig/       zig from PyPI, which links against glibc 2.27
# and with --run, what runs aarch64 programs here:
#   qemu/      qemu's user-mode emulator
#   sysroot/   an aarch64 glibc
# A part is unpacked beside its place and renamed, so that a set-up that was stopped goes on where it was.
set -euo pipefail

usage() {
    cat <<'X'
Usage: targets/jetson/setup.sh [--run] [--help]

Gets what `cargo jetson` needs into .cross/, without root. What is there already stays; remove .cross/ to begin anew.

  --run   get an emulator and an aarch64 glibc, too, so that what was built runs here

Environment:
  CROSS_STD=rustup   the aarch64 standard library is rustup's (rustup keeps it beside its toolchain)
  CROSS_STD=debian   it is unpacked from Debian's packages, with the compiler that it belongs to
                     [default: what the compiler has, else rustup's, else Debian's]
  NASBN_PYTHON=FILE  Python 3 with pip [default: python3]
X
}

triple=aarch64-unknown-linux-gnu
here=$(cd -- "$(dirname -- "$0")" && pwd)
top=$(cd -- "$here/../.." && pwd)
cross=$top/.cross

say() { printf '%s\n' "$*" >&2; }
fail() { # message, hint
    say "error: $1"
    say "hint: $2"
    exit 1
}

run=false
for argument; do
    case $argument in
        --run) run=true ;;
        -h | --help) usage && exit 0 ;;
        *) fail "unknown argument \`$argument\`" "\`targets/jetson/setup.sh --help\` says what there is" ;;
    esac
done
case ${CROSS_STD:=} in
    '' | rustup | debian) ;;
    *) fail "CROSS_STD is \`$CROSS_STD\`" "set it to rustup or debian, or not at all" ;;
esac

# What a part is made by: raised whenever that changes, so that parts which an older set-up has made are made anew.
recipe=2

machine=$(uname -s)-$(uname -m)
if [[ $machine = Linux-aarch64 ]]; then
    say "nothing to set up: this machine is aarch64, and builds and runs for itself"
    exit 0
fi
[[ $machine = Linux-x86_64 ]] || fail "this machine is $machine" "cross builds are set up on x86-64 Linux"

mkdir -p "$cross" || fail "$cross cannot be written" "make the repository's directory writable"
# One set-up at a time. The lock goes with the process.
exec 9> "$cross/.lock"
flock --nonblock 9 || { say "waiting for another set-up" && flock 9; }
rm -rf "$cross"/work.*
work=$(mktemp -d "$cross/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Whether a part is whole, of this name.
have() { [[ -f $cross/$1/.part && $(< "$cross/$1/.part") = "$2" ]]; }
# Puts what is in a directory in its place.
place() { # part, name, directory
    printf '%s\n' "$2" > "$3/.part"
    rm -rf "${cross:?}/$1"
    mv "$3" "$cross/$1"
}

# apt with lists and both architectures of its own: nothing on the system changes.
apt() { # program, arguments
    local program=$1
    shift
    mkdir -p "$cross"/apt/state/lists/partial "$cross"/apt/cache/archives/partial
    "$program" -o Dir::State="$cross/apt/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$cross/apt/cache" -o APT::Architecture=amd64 -o APT::Architectures::=amd64 \
        -o APT::Architectures::=arm64 -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 "$@"
}
listed=false
list_packages() {
    $listed && return
    local program
    for program in apt-get dpkg-deb; do
        command -v $program > /dev/null || fail "$1 would come from Debian's packages, and there is no $program here" "$2"
    done
    say "reading Debian's lists of packages"
    apt apt-get -qq update || fail "Debian's lists of packages cannot be read" "check the network, then run the same command again"
    listed=true
}
unpack() { # directory, packages
    local into=$1 deb debs
    shift
    debs=$(mktemp -d "$work/debs.XXXXXX")
    (cd "$debs" && apt apt-get -qq download "$@") ||
        fail "Debian's packages cannot be fetched: $*" "check the network, then run the same command again; it needs Debian 12 or newer"
    for deb in "$debs"/*.deb; do
        dpkg-deb -x "$deb" "$into" || fail "${deb##*/} cannot be unpacked" "check that the disk has 2 GB of room"
    done
    rm -rf "$debs"
}
depends() { apt apt-cache depends "$1" | grep -o "$2" | head -n 1; }

has_std() { # compiler
    local library
    library=$("$1" --print target-libdir --target $triple 2> /dev/null) && compgen -G "$library/libstd-*.rlib" > /dev/null
}
from_rustup() {
    command -v rustup > /dev/null || return
    say "adding rustup's $triple"
    timeout 300 rustup target add $triple && has_std rustc
}
from_debian() {
    local hint="install rustup, or set up on Debian 12 or newer" root=$work/rust libraries so llvm
    have rust "debian $recipe" && has_std "$cross/rust/rustc" && return
    list_packages "the aarch64 standard library" "$hint"
    # The package of the standard library names that of the compiler's own library, and this one LLVM.
    so=$(depends libstd-rust-web-dev 'libstd-rust-web-[0-9.]*[0-9]') || fail "Debian's rustc-web is not among the packages" "$hint"
    llvm=$(depends "$so" 'libllvm[0-9]*') || fail "$so names no libllvm" "$hint"
    say "unpacking Debian's rustc-web with its standard libraries"
    mkdir "$root"
    unpack "$root" rustc-web "$so:amd64" "$llvm:amd64" libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64
    rm -rf "${root:?}/usr/share"
    libraries=$root/usr/lib/x86_64-linux-gnu
    # What LLVM is linked with, and a bare machine may lack.
    if LD_LIBRARY_PATH=$libraries ldd "$libraries"/librustc_driver-*.so | grep -q 'not found'; then
        unpack "$root" libz3-4 libedit2 libbsd0 libmd0 libxml2 libicu72 libffi8 libtinfo6 libzstd1 zlib1g
    fi
    cat > "$root/rustc" <<'X'
#!/bin/sh
usr=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/usr
LD_LIBRARY_PATH=$usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$usr/bin/rustc" --sysroot "$usr" "$@"
X
    chmod +x "$root/rustc"
    has_std "$root/rustc" || fail "Debian's rustc-web does not run here: $("$root/rustc" --version 2>&1 | tail -n 1)" "$hint"
    place rust "debian $recipe" "$root"
}

if [[ $CROSS_STD = debian ]]; then
    from_debian
elif [[ -z $CROSS_STD && -f $cross/rust/.part ]]; then
    from_debian
elif has_std rustc || from_rustup; then
    rm -rf "$cross/rust"
elif [[ $CROSS_STD = rustup ]]; then
    fail "rustup has no $triple for this compiler" "check the network, or take Debian's with CROSS_STD=debian"
else
    say "rustup does not serve here; taking Debian's packages"
    from_debian
fi

zig="$(sha256sum < "$here/zig.txt") $recipe"
if ! have zig "$zig"; then
    python=${NASBN_PYTHON:-python3}
    "$python" -m pip --version > /dev/null 2>&1 || fail "\`$python -m pip\` does not run" "install Python 3 with pip, or name another with NASBN_PYTHON"
    say "fetching zig"
    # Root builds here as well as anyone; pip need not warn of it.
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-input --no-deps --only-binary=:all: --no-compile \
        --require-hashes --requirement "$here/zig.txt" --target "$work/zig" ||
        fail "zig cannot be fetched from PyPI" "check the network and pip's settings, then run the same command again"
    place zig "$zig" "$work/zig"
fi

if $run && ! have qemu "debian $recipe"; then
    list_packages "the emulator" "set up on Debian 12 or newer; what was built runs on a board in any case"
    say "unpacking Debian's qemu-user-static"
    mkdir "$work/root" "$work/qemu"
    unpack "$work/root" qemu-user-static
    mv "$work/root/usr/bin/qemu-aarch64-static" "$work/qemu/qemu-aarch64" ||
        fail "Debian's qemu-user-static holds no qemu-aarch64-static" "it is of another release: set up on Debian 12"
    place qemu "debian $recipe" "$work/qemu"
fi
if $run && ! have sysroot "debian $recipe"; then
    list_packages "an aarch64 glibc" "set up on Debian 12 or newer; what was built runs on a board in any case"
    say "unpacking Debian's aarch64 glibc"
    rm -rf "$work/root"
    mkdir "$work/root"
    unpack "$work/root" libc6-arm64-cross libgcc-s1-arm64-cross libstdc++6-arm64-cross
    sysroot=$work/root/usr/aarch64-linux-gnu
    # qemu shows the host's /proc/cpuinfo, on which ONNX Runtime from 1.28 on crashes; it looks into the sysroot first.
    mkdir "$sysroot/proc"
    for processor in 0 1; do
        printf 'processor\t: %d\nBogoMIPS\t: 62.50\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\n' \
            $processor 'fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp'
    done > "$sysroot/proc/cpuinfo"
    place sysroot "debian $recipe" "$sysroot"
fi
rm -rf "$cross/apt/cache"
say "ready: \`cargo jetson\` builds nasbn for aarch64"
