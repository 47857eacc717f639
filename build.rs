//! Version data for the plugin description; nothing else.

fn main() {
    gst_plugin_version_helper::info();
}
