#!/usr/bin/env bash
# Puts the plugin where GStreamer finds it, and xclipd on the PATH. As root: the system's plugin folder
# and /usr/local/bin; else the user's own. PLUGIN_DIR, BIN_DIR and DESTDIR override.
source "$(dirname "$0")/steps.sh"
scripts/setup.sh
cargo build --release --locked

if [ "$(id -u)" -eq 0 ]; then
    plugin_dir=${PLUGIN_DIR:-$(pkg-config --variable=pluginsdir gstreamer-1.0)}
    bin_dir=${BIN_DIR:-/usr/local/bin}
else
    plugin_dir=${PLUGIN_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/gstreamer-1.0/plugins}
    bin_dir=${BIN_DIR:-$HOME/.local/bin}
fi
target=$(target_dir)
install -D -m 644 "$target/release/libgstxclip.so" "${DESTDIR:-}$plugin_dir/libgstxclip.so"
install -D -m 755 "$target/release/xclipd" "${DESTDIR:-}$bin_dir/xclipd"
echo "installed ${DESTDIR:-}$plugin_dir/libgstxclip.so and ${DESTDIR:-}$bin_dir/xclipd"

# Not for a staged install: GStreamer does not look there.
if [ -z "${DESTDIR:-}" ]; then
    gst-inspect-1.0 --exists xclipdetect ||
        fail "GStreamer does not find xclipdetect; add $plugin_dir to GST_PLUGIN_PATH"
    echo "GStreamer finds xclipdetect; try: gst-inspect-1.0 xclipdetect"
fi
