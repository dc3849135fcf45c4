# lib.sh - sourced by tools/test and tools/demo: system packages, .venv, the installed package.
#
# Every function looks first and does nothing when nothing is missing; then no network is needed.
# A function that fails returns 1 after saying what it was about; the callers run under "set -e".

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
TORCH_VERSION=2.13.0
TORCHVISION_VERSION=$(sed -n 's/^torchvision==//p' "$ROOT/tools/requirements.txt")
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf '%s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "This needs root: $*" "(be root, or install sudo)"
        return 1
    fi
}

package_is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# packages NAME...: Debian packages that have to be there.
packages() {
    local name missing=()
    if ! command -v dpkg-query >/dev/null; then
        say "No Debian packages here; going on with what is installed. Needed: $*"
        return 0
    fi
    for name; do
        package_is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return 0
    say "Installing packages: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
}

python_serves() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Prints the path of a Python >= 3.11 that can make virtual environments.
find_python() {
    local name
    for name in python3 /usr/bin/python3 python3.11 python3.12 python3.13 python3.14; do
        if command -v "$name" >/dev/null && python_serves "$name"; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

# The headers that building the package's extension needs; packaged apart from Python on Debian.
python_headers() {
    local found
    found=$("$1" -c 'import os, sys, sysconfig
print(f"python{sys.version_info[0]}.{sys.version_info[1]}-dev")
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))') || packages "$found"
}

python_environment() {
    local python
    if [ -x "$VENV/bin/python" ] && python_serves "$VENV/bin/python"; then
        python_headers "$VENV/bin/python"
        return 0
    fi
    find_python >/dev/null || packages python3 python3-venv
    if ! python=$(find_python); then
        say "Python 3.11 or newer is needed, with its venv module."
        return 1
    fi
    python_headers "$python"
    say "Creating .venv with $($python --version)"
    "$python" -m venv --clear "$VENV"
}

pip_install() {
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "$@"
}

# cpu_build REQUIREMENT: from pip's own places, else from PyTorch's index.
cpu_build() {
    pip_install --no-deps "$1" 2>/dev/null && return 0
    pip_install --no-deps --retries 1 --timeout 20 --extra-index-url "$TORCH_CPU_INDEX" "$1" \
        2>/dev/null
}

# The CPU build of torch. A machine with an NVIDIA GPU can put its own build of this version into
# .venv; it is left alone. PyPI's own build, with gigabytes of CUDA libraries, is the last resort.
# torchvision has to be built for the torch beside it, or "import torchvision" fails.
torch_environment() {
    local found
    found=$("$VENV/bin/python" -c \
        'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)
    [ "${found%%+*}" = "$TORCH_VERSION" ] && return 0
    say "Installing torch $TORCH_VERSION into .venv"
    if cpu_build "torch==$TORCH_VERSION+cpu"; then
        cpu_build "torchvision==$TORCHVISION_VERSION+cpu" ||
            say "No CPU build of torchvision to be had; only the demo and the tests can use PyPI's"
        return 0
    fi
    say "There is no CPU build of torch to be had; taking PyPI's (gigabytes)"
    pip_install "torch==$TORCH_VERSION"
}

# requirements FILE: exactly the packages that FILE pins. They come without their dependencies:
# the file names these too, so that no package can bring another torch.
requirements() {
    local stamp wanted
    stamp=$VENV/.installed-$(basename "$1")
    wanted=$(sha256sum <"$1")
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    torch_environment
    say "Installing $(basename "$1") into .venv"
    pip_install --no-deps -r "$1"
    printf '%s\n' "$wanted" >"$stamp"
}

sources_hash() {
    (cd "$ROOT" && find decode ipc loader clients CMakeLists.txt pyproject.toml -type f \
        ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
}

# The package, with daemon and command line inside, in .venv, as pip install gives it to a user.
install_penstock() {
    local stamp=$VENV/.installed-penstock wanted
    wanted="$ROOT $(sources_hash)" # the scripts of .venv hold its path
    [ -x "$VENV/bin/penstock" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    say "Building and installing penstock into .venv"
    rm -f "$stamp"
    pip_install --no-build-isolation --no-deps --force-reinstall \
        --config-settings build-dir=build/python "$ROOT"
    printf '%s\n' "$wanted" >"$stamp"
}

# What building penstock needs, and what testing it needs on top.
BUILD_PACKAGES=(
    build-essential cmake ninja-build pkg-config
    libjpeg-dev zlib1g-dev libwebp-dev liburing-dev libjansson-dev libcyaml-dev libyaml-dev
    libxxhash-dev libzstd-dev libmicrohttpd-dev libcurl4-openssl-dev libexpat1-dev libssl-dev
)
TEST_PACKAGES=(
    libcmocka-dev clang-16 libclang-rt-16-dev clang-format-16 libfuse3-3
    curl openssl nginx-light libnginx-mod-http-lua
    radosgw ceph-mon ceph-osd ceph-common
)
