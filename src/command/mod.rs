//! xclipd's subcommands: one module each, with its arguments and the one function that main.rs calls.
//!
//! Results go to stdout, everything else to stderr. A closed stdout (`| head`) ends a command quietly.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

pub mod bench;
#[cfg(feature = "gst")]
pub mod calibrate;
pub mod checkpoint;
#[cfg(feature = "gst")]
pub mod detect;
pub mod doctor;
pub mod eval;
#[cfg(feature = "gst")]
pub mod figures;
pub mod matching;
#[cfg(feature = "gst")]
pub mod packages;
#[cfg(feature = "gst")]
mod plot;
#[cfg(feature = "gst")]
pub mod recorder;
pub mod reliability;
pub mod scene;
pub mod table;
pub mod told;
pub mod verify;
#[cfg(feature = "gst")]
pub mod watch;

/// Printed under `xclipd --help`.
pub const EXIT_STATUSES: &str = "Exit status: 0 done; 1 it failed, or a check did not hold; 2 the command line \
is wrong; 130 interrupted twice.";

/// What a command that checks something found. Others pass when they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The findings were printed; exit status 1.
    Fail,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Verdict::Pass } else { Verdict::Fail }
    }
}

/// Why a command could not do its work: one message that says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("stdout: {0}")]
    Stdout(io::Error),
    /// Something the user named cannot be used.
    #[error("{subject}: {problem}{}{mend}", if mend.is_empty() { "" } else { "; " })]
    Unusable { subject: String, problem: String, mend: String },
    #[error("{}: {source}", path.display())]
    Script { path: PathBuf, source: crate::scene::ScriptError },
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    #[error(transparent)]
    Backend(#[from] crate::backend::BackendError),
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    #[error(transparent)]
    Detector(#[from] crate::detector::DetectorError),
    #[error("{0:#}")]
    Other(anyhow::Error),
    #[cfg(feature = "gst")]
    #[error("GStreamer: {0}; `xclipd doctor` tells what is missing")]
    GStreamer(#[from] gstreamer::glib::BoolError),
}

impl CommandError {
    pub(crate) fn unusable(
        subject: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::Unusable { subject: subject.into(), problem: problem.into(), mend: mend.into() }
    }
}

/// Log lines to stderr: warnings, with one `-v` what happens, with two details.
pub fn start_log(verbose: u8) {
    let level = ["warn", "gstxclip=info,warn", "gstxclip=debug,info", "trace"][usize::from(verbose.min(3))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

/// Prints a line to stdout, from a function that returns a `CommandError`.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write;
        $crate::command::closed_is_fine(writeln!(std::io::stdout(), $($words)*))?
    }};
}
pub(crate) use say;

/// A finished write to stdout; a reader who has had enough is not an error.
pub(crate) fn closed_is_fine(written: io::Result<()>) -> Result<(), CommandError> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Stdout(error)),
        _ => Ok(()),
    }
}

/// Starts GStreamer and registers our elements in this process; no plugin path is needed.
#[cfg(feature = "gst")]
pub(crate) fn start_gstreamer() -> Result<(), CommandError> {
    gstreamer::init().map_err(|error| {
        CommandError::unusable("GStreamer", error.to_string(), "`xclipd doctor` tells what is missing")
    })?;
    Ok(crate::element::register_static()?)
}
