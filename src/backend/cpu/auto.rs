//! `precision=auto`: int8 where the processor has dot products for it and this checkpoint bears it, else
//! f32.
//!
//! A checkpoint bears it when a self-check holds: one fixed clip in both precisions gives nearly the same
//! features. That loads both, one after the other, so its figures are kept in the user's cache folder,
//! per checkpoint and kind of processor. A cache that cannot be read or written costs time, nothing else.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CpuBackend, Isa};
use crate::backend::{Backend, BackendError, ClipFeatures, Precision};
use crate::model::{Model, recipe};
use crate::preprocess::Reduced;

/// Changes with anything that moves int8 results: older figures are then measured anew.
const VERSION: u32 = 1;
/// Least cosine of the int8 features with the f32 ones.
const COSINE: f64 = 0.999;
/// Largest relative difference of their norms.
const NORM: f64 = 0.01;

/// How near one clip's int8 features are to its f32 features.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Agreement {
    video_cosine: f64,
    /// ‖int8‖ / ‖f32‖
    video_norm: f64,
    patches_cosine: f64,
    patches_norm: f64,
}

impl Agreement {
    /// Int8 that gives no finite features agrees with nothing.
    const NONE: Self = Self { video_cosine: 0.0, video_norm: 0.0, patches_cosine: 0.0, patches_norm: 0.0 };

    fn of(int8: &ClipFeatures, f32: &ClipFeatures) -> Self {
        let (video_cosine, video_norm) = compare(&int8.video, &f32.video);
        let (patches_cosine, patches_norm) = compare(&int8.patches, &f32.patches);
        Self { video_cosine, video_norm, patches_cosine, patches_norm }
    }

    fn holds(&self) -> bool {
        let near = |cosine: f64, norm: f64| cosine >= COSINE && (norm - 1.0).abs() <= NORM;
        near(self.video_cosine, self.video_norm) && near(self.patches_cosine, self.patches_norm)
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { video_cosine, video_norm, patches_cosine, patches_norm } = self;
        write!(
            f,
            "video features: cosine {video_cosine:.5}, norm × {video_norm:.4}; patch features: cosine \
             {patches_cosine:.5}, norm × {patches_norm:.4}; wanted: {COSINE} and within {NORM} of 1"
        )
    }
}

/// Cosine of the two and ‖a‖/‖b‖; 0 where they do not exist.
fn compare(a: &[f32], b: &[f32]) -> (f64, f64) {
    let (mut dot, mut own, mut other) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (dot, own, other) = (dot + a * b, own + a * a, other + b * b);
    }
    if own * other > 0.0 { (dot / (own * other).sqrt(), (own / other).sqrt()) } else { (0.0, 0.0) }
}

/// Loads the model in the precision that suits it and this processor, and says which in the log.
pub(super) fn open(model: &Model, threads: usize) -> Result<CpuBackend, BackendError> {
    open_on(model, Isa::best(), threads, folder().as_deref())
}

fn open_on(
    model: &Model,
    isa: Isa,
    threads: usize,
    cache: Option<&Path>,
) -> Result<CpuBackend, BackendError> {
    let load = |precision| CpuBackend::on(model, isa, threads, precision);
    if !isa.has_vnni() {
        tracing::info!("precision auto: f32 ({} has no int8 dot products)", isa.name());
        return load(Precision::F32);
    }
    let entry = Entry::new(model, isa);
    let (agreement, int8) = match cache.and_then(|folder| entry.read(folder)) {
        Some(known) => (known, None),
        None => {
            let exact = features(model, &mut load(Precision::F32)?)?;
            let mut int8 = load(Precision::Int8)?;
            let agreement = match features(model, &mut int8) {
                Ok(rounded) => Agreement::of(&rounded, &exact),
                Err(BackendError::NotFinite { .. }) => Agreement::NONE,
                Err(error) => return Err(error),
            };
            if let Some(folder) = cache
                && let Err(error) = entry.write(folder, agreement)
            {
                tracing::debug!("{}: cannot keep the int8 self-check: {error}", folder.display());
            }
            (agreement, Some(int8))
        }
    };
    if agreement.holds() {
        tracing::info!("precision auto: int8 ({agreement})");
        return int8.map_or_else(|| load(Precision::Int8), Ok);
    }
    drop(int8);
    tracing::warn!(
        "precision auto: f32, because int8 changes what model {} sees in a fixed clip ({agreement}); \
         precision=int8 takes it nevertheless",
        model.name
    );
    load(Precision::F32)
}

/// Features of the fixed clip.
fn features(model: &Model, backend: &mut CpuBackend) -> Result<ClipFeatures, BackendError> {
    let (frames, size) = (model.config.num_frames, model.config.image_size);
    let frames: Vec<Reduced> = recipe::frames_u8(frames, size, size, 2)
        .chunks_exact(size * size * 3)
        .map(|rgb| Reduced { size: size as u32, rgb: rgb.to_vec() })
        .collect();
    let prepared = backend.prepare(&frames.iter().collect::<Vec<_>>())?;
    Ok(backend.encode(&[&prepared])?.remove(0))
}

/// What the cache holds of one checkpoint on one kind of processor.
#[derive(Serialize, Deserialize)]
struct Entry {
    version: u32,
    program: String,
    model: String,
    processor: String,
    agreement: Option<Agreement>,
}

impl Entry {
    fn new(model: &Model, isa: Isa) -> Self {
        Self {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            model: model.fingerprint().into(),
            processor: format!("{} {}", processor(), isa.name()),
            agreement: None,
        }
    }

