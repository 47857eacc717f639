#!/usr/bin/env bash
# Installs the system packages that the build, the demo and the tests need. A no-op when they are
# there. Packages come from the distribution; nothing is downloaded from anywhere else.
source "$(dirname "$0")/steps.sh"

rust_wanted=1.92

debian=(
    gcc libc6-dev make pkg-config               # crates that build C; finding GStreamer
    g++                                         # the emulated CUDA device of the tests
    libgstreamer1.0-dev                         # headers: core
    libgstreamer-plugins-base1.0-dev            # headers: base, video
    libgstrtspserver-1.0-dev                    # headers: the RTSP server of demo and tests
    gstreamer1.0-tools                          # gst-launch-1.0, gst-inspect-1.0
    gstreamer1.0-plugins-base                   # decodebin, videoconvert
    gstreamer1.0-plugins-good                   # rtspsrc, rtph264depay, mp4mux, v4l2src
    gstreamer1.0-plugins-bad                    # h264parse
    gstreamer1.0-plugins-ugly                   # x264enc
    gstreamer1.0-libav                          # avdec_h264 and other decoders
    gstreamer1.0-rtsp                           # the RTSP server's elements
    python3-gi gir1.2-gstreamer-1.0             # the Python example of the README
)
fedora=(
    gcc gcc-c++ make pkgconf-pkg-config gstreamer1-devel gstreamer1-plugins-base-devel gstreamer1-rtsp-server-devel
    gstreamer1 gstreamer1-plugins-base gstreamer1-plugins-good gstreamer1-plugins-bad-free
    gstreamer1-plugins-ugly gstreamer1-plugin-libav python3-gobject
)

check_rust() {
    command -v cargo >/dev/null ||
        fail "cargo is not on the PATH; xclip needs Rust $rust_wanted or newer: https://rustup.rs"
    local have
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$rust_wanted" "${have%%-*}" | sort -V | head -n 1)" = "$rust_wanted" ] ||
        fail "rustc is $have, xclip needs $rust_wanted or newer: rustup update"
}

missing_debian() {
    local package
    for package in "${debian[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done
}

install_debian() {
    local missing=() as_root=()
    mapfile -t missing < <(missing_debian)
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            fail "missing packages; as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    echo "Installing with apt-get: ${missing[*]}"
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"
}

check_rust
if command -v apt-get >/dev/null; then
    install_debian
elif ! pkg-config --exists 'gstreamer-1.0 >= 1.22' gstreamer-video-1.0 gstreamer-rtsp-server-1.0; then
    fail "GStreamer 1.22 or newer with its headers is missing. Fedora: sudo dnf install ${fedora[*]}"
fi
pkg-config --exists 'gstreamer-1.0 >= 1.22' ||
    fail "GStreamer is $(pkg-config --modversion gstreamer-1.0 2>&1), xclip needs 1.22 or newer (Debian 12, Ubuntu 24.04)"
