# Runs on the board: takes a package as a tar archive from its standard input and puts it at $1. In the archive its files
# are below $2, and there are $3 of them. Until all of them are there and whole they lie in a directory of their own
# beside the place; on any failure that directory goes, and what was at the place stays. What somebody put into the old
# package comes to the new one; where it cannot, nothing is changed.
# Exit status: 91 the place cannot be written, 92 tar failed, 93 not whole, 94 something of somebody's is in the way,
# 95 somebody's files are elsewhere now, 96 stopped, 97 the place is in use. Lines "nasbn: note" are for the user.
# shellcheck disable=SC2317 # what the traps run
set -u
dir=$1 top=$2 files=$3
# Its words are told apart.
LC_ALL=C
export LC_ALL
newline='
'

# A link to another disk stays one.
if [ -L "$dir" ]; then
    dir=$(readlink -f -- "$dir")
fi
parent=$(dirname -- "$dir")
name=$(basename -- "$dir")
boot=$(cut -c1-8 /proc/sys/kernel/random/boot_id 2> /dev/null)
boot=${boot:-unknown}
work=$parent/.$name.nasbn-$boot-$$

# Whether the run that has made directory $1 lives. It holds a file there locked; where files cannot be locked its number
# must do, which is a process of this start of the machine.
alive() {
    if [ -f "$1/lock" ] && command -v flock > /dev/null 2>&1; then
        ! (flock -n 8) 8< "$1/lock"
    else
        case $1 in
            *-"$boot"-$$) return 1 ;;
            *-"$boot"-*) kill -0 "${1##*-}" 2> /dev/null ;;
            *) return 1 ;;
        esac
    fi
}

# Puts back what a run with the directory $1 had moved away from "$dir".
restore() {
    if [ -e "$1/old" ] && [ ! -e "$dir" ]; then
        mv -- "$1/old" "$dir"
    fi
}

# Whether the package's SHA256SUMS, whose names are in $named, names the file $1/$2.
is_named() {
    case $2 in
        *"$newline"*) return 1 ;;
        SHA256SUMS) return 0 ;;
    esac
    case $newline$named$newline in
        *"$newline$2$newline"*) [ -f "$1/$2" ] && [ ! -L "$1/$2" ] ;;
        *) return 1 ;;
    esac
}

# Whether $1/$2 is a directory of which some is the package's, or whose place in the new package $into is a directory, too.
is_shared() {
    if [ ! -d "$1/$2" ] || [ -L "$1/$2" ]; then
        return 1
    fi
    case $2 in
        *"$newline"*) return 1 ;;
    esac
    case $newline$named in
        *"$newline$2/"*) return 0 ;;
        *) [ -d "$into/$2" ] && [ ! -L "$into/$2" ] ;;
    esac
}

