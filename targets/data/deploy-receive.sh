# Runs on the board: takes a package as a tar archive from its standard input and puts it at $1. In the archive its files
# are below $2, and there are $3 of them. Until all of them are there and whole they lie in a directory of their own
# beside the place; on any failure that directory goes, and what was at the place stays.
# shellcheck disable=SC2317 # what the traps run
set -u
dir=$1 top=$2 files=$3
# Its words are told apart.
LC_ALL=C
export LC_ALL

# A link to another disk stays one.
if [ -L "$dir" ]; then
    dir=$(readlink -f -- "$dir")
fi
parent=$(dirname -- "$dir")
name=$(basename -- "$dir")
work=$parent/.$name.nasbn-$$

# Puts back what another run of this had moved away from "$dir", to "$1".
restore() {
    if [ -e "$1/old" ] && [ ! -e "$dir" ]; then
        mv -- "$1/old" "$dir"
    fi
}

# Moves what a person wrote beside the old package, or a GPU's engines in its bundle, to the new one.
carry() {
    if [ ! -d "$work/old" ] || [ ! -d "$dir" ]; then
        return 0
    fi
    for path in "$work/old"/* "$work/old"/.[!.]*; do
        own=${path##*/}
        if [ ! -e "$path" ] || [ -e "$dir/$own" ] ||
            cut -c67- "$work/old/SHA256SUMS" | cut -d/ -f1 | grep -qxF -e "$own"; then
            continue
        fi
        mv -- "$path" "$dir/" || return 1
    done
    if [ -d "$work/old/bundle/cache" ] && [ ! -e "$dir/bundle/cache" ]; then
        mv -- "$work/old/bundle/cache" "$dir/bundle/" || return 1
    fi
}

finish() {
    status=$?
    trap '' HUP INT TERM PIPE
    restore "$work" && carry && rm -rf -- "$work" && exit "$status"
    echo "what was at $dir is in $work" >&2
    exit 95
}

mkdir -p -- "$parent" || exit 91
# Of runs that were killed.
for left in "$parent/.$name.nasbn-"*; do
    if [ -d "$left" ] && ! kill -0 "${left##*-}" 2> /dev/null; then
        restore "$left"
        [ -e "$left/old" ] || rm -rf -- "$left"
    fi
done
mkdir -- "$work" || exit 91
trap finish EXIT
trap 'exit 96' HUP INT TERM PIPE

tar -xof - -C "$work" || exit 92
if [ "$(find "$work/$top" -type f | wc -l)" -ne "$files" ]; then
    echo "the package did not come whole" >&2
    exit 93
fi
if command -v sha256sum > /dev/null 2>&1; then
    (cd -- "$work/$top" && sha256sum -c SHA256SUMS > /dev/null) || exit 93
fi
if [ -e "$dir" ]; then
    mv -- "$dir" "$work/old" || exit 94
fi
mv -- "$work/$top" "$dir" || exit 94
exit 0
