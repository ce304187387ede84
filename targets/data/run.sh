#!/bin/sh
# Starts nasbn with the ONNX Runtime library and the bundle of this package. ORT_DYLIB_PATH names another library, and
# --bundle another bundle. Needs a POSIX shell and nothing else.
set -eu

self=$0
if [ -L "$self" ]; then
    self=$(readlink -f -- "$self")
fi
here=$(CDPATH='' cd -- "$(dirname -- "$self")" && pwd -P)

if [ -z "${ORT_DYLIB_PATH:-}" ]; then
    for library in "$here"/onnxruntime/*/*/libonnxruntime.so; do
        if [ -f "$library" ]; then
            ORT_DYLIB_PATH=$library
            export ORT_DYLIB_PATH
        fi
    done
fi

# Commands that read one bundle take the one beside this script, unless they are given another or a model instead. Options
# that all commands have may stand before the command.
bundle=no command=
for argument; do
    case $argument in
        --bundle | --bundle=* | --onnx | --onnx=*)
            bundle=no
            break
            ;;
        -*) ;;
        *)
            if [ -z "$command" ]; then
                command=$argument
                case $command in
                    adapt | score | search | subnet | latency) bundle=yes ;;
                esac
            fi
            ;;
    esac
done
if [ "$bundle" = yes ]; then
    # Each argument goes from the front to the back, and the bundle behind the command.
    for argument; do
        shift
        set -- "$@" "$argument"
        if [ "$bundle" = yes ] && [ "$argument" = "$command" ]; then
            bundle=put
            set -- "$@" --bundle "$here/bundle"
        fi
    done
fi

exec "$here/bin/nasbn" "$@"