    fn file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{:016x}.json", self.model, recipe::fnv1a64(self.processor.as_bytes())))
    }

    fn read(&self, folder: &Path) -> Option<Agreement> {
        let found: Self = serde_json::from_slice(&std::fs::read(self.file(folder)).ok()?).ok()?;
        let key = |entry: &Self| {
            (entry.version, entry.program.clone(), entry.model.clone(), entry.processor.clone())
        };
        found.agreement.filter(|_| key(&found) == key(self))
    }

    fn write(mut self, folder: &Path, agreement: Agreement) -> std::io::Result<()> {
        self.agreement = Some(agreement);
        std::fs::create_dir_all(folder)?;
        let (file, text) = (self.file(folder), serde_json::to_vec_pretty(&self)?);
        // Another process may be at the same: whole files take each other's place.
        let new = file.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&new, text)?;
        std::fs::rename(new, file)
    }
}

/// `$XDG_CACHE_HOME/xclip/int8`, or below ~/.cache.
fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("xclip").join("int8"))
}

/// Maker, family and model of this processor, where it says so.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has cpuid with leaves 0 and 1.
        #[allow(unused_unsafe)]
        let (maker, kind) = unsafe { (std::arch::x86_64::__cpuid(0), std::arch::x86_64::__cpuid(1)) };
        let name = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).concat();
        format!("{} {:x}", String::from_utf8_lossy(&name), kind.eax)
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Heads;

    fn model() -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small");
        Model::open_for_verify(folder.to_str().unwrap(), Heads::Hf).unwrap()
    }

    const NEAR: Agreement =
        Agreement { video_cosine: 0.9995, video_norm: 1.005, patches_cosine: 0.9993, patches_norm: 0.995 };

    #[test]
    fn int8_is_taken_only_if_all_four_figures_hold() {
        assert!(NEAR.holds());
        for far in [
            Agreement { video_cosine: 0.9989, ..NEAR },
            Agreement { video_norm: 1.011, ..NEAR },
            Agreement { patches_cosine: 0.9989, ..NEAR },
            Agreement { patches_norm: 0.989, ..NEAR },
            Agreement { video_cosine: f64::NAN, ..NEAR },
            Agreement::NONE,
        ] {
            assert!(!far.holds(), "{far}");
        }
        let clip = |video: &[f32], patches: &[f32]| ClipFeatures {
            video: video.to_vec(),
            patches: patches.to_vec(),
        };
        let found = Agreement::of(&clip(&[2.0, 0.0], &[1.0, 1.0]), &clip(&[1.0, 0.0], &[1.0, -1.0]));
        assert_eq!((found.video_cosine, found.video_norm, found.patches_cosine), (1.0, 2.0, 0.0));
    }

    #[test]
    fn a_processor_without_dot_products_takes_f32() {
        let cache = tempfile::tempdir().unwrap();
        let portable = *Isa::available().last().unwrap();
        let backend = open_on(&model(), portable, 1, Some(cache.path())).unwrap();
        assert!(backend.describe().ends_with("f32"), "{}", backend.describe());
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    /// The rest needs a processor that auto gives int8; elsewhere the choice is the test above.
    fn with_dot_products() -> Option<Isa> {
        Some(Isa::best()).filter(|isa| isa.has_vnni())
    }

    #[test]
    fn what_the_self_check_found_is_kept_and_decides_the_next_time() {
        let Some(isa) = with_dot_products() else { return };
        let (model, cache) = (model(), tempfile::tempdir().unwrap());
        let folder = cache.path().join("made");
        let first = open_on(&model, isa, 1, Some(&folder)).unwrap().describe();
        let kept = Entry::new(&model, isa).read(&folder).expect("the figures were kept");
        assert_eq!(first.ends_with("int8"), kept.holds(), "{first}, {kept}");
        for (agreement, precision) in
            [(NEAR, "int8"), (Agreement { video_cosine: 0.9, ..NEAR }, "f32"), (NEAR, "int8")]
        {
            Entry::new(&model, isa).write(&folder, agreement).unwrap();
            let found = open_on(&model, isa, 1, Some(&folder)).unwrap().describe();
            assert!(found.ends_with(precision), "{found}");
        }
    }

    #[test]
    fn a_cache_that_is_broken_or_cannot_be_written_changes_nothing() {
        let Some(isa) = with_dot_products() else { return };
        let (model, cache) = (model(), tempfile::tempdir().unwrap());
        let plain = open_on(&model, isa, 1, None).unwrap().describe();
        let entry = Entry::new(&model, isa);
        let broken = ["", "{", "null", r#"{"version":1,"agreement":null}"#];
        for text in broken {
            std::fs::write(entry.file(cache.path()), text).unwrap();
            assert_eq!(open_on(&model, isa, 1, Some(cache.path())).unwrap().describe(), plain);
            assert!(Entry::new(&model, isa).read(cache.path()).is_some(), "measured anew after {text:?}");
        }
        // A file is where the folder should be.
        let file = entry.file(cache.path());
        assert_eq!(open_on(&model, isa, 1, Some(&file)).unwrap().describe(), plain);
    }

    #[test]
    fn figures_of_another_processor_model_or_version_do_not_count() {
        let (model, cache) = (model(), tempfile::tempdir().unwrap());
        let entry = || Entry::new(&model, Isa::best());
        entry().write(cache.path(), NEAR).unwrap();
        assert_eq!(entry().read(cache.path()), Some(NEAR));
        for other in [
            Entry { processor: "another".into(), ..entry() },
            Entry { model: "another".into(), ..entry() },
            Entry { version: VERSION + 1, ..entry() },
            Entry { program: "0.0.0".into(), ..entry() },
        ] {
            assert_eq!(other.read(cache.path()), None);
            // Nor if the name of its file were the same.
            std::fs::copy(entry().file(cache.path()), other.file(cache.path())).ok();
            assert_eq!(other.read(cache.path()), None);
        }
    }
}
