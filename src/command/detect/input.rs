//! What INPUT says: a file, a camera, the drawn world.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::command::CommandError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    File(PathBuf),
    /// An rtsp:// (rtsps://, rtspt://, …) address.
    Rtsp(String),
    /// A V4L2 device.
    Device(PathBuf),
    /// A script file, a seed, or neither.
    Scene {
        script: Option<PathBuf>,
        seed: Option<u64>,
    },
}

const KINDS: &str = "expected a file, rtsp://…, /dev/videoN or scene:[SEED or SCRIPT]";

impl Input {
    /// Understands `text` and checks what can be checked without GStreamer.
    ///
    /// # Errors
    /// An unknown kind of address; a file or device that does not exist or cannot be read.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        if let Some(rest) = text.strip_prefix("scene:") {
            return Ok(match rest {
                "" => Input::Scene { script: None, seed: None },
                seed if seed.parse::<u64>().is_ok() => Input::Scene { script: None, seed: seed.parse().ok() },
                script => Input::Scene { script: Some(readable(Path::new(script))?), seed: None },
            });
        }
        match text.split_once("://") {
            Some(("file", path)) => Ok(Input::File(readable(Path::new(path))?)),
            Some((scheme, _)) if scheme.starts_with("rtsp") => Ok(Input::Rtsp(text.to_string())),
            Some(_) if !Path::new(text).exists() => {
                Err(CommandError::unusable(text, "this kind of address is not supported", KINDS))
            }
            _ if text.starts_with("/dev/") => device(Path::new(text)),
            _ => Ok(Input::File(readable(Path::new(text))?)),
        }
    }

    /// Frames come when they come; waiting for inference would lose some.
    pub fn is_live(&self) -> bool {
        matches!(self, Input::Rtsp(_) | Input::Device(_))
    }
}

/// The input as messages show it: without a password.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::File(path) | Input::Device(path) => write!(f, "{}", path.display()),
            Input::Rtsp(address) => f.write_str(&without_password(address)),
            Input::Scene { script: Some(path), .. } => write!(f, "scene:{}", path.display()),
            Input::Scene { seed: Some(seed), .. } => write!(f, "scene:{seed}"),
            Input::Scene { .. } => f.write_str("scene:"),
        }
    }
}

/// `rtsp://user:secret@host/path` → `rtsp://user:***@host/path`.
fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_string() };
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    match authority.rsplit_once('@').and_then(|(login, host)| Some((login.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{scheme}://{user}:***@{host}{}", &rest[authority.len()..]),
        None => address.to_string(),
    }
}

fn readable(path: &Path) -> Result<PathBuf, CommandError> {
    let io = |source| CommandError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(CommandError::unusable(path.display().to_string(), "is a folder", KINDS));
    }
    Ok(path.to_path_buf())
}

fn device(path: &Path) -> Result<Input, CommandError> {
    let shown = path.display().to_string();
    match File::open(path) {
        Ok(_) => Ok(Input::Device(path.to_path_buf())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(CommandError::unusable(
            shown,
            "there is no such device",
            "`ls /dev/video*` lists the cameras that the system knows",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(CommandError::unusable(
            shown,
            "permission denied",
            "add yourself to the group video: sudo usermod -aG video $USER, then log in again",
        )),
        // Busy devices open, some refuse reading without a format: GStreamer's message is the better one.
        Err(_) => Ok(Input::Device(path.to_path_buf())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_input_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a://b c.mp4");
        std::fs::create_dir_all(odd.parent().unwrap()).unwrap();
        std::fs::write(&odd, "x").unwrap();
        let odd = odd.to_str().unwrap();
        assert_eq!(Input::parse(odd).unwrap(), Input::File(odd.into()));
        assert_eq!(Input::parse(&format!("file://{odd}")).unwrap(), Input::File(odd.into()));
        assert_eq!(Input::parse("rtsp://10.0.0.1/a").unwrap(), Input::Rtsp("rtsp://10.0.0.1/a".into()));
        assert_eq!(Input::parse("scene:").unwrap(), Input::Scene { script: None, seed: None });
        assert_eq!(Input::parse("scene:17").unwrap(), Input::Scene { script: None, seed: Some(17) });
        assert!(matches!(
            Input::parse(&format!("scene:{odd}")).unwrap(),
            Input::Scene { script: Some(_), .. }
        ));
    }

    #[test]
    fn what_cannot_be_an_input_is_refused_by_name() {
        let refused = |text: &str| Input::parse(text).unwrap_err().to_string();
        assert!(refused("http://camera/stream").contains("not supported; expected a file, rtsp://"));
        assert!(refused("no/such/file.mp4").starts_with("no/such/file.mp4: "));
        assert!(refused("/dev/video250").contains("no such device; `ls /dev/video*`"));
        assert!(refused("/").contains("is a folder"));
        assert!(refused("scene:no/such/script").starts_with("no/such/script: "));
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = |text: &str| Input::Rtsp(text.into()).to_string();
        assert_eq!(shown("rtsp://me:se@cret@10.0.0.1:554/a?b=c:d@e"), "rtsp://me:***@10.0.0.1:554/a?b=c:d@e");
        assert_eq!(shown("rtsp://me@host/a"), "rtsp://me@host/a");
        assert_eq!(shown("rtsp://host"), "rtsp://host");
    }
}
