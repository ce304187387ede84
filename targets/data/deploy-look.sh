# Runs on the board: says what it is, and whether a package can be put at $1. Lines for the program begin with "nasbn:",
# whatever else a login shell may say.
set -u
dir=$1
if [ -L "$dir" ]; then
    dir=$(readlink -f -- "$dir")
fi
echo "nasbn: machine $(uname -m)"
if [ -r /proc/device-tree/model ]; then
    echo "nasbn: model $(tr -d '\000' < /proc/device-tree/model)"
fi
echo "nasbn: libc $(getconf GNU_LIBC_VERSION 2> /dev/null)"
command -v tar > /dev/null 2>&1 && echo "nasbn: has tar"
if [ -f "$dir/SHA256SUMS" ] && [ -f "$dir/target.json" ]; then
    echo "nasbn: there package"
elif [ -e "$dir" ] || [ -L "$dir" ]; then
    echo "nasbn: there other"
fi
place=$dir
while [ ! -d "$place" ]; do
    place=$(dirname -- "$place")
done
# The last line is: file system, blocks of 1 KiB, used, free, share used, where it is; the first and the last may hold spaces.
# Some that hold no files of their own say 0 blocks.
df -Pk "$place" 2> /dev/null |
    sed -n '$s/^.* \([1-9][0-9]*\)  *[0-9][0-9]*  *\([0-9][0-9]*\)  *[0-9][0-9]*% .*$/nasbn: free \2/p'
