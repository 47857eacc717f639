//! Which GStreamer elements we use for what, and the packages that bring them.

use std::fmt;

/// A GStreamer element from another project.
pub struct Needed {
    pub element: &'static str,
    /// What works only with it.
    pub purpose: &'static str,
    /// Without it xclipd can do nothing.
    pub required: bool,
    pub package: Package,
}

/// The same software on the two families of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub debian: &'static str,
    pub fedora: &'static str,
}

pub const BASE: Package = Package { debian: "gstreamer1.0-plugins-base", fedora: "gstreamer1-plugins-base" };
pub const GOOD: Package = Package { debian: "gstreamer1.0-plugins-good", fedora: "gstreamer1-plugins-good" };
pub const BAD: Package =
    Package { debian: "gstreamer1.0-plugins-bad", fedora: "gstreamer1-plugins-bad-free" };
pub const UGLY: Package = Package { debian: "gstreamer1.0-plugins-ugly", fedora: "gstreamer1-plugins-ugly" };
pub const LIBAV: Package = Package { debian: "gstreamer1.0-libav", fedora: "gstreamer1-plugin-libav" };
pub const CORE: Package = Package { debian: "libgstreamer1.0-0", fedora: "gstreamer1" };

const fn required(element: &'static str, purpose: &'static str, package: Package) -> Needed {
    Needed { element, purpose, required: true, package }
}

const fn optional(element: &'static str, purpose: &'static str, package: Package) -> Needed {
    Needed { element, purpose, required: false, package }
}

pub const ELEMENTS: &[Needed] = &[
    required("queue", "every pipeline", CORE),
    required("decodebin", "every input but scene:", BASE),
    required("videoconvert", "every input", BASE),
    optional("rtspsrc", "rtsp:// inputs", GOOD),
    optional("rtph264depay", "H.264 cameras", GOOD),
    optional("rtph265depay", "H.265 cameras", GOOD),
    optional("rtpjpegdepay", "JPEG cameras", GOOD),
    optional("h264parse", "H.264", BAD),
    optional("avdec_h264", "H.264 (or another decoder)", LIBAV),
    optional("h265parse", "H.265", BAD),
    optional("avdec_h265", "H.265 (or another decoder)", LIBAV),
    optional("jpegdec", "JPEG cameras", GOOD),
    optional("v4l2src", "/dev/video inputs", GOOD),
    optional("qtdemux", ".mp4 and .mov files", GOOD),
    optional("matroskademux", ".mkv and .webm files", GOOD),
    optional("x264enc", "--annotate", UGLY),
    optional("mp4mux", "--annotate out.mp4", GOOD),
    optional("matroskamux", "--annotate out.mkv", GOOD),
    optional("autovideosink", "windows in gst-launch lines", GOOD),
];

/// The family of the running system, as /etc/os-release tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Debian,
    Fedora,
    Other,
}

impl Family {
    /// From the text of /etc/os-release.
    pub fn of(os_release: &str) -> Self {
        let words: Vec<&str> = os_release
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
            .flat_map(|value| value.trim_matches('"').split_whitespace())
            .collect();
        if words.iter().any(|word| ["debian", "ubuntu"].contains(word)) {
            Family::Debian
        } else if words.iter().any(|word| ["fedora", "rhel", "centos"].contains(word)) {
            Family::Fedora
        } else {
            Family::Other
        }
    }

    pub fn here() -> Self {
        Self::of(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
    }
}

/// The command that installs packages: for this system's family, or for both when it is another.
pub struct Install<'a>(pub Family, pub &'a [Package]);

impl fmt::Display for Install<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |pick: fn(&Package) -> &'static str| {
            let mut names: Vec<_> = self.1.iter().map(pick).collect();
            names.sort();
            names.dedup();
            names.join(" ")
        };
        let debian = format!("sudo apt-get install {}", names(|package| package.debian));
        let fedora = format!("sudo dnf install {}", names(|package| package.fedora));
        match self.0 {
            Family::Debian => f.write_str(&debian),
            Family::Fedora => f.write_str(&fedora),
            Family::Other => write!(f, "{debian} (Debian, Ubuntu) or {fedora} (Fedora)"),
        }
    }
}

/// How to get `element`, as the end of a message; empty when no package is known.
pub fn mend(element: &str) -> String {
    match ELEMENTS.iter().find(|needed| needed.element == element) {
        Some(needed) => format!("install it: {}", Install(Family::here(), &[needed.package])),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_systems_own() {
        let packages = [LIBAV, GOOD, LIBAV];
        let command = |os_release| Install(Family::of(os_release), &packages).to_string();
        assert_eq!(
            command("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n"),
            "sudo apt-get install gstreamer1.0-libav gstreamer1.0-plugins-good"
        );
        assert_eq!(
            command("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            "sudo dnf install gstreamer1-plugin-libav gstreamer1-plugins-good"
        );
        let other = command("ID=arch\n");
        assert!(other.contains("apt-get") && other.contains("dnf"), "{other}");
    }
}
