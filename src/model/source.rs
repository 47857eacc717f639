//! Where a checkpoint's files come from: a folder, or the bytes bundled with the binary.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::ModelError;

/// Largest configuration or tokenizer file that is read; published ones stay under 4 MB.
const TEXT_LIMIT: u64 = 64 << 20;

/// Name of the bundled checkpoint.
pub const DEMO: &str = "demo";

/// The bundled checkpoint, so that one plugin file is the whole installation.
const DEMO_FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../models/demo/config.json")),
    ("preprocessor_config.json", include_bytes!("../../models/demo/preprocessor_config.json")),
    ("xclip.json", include_bytes!("../../models/demo/xclip.json")),
    ("tokenizer.json", include_bytes!("../../models/demo/tokenizer.json")),
    ("model.safetensors", include_bytes!("../../models/demo/model.safetensors")),
];

/// A checkpoint's folder.
pub(crate) enum Folder {
    Disk(PathBuf),
    Demo,
}

/// A file's content, and its name for messages.
pub(crate) struct Content {
    pub file: String,
    bytes: Bytes,
}

enum Bytes {
    Read(Vec<u8>),
    Mapped(Mmap),
    Bundled(&'static [u8]),
}

impl Deref for Content {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Read(bytes) => bytes,
            Bytes::Mapped(map) => map,
            Bytes::Bundled(bytes) => bytes,
        }
    }
}

impl Content {
    /// Lets the system take back the memory of a mapped file; what is read again comes from the file.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            // SAFETY: the map is read-only and of a file, so dropped pages come back with the same bytes.
            // A refusal costs memory only.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

impl Folder {
    pub fn open(model: &str) -> Result<Self, ModelError> {
        if model == DEMO {
            return Ok(Self::Demo);
        }
        let path = PathBuf::from(model);
        let problem = match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Ok(Self::Disk(path)),
            Ok(_) => "is a file; name the folder that holds config.json, preprocessor_config.json, \
                      model.safetensors and tokenizer.json"
                .to_string(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                "no such folder; expected `demo` or a folder in \
                      the Hugging Face layout (xclipd generate-weights makes a synthetic one)"
                    .to_string()
            }
            Err(error) => error.to_string(),
        };
        Err(ModelError::Folder { model: model.to_string(), problem })
    }

    /// `demo`, or the last part of the folder's path.
    pub fn name(&self) -> String {
        let Self::Disk(path) = self else { return DEMO.to_string() };
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The file's name as messages show it; the folder's for an empty one.
    pub fn label(&self, name: &str) -> String {
        match self {
            Self::Disk(path) if name.is_empty() => path.display().to_string(),
            Self::Disk(path) => path.join(name).display().to_string(),
            Self::Demo => format!("bundled {DEMO}/{name}"),
        }
    }

    fn bundled(&self, name: &str) -> Option<Content> {
        let (_, bytes) = DEMO_FILES.iter().find(|(file, _)| *file == name)?;
        Some(Content { file: self.label(name), bytes: Bytes::Bundled(bytes) })
    }

    /// A small file, read whole; `None` if it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<Content>, ModelError> {
        let Self::Disk(folder) = self else { return Ok(self.bundled(name)) };
        let Some((path, _, size)) = find(folder, name)? else { return Ok(None) };
        let file = path.display().to_string();
        if size > TEXT_LIMIT {
            let problem = format!("is {size} bytes; expected at most {TEXT_LIMIT} for this kind of file");
            return Err(ModelError::Format { file, problem });
        }
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Io { path, source })?;
        refuse_lfs_pointer(&file, &bytes)?;
        Ok(Some(Content { file, bytes: Bytes::Read(bytes) }))
    }

    /// A weights file, mapped; `None` if it does not exist.
    pub fn map(&self, name: &str) -> Result<Option<Content>, ModelError> {
        let Self::Disk(folder) = self else { return Ok(self.bundled(name)) };
        let Some((path, file, _)) = find(folder, name)? else { return Ok(None) };
        // SAFETY: the map is read-only and private; checkpoints are replaced as whole files. Whoever
        // truncates one in place while it is mapped gets SIGBUS, as with any mapped library.
        let map =
            unsafe { Mmap::map(&file) }.map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let file = path.display().to_string();
        refuse_lfs_pointer(&file, &map)?;
        Ok(Some(Content { file, bytes: Bytes::Mapped(map) }))
    }
}

/// A regular file that is not empty, with its size; `None` if it does not exist.
fn find(folder: &Path, name: &str) -> Result<Option<(PathBuf, File, u64)>, ModelError> {
    let path = folder.join(name);
    // A named pipe would block `open`.
    let io = |source| ModelError::Io { path: path.clone(), source };
    let found = match std::fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(io)?,
    };
    let problem = match (found.is_file(), found.len()) {
        (false, _) => "is not a regular file",
        (_, 0) => "is empty, probably an interrupted download: fetch it again",
        _ => {
            let file = File::open(&path).map_err(io)?;
            return Ok(Some((path, file, found.len())));
        }
    };
    Err(ModelError::Format { file: path.display().to_string(), problem: problem.to_string() })
}

fn refuse_lfs_pointer(file: &str, bytes: &[u8]) -> Result<(), ModelError> {
    if bytes.len() < 1024 && bytes.starts_with(b"version https://git-lfs") {
        let problem =
            "is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder".to_string();
        return Err(ModelError::Format { file: file.to_string(), problem });
    }
    Ok(())
}

/// Whether a name from an index file stays inside its folder.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}