# Calls $3 with $1 and each entry of the package $1, below $2 ("" or "bundle/"), that is none of the package's own.
each_own() {
    for path in "$1/$2"* "$1/$2".[!.]* "$1/$2"..?*; do
        if [ ! -e "$path" ] && [ ! -L "$path" ]; then
            continue
        fi
        own=${path#"$1/"}
        if is_named "$1" "$own"; then
            continue
        elif is_shared "$1" "$own"; then
            each_own "$1" "$own/" "$3" || return 1
        else
            "$3" "$1" "$own" || return 1
        fi
    done
}
own_of() { # package, the new one, what to call
    into=$2
    named=$(cut -c67- "$1/SHA256SUMS" 2> /dev/null)
    each_own "$1" '' "$3"
}

# Whether the entry $1 can be put into the new package.
is_vacant() {
    if [ -e "$into/$1" ] || [ -L "$into/$1" ]; then
        return 1
    fi
    above=$1
    while [ "$above" != "${above%/*}" ]; do
        above=${above%/*}
        if [ -L "$into/$above" ] || { [ -e "$into/$above" ] && [ ! -d "$into/$above" ]; }; then
            return 1
        fi
    done
}

# Whether the entry $2 of the package $1 will come to the new one. A directory can be moved by whom may write to it; one that
# another disk is mounted at cannot be.
can_come() {
    if ! is_vacant "$2"; then
        echo "$1/$2 is not of the package there, and the new one has its own" >&2
        return 1
    fi
    of_above=${2%/*}
    if [ "$of_above" = "$2" ]; then
        of_above=.
    fi
    if [ ! -w "$1/$of_above" ] || { [ -d "$1/$2" ] && [ ! -L "$1/$2" ] && { [ ! -w "$1/$2" ] ||
        [ "$(stat -c %d -- "$1/$2" 2> /dev/null)" != "$(stat -c %d -- "$1" 2> /dev/null)" ]; }; }; then
        echo "$1/$2 is not of the package there, and you cannot move it" >&2
        return 1
    fi
}

# Moves the entry $2 of the old package $1 to the new one.
move() {
    is_vacant "$2" || return 1
    case $2 in
        */*) mkdir -p -- "$into/${2%/*}" || return 1 ;;
    esac
    mv -- "$1/$2" "$into/$2"
}

# Moves what somebody put into the old package, or a GPU's engines in its bundle, to the new one; with the directory $1.
carry() {
    if [ -d "$1/old" ] && [ -d "$dir" ]; then
        own_of "$1/old" "$dir" move && mv -- "$1/old" "$1/done"
    fi
}

# Ends a run whose directory is $1: whatever is not the package's is where it was.
settle() {
    if restore "$1" && carry "$1"; then
        rm -rf -- "$1"
        return 0
    fi
    echo "what was put into $dir is in $1/old" >&2
    return 1
}

finish() {
    status=$?
    trap '' HUP INT TERM PIPE
    if [ -d "$work" ]; then
        settle "$work" || exit 95
    fi
    # Directories above the place that were made for nothing.
    if [ "$status" -ne 0 ] && [ -n "$made" ]; then
        place=$parent
        rmdir -- "$place" 2> /dev/null
        while [ "$place" != "$made" ]; do
            place=$(dirname -- "$place")
            rmdir -- "$place" 2> /dev/null
        done
    fi
    exit "$status"
}

made='' place=$parent
while [ ! -d "$place" ]; do
    made=$place
    place=$(dirname -- "$place")
done
trap finish EXIT
trap 'exit 96' HUP INT TERM PIPE
mkdir -p -- "$parent" || exit 91
# Of runs that were killed.
for left in "$parent/.$name.nasbn-"*; do
    if [ ! -d "$left" ] || alive "$left"; then
        continue
    fi
    if [ -e "$left/old" ]; then
        echo "nasbn: note a run before this one was stopped; what it had moved to $left is back at $dir"
    fi
    settle "$left" || exit 95
done
mkdir -- "$work" || exit 91
# It has its name when it is locked: until then this run's number tells that it lives.
exec 9> "$work/new-lock" || exit 91
if command -v flock > /dev/null 2>&1; then
    flock -n 9
fi
mv -- "$work/new-lock" "$work/lock" || exit 91
# Of two runs each has made its directory before it looks for the other's, so that at most one goes on.
for other in "$parent/.$name.nasbn-"*; do
    if [ "$other" != "$work" ] && [ -d "$other" ] && alive "$other"; then
        echo "process ${other##*-} is putting a package at $dir" >&2
        exit 97
    fi
done

tar -xof - -C "$work" || exit 92
if [ "$(find "$work/$top" -type f | wc -l)" -ne "$files" ]; then
    echo "the package did not come whole" >&2
    exit 93
fi
if command -v sha256sum > /dev/null 2>&1; then
    (cd -- "$work/$top" && sha256sum -c SHA256SUMS > /dev/null) || exit 93
fi
# On the disk before its name is.
sync

if [ -e "$dir" ]; then
    if [ ! -f "$dir/SHA256SUMS" ] || [ ! -f "$dir/target.json" ]; then
        echo "$dir is no package" >&2
        exit 94
    fi
    # Whatever runs in it would find itself in a directory that is removed.
    whole=$(cd -- "$dir" && pwd -P)
    # One program for all processes; only the ends of the lines matter.
    # shellcheck disable=SC2012
    user=$(ls -ld /proc/[0-9]*/cwd /proc/[0-9]*/exe 2> /dev/null | while IFS= read -r line; do
        case $line in
            *" -> $whole" | *" -> $whole/"*)
                process=${line#* /proc/}
                process=${process%%/*}
                echo "process $process ($(tr '\000' ' ' < "/proc/$process/cmdline" 2> /dev/null | cut -c1-60))"
                break
                ;;
        esac
    done)
    if [ -n "$user" ]; then
        echo "$user runs in $dir" >&2
        exit 97
    fi
    own_of "$dir" "$work/$top" can_come || exit 94
    mv -- "$dir" "$work/old" || exit 91
fi
mv -- "$work/$top" "$dir" || exit 91
if [ -d "$work/old" ]; then
    carry "$work" || exit 95
fi
sync
exit 0
