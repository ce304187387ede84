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

# Commands that read one bundle take the one beside this script, unless they are given another or a model instead.
bundle=no
case ${1:-} in
    adapt | score | search | subnet | latency) bundle=yes ;;
esac
for argument; do
    case $argument in
        --bundle | --bundle=* | --onnx | --onnx=*) bundle=no ;;
    esac
done
if [ "$bundle" = yes ]; then
    command=$1
    shift
    set -- "$command" --bundle "$here/bundle" "$@"
fi

exec "$here/bin/nasbn" "$@"
