//! Shared libraries opened at run time: where they are looked for, and their functions by name.
//!
//! A library stays open for the life of the process: device code and threads of the driver outlive any
//! owner here.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::CudaError;

/// One folder or several with colons between; looked through before all others.
pub const FOLDERS_VARIABLE: &str = "XCLIP_CUDA_LIB_DIR";

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Looks for CUDA's libraries in `folder` first: the libraries' own, or a Python site-packages with NVIDIA's
/// wheels. Libraries belong to the process: this has no effect once a GPU was found.
pub fn set_library_folder(folder: &Path) {
    let mut folders = FOLDERS.lock().unwrap_or_else(|e| e.into_inner());
    folders.retain(|known| known != folder);
    folders.insert(0, folder.into());
}

/// Opened at its first use, and kept as long as the process. A failure is not kept: a folder may be named later.
pub(super) struct OpenedOnce<T: 'static>(Mutex<Option<&'static T>>);

impl<T> OpenedOnce<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub fn get(&self, open: impl FnOnce() -> Result<T, CudaError>) -> Result<&'static T, CudaError> {
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(opened) = *known {
            return Ok(opened);
        }
        Ok(*known.insert(Box::leak(Box::new(open()?))))
    }
}

pub(super) struct Library {
    handle: *mut c_void,
    /// The file, as the dynamic linker found it.
    pub path: PathBuf,
}

// SAFETY: the handle is only read, by dlsym, which any thread may call.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// What is looked for.
pub(super) struct Wanted<'a> {
    /// Best first.
    pub sonames: &'a [&'a str],
    /// A function of it, to ask the linker for its path.
    pub function: &'a CStr,
    /// Looked through after the linker's own places; `*` stands for any one folder.
    pub usual: &'a [&'a str],
}

/// Why nothing was opened.
pub(super) enum Missing {
    /// Nowhere; where it was looked for.
    Nowhere(String),
    Bad(CudaError),
}

impl Library {
    /// The first that opens: in the user's folders, where the linker looks, in the usual places.
    pub fn find(wanted: &Wanted<'_>) -> Result<Self, Missing> {
        let given = given_folders();
        let mut bad = None;
        let mut candidates = Vec::new();
        for folder in &given {
            let inside = ["", "lib", "lib64", "nvidia/*/lib", "*/lib"];
            let folders = inside.iter().flat_map(|inside| expand(&folder.join(inside)));
            candidates.extend(folders.flat_map(|f| wanted.sonames.iter().map(move |name| f.join(name))));
        }
        candidates.retain(|path| path.is_file());
        candidates.extend(wanted.sonames.iter().map(PathBuf::from));
        let usual = wanted.usual.iter().flat_map(|place| expand(Path::new(place)));
        let usual = usual.flat_map(|f| wanted.sonames.iter().map(move |name| f.join(name)));
        candidates.extend(usual.filter(|path| path.is_file()));
        for path in candidates {
            match Self::open(&path, wanted.function) {
                Ok(library) => {
                    if let Some(bad) = bad {
                        tracing::info!("{bad}; {} is taken instead", library.path.display());
                    }
                    return Ok(library);
                }
                // A bare name that the linker does not find is no fault yet.
                Err(why) if path.components().count() > 1 => {
                    bad.get_or_insert(CudaError::BadLibrary { path: path.display().to_string(), why });
                }
                Err(_) => {}
            }
        }
        if let Some(bad) = bad {
            return Err(Missing::Bad(bad));
        }
        let mut looked: Vec<String> = given.iter().map(|folder| folder.display().to_string()).collect();
        looked.push("the dynamic linker's folders (LD_LIBRARY_PATH, ldconfig)".into());
        looked.extend(wanted.usual.iter().map(|place| place.to_string()));
        Err(Missing::Nowhere(looked.join(", ")))
    }

    fn open(path: &Path, function: &CStr) -> Result<Self, String> {
        let name =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| "its name has a zero".to_string())?;
        // SAFETY: a C string; the initialisers of NVIDIA's libraries have no conditions.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(linker_error());
        }
        let mut library = Self { handle, path: path.into() };
        if let Some(found) = library.path_of(function) {
            library.path = found;
        }
        Ok(library)
    }

    fn path_of(&self, function: &CStr) -> Option<PathBuf> {
        // SAFETY: an open library and a C string.
        let address = unsafe { libc::dlsym(self.handle, function.as_ptr()) };
        // SAFETY: all zero is a valid value of plain pointers.
        let mut about: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: `about` is written only on success, and its name lives as long as the library.
        let known = !address.is_null() && unsafe { libc::dladdr(address, &mut about) } != 0;
        if !known || about.dli_fname.is_null() {
            return None;
        }
        // SAFETY: a C string of the linker's.
        let name = unsafe { CStr::from_ptr(about.dli_fname) };
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
    }

    /// # Safety
    /// `F` is the type of the C function of this name.
    pub unsafe fn function<F: Copy>(&self, symbol: &'static str) -> Result<F, CudaError> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "F is a function pointer") };
        let missing = || CudaError::NoSymbol { path: self.path.display().to_string(), symbol };
        let name = CString::new(symbol).map_err(|_| missing())?;
        // SAFETY: an open library and a C string.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if address.is_null() {
            return Err(missing());
        }
        // SAFETY: the caller vouches for the type; sizes are equal.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
    }
}

fn linker_error() -> String {
    // SAFETY: takes nothing.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the dynamic linker gives no reason".into();
    }
    // SAFETY: a C string that is valid until the next call of this thread.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn given_folders() -> Vec<PathBuf> {
    let mut folders = FOLDERS.lock().unwrap_or_else(|e| e.into_inner()).clone();
    if let Some(list) = std::env::var_os(FOLDERS_VARIABLE) {
        folders.extend(std::env::split_paths(&list).filter(|folder| !folder.as_os_str().is_empty()));
    }
    folders
}

/// The folders that a pattern with `*` for one component names, later names (newer versions) first.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        let Some((before, after)) = text.split_once('*') else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let matches = |path: &PathBuf| -> Vec<PathBuf> {
            let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
            let fits = |name: &str| name.starts_with(before) && name.ends_with(after);
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> = names.filter(|name| fits(name)).collect();
            names.sort_unstable_by(|a, b| b.cmp(a));
            names.into_iter().map(|name| path.join(name)).collect()
        };
        found = found.iter().flat_map(matches).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_folder_newest_first() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["nvidia/cublas/lib", "nvidia/cu13/lib", "cuda-12.0", "cuda-12.9"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let found = expand(&root.path().join(pattern));
            found.iter().map(|p| p.strip_prefix(root.path()).unwrap().display().to_string()).collect()
        };
        assert_eq!(names("nvidia/*/lib"), ["nvidia/cublas/lib", "nvidia/cu13/lib"]);
        assert_eq!(names("cuda-*"), ["cuda-12.9", "cuda-12.0"]);
        assert!(names("none/*/lib").is_empty());
    }

    #[test]
    fn a_file_that_is_no_library_is_named_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("libxclipnothing.so.1");
        std::fs::write(&file, "no library").unwrap();
        let Err(why) = Library::open(&file, c"none") else { panic!("a text file was opened") };
        assert!(why.contains("libxclipnothing"), "{why}");
    }
}
