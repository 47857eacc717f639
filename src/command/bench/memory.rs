//! What the kernel says of this process's memory; Linux only, `None` elsewhere.

use serde::Serialize;

/// In MB (10⁶ bytes).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Everything resident, the code and mapped files too.
    pub resident_mb: f64,
    /// Of it what is not backed by a file.
    pub anonymous_mb: f64,
    /// Most that was resident since `forget_peak`.
    pub peak_mb: f64,
}

impl Memory {
    pub fn now() -> Option<Self> {
        parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }
}

/// Lets the peak start again from what is resident now.
pub fn forget_peak() {
    // Where the kernel refuses, the peak counts from the process's start.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn parse(status: &str) -> Option<Memory> {
    let megabytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024.0 / 1e6)
    };
    Some(Memory {
        resident_mb: megabytes("VmRSS")?,
        anonymous_mb: megabytes("RssAnon")?,
        peak_mb: megabytes("VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_by_name_and_in_their_unit() {
        let status = "Name:\txclipd\nVmHWM:\t  2000 kB\nVmRSS:\t  1000 kB\nRssAnon:\t 500 kB\nThreads:\t2\n";
        let memory = parse(status).unwrap();
        assert_eq!(memory, Memory { resident_mb: 1.024, anonymous_mb: 0.512, peak_mb: 2.048 });
        assert_eq!(parse("VmRSS:\t1000 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_written_becomes_resident() {
        let before = Memory::now().unwrap();
        let written = vec![1u8; 200_000_000];
        let now = Memory::now().unwrap();
        assert!(now.anonymous_mb > before.anonymous_mb + 150.0, "{before:?} {now:?} {}", written.len());
        assert!(now.peak_mb >= 200.0, "{now:?}");
    }
}
