#!/bin/sh
# Install torchsort into a virtual environment: sh tools/install_torchsort.sh VENV
#
# torchsort is compiled against the torch in VENV. Its CUDA kernel is built where there is a GPU and nvcc; the CPU
# kernel alone otherwise. If neither can be built, the exit status is still 0: the built-in soft rank is used instead.

venv=$(cd "$1" && pwd) || exit 2
python=$venv/bin/python
log=$venv/torchsort.log

works() {
    "$python" -c "import torch, torchsort" 2>/dev/null
}

build() {
    "$python" -m pip install "setuptools>=70.1" >>"$log" 2>&1 &&
        # No cache: a wheel from there may have been compiled against another torch.
        "$python" -m pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall \
            "torchsort>=0.1.10" >>"$log" 2>&1 &&
        works
}

# Print PATH with every folder that holds nvcc replaced by a folder of links to all other programs in it:
# torchsort builds its CUDA kernel whenever it finds nvcc, and the compiler may be in the same folder.
path_without_nvcc() {
    IFS=:
    for folder in $PATH; do
        if [ -e "$folder/nvcc" ]; then
            links=$(mktemp -d "$temporary/XXXXXX")
            ln -s "$folder"/* "$links"
            rm "$links/nvcc"
            folder=$links
        fi
        printf '%s:' "$folder"
    done
}

works && exit 0
echo "Building torchsort (about a minute; log: $log)"
: >"$log"
PATH=$venv/bin:$PATH  # ninja, if installed there, makes the build faster
if command -v nvcc >/dev/null && "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    build && exit 0
fi
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
PATH=$(path_without_nvcc)
PATH=${PATH%:}
build && exit 0
echo "Notice: torchsort could not be built (see $log). The built-in soft rank is used instead;"
echo "        it gives the same ranks and needs no compiler. \`make setup\` tries again."
