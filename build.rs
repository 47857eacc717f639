//! Version data for the plugin description; nothing else.

use std::path::Path;

fn main() {
    gst_plugin_version_helper::info();
    // Without these lines every change of any file, of a README too, would build the crate anew.
    println!("cargo:rerun-if-changed=build.rs");
    for changes_with_commits in [".git/HEAD", ".git/logs/HEAD"] {
        if Path::new(changes_with_commits).exists() {
            println!("cargo:rerun-if-changed={changes_with_commits}");
        }
    }
}
