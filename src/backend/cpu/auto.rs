//! `precision=auto`: int8 where the processor has dot products for it, this checkpoint bears it and it
//! is not clearly slower, else f32.
//!
//! A checkpoint bears it when a self-check holds: one fixed clip in both precisions gives nearly the same
//! features. It is slower when the best of a few passes of that clip takes over a tenth longer: the check
//! may run beside other programs, a verdict stays, and int8 takes a third of the memory at any rate.
//! That loads both, one after the other, so the verdict is kept in the user's cache folder, per
//! checkpoint, kind of processor, number of threads and kind of build. A cache that cannot be read or
//! written costs time, nothing else.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{CpuBackend, Isa};
use crate::backend::{self, Backend, BackendError, Choice, ClipFeatures, Precision};
use crate::model::{Model, recipe};
use crate::preprocess::Reduced;

/// Changes with anything that moves int8 results or what the cache holds: older verdicts are then found anew.
const VERSION: u32 = 4;
/// Least number of passes of the clip that are timed, after one that is not, and how long they go on: a
/// small model's are over before a neighbour on the machine is.
const PASSES: usize = 4;
const LEAST_TIME: Duration = Duration::from_millis(60);
/// Least cosine of the int8 features with the f32 ones.
const COSINE: f64 = 0.999;
/// Largest relative difference of their norms.
const NORM: f64 = 0.01;
/// Longest time of a window at int8, as a multiple of that at f32.
const SLOWEST: f64 = 1.1;

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

/// What the self-check found of one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Verdict {
    agreement: Agreement,
    /// The fixed clip from pixels to features.
    f32_ms: f64,
    int8_ms: f64,
}

impl Verdict {
    /// Why not int8, if so.
    fn objection(&self) -> Option<Objection> {
        if !self.agreement.holds() {
            Some(Objection::Differs)
        } else if self.int8_ms > SLOWEST * self.f32_ms || !self.int8_ms.is_finite() {
            Some(Objection::Slower)
        } else {
            None
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agreement, f32_ms, int8_ms } = self;
        write!(f, "a window takes {int8_ms:.2} ms, f32 {f32_ms:.2} ms; {agreement}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Objection {
    /// The features are too far from those of f32.
    Differs,
    /// What it rounds off costs time instead of saving it.
    Slower,
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

impl CpuBackend {
    /// Loads the model in the precision that suits it and this processor.
    pub fn choose(model: &Model, threads: usize) -> Result<(Self, Choice), BackendError> {
        choose_on(model, Isa::best(), threads, folder().as_deref())
    }
}

/// The same, and the log says which.
pub(super) fn open(model: &Model, threads: usize) -> Result<CpuBackend, BackendError> {
    let (backend, choice) = CpuBackend::choose(model, threads)?;
    choice.log();
    Ok(backend)
}

fn choose_on(
    model: &Model,
    isa: Isa,
    threads: usize,
    cache: Option<&Path>,
) -> Result<(CpuBackend, Choice), BackendError> {
    let load = |precision| CpuBackend::on(model, isa, threads, precision);
    if !isa.has_vnni() {
        let why = format!("precision auto: f32 ({} has no int8 dot products)", isa.name());
        return Ok((load(Precision::F32)?, Choice { why, differs: false }));
    }
    let entry = Entry::new(model, isa, threads);
    let (verdict, int8) = match cache.and_then(|folder| entry.read(folder)) {
        Some(known) => (known, None),
        None => {
            let (exact, f32_ms) = features(model, &mut load(Precision::F32)?)?;
            let mut int8 = load(Precision::Int8)?;
            let (agreement, int8_ms) = match features(model, &mut int8) {
                Ok((rounded, took)) => (Agreement::of(&rounded, &exact), took),
                Err(BackendError::NotFinite { .. }) => (Agreement::NONE, f32_ms),
                Err(error) => return Err(error),
            };
            let verdict = Verdict { agreement, f32_ms, int8_ms };
            if let Some(folder) = cache
                && let Err(error) = entry.write(folder, verdict)
            {
                tracing::debug!("{}: cannot keep the int8 self-check: {error}", folder.display());
            }
            (verdict, Some(int8))
        }
    };
    let objection = verdict.objection();
    let why = match objection {
        None => format!("precision auto: int8 ({verdict})"),
        Some(Objection::Slower) => {
            format!("precision auto: f32, because int8 is slower for model {} ({verdict})", model.name)
        }
        Some(Objection::Differs) => format!(
            "precision auto: f32, because int8 changes what model {} sees in a fixed clip ({verdict}); \
             precision=int8 takes it nevertheless",
            model.name
        ),
    };
    let backend = match (objection, int8) {
        (None, Some(int8)) => int8,
        (None, None) => load(Precision::Int8)?,
        (Some(_), int8) => {
            drop(int8);
            load(Precision::F32)?
        }
    };
    Ok((backend, Choice { why, differs: objection == Some(Objection::Differs) }))
}

/// Features of the fixed clip, and the milliseconds of the fastest of a few passes.
fn features(model: &Model, backend: &mut CpuBackend) -> Result<(ClipFeatures, f64), BackendError> {
    let (frames, size) = (model.config.num_frames, model.config.image_size);
    let frames = Reduced::split(&recipe::frames_u8(frames, size, size, 2), size);
    let frames: Vec<&Reduced> = frames.iter().collect();
    let mut pass = || {
        let start = Instant::now();
        let prepared = backend.prepare(&frames)?;
        let features = backend.encode(&[&prepared])?.remove(0);
        Ok::<_, BackendError>((features, start.elapsed()))
    };
    let (features, _) = pass()?;
    let (start, mut passes, mut best) = (Instant::now(), 0, Duration::MAX);
    while passes < PASSES || start.elapsed() < LEAST_TIME {
        best = best.min(pass()?.1);
        passes += 1;
    }
    Ok((features, best.as_secs_f64() * 1e3))
}

/// What the cache holds of one checkpoint on one kind of processor, with so many threads: another number may
/// have another faster one. And of one kind of build: loops that are not optimised say nothing of those that are.
#[derive(Serialize, Deserialize)]
struct Entry {
    version: u32,
    program: String,
    model: String,
    processor: String,
    threads: usize,
    optimised: bool,
    verdict: Option<Verdict>,
}

impl Entry {
    fn new(model: &Model, isa: Isa, threads: usize) -> Self {
        Self {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            model: model.fingerprint().into(),
            processor: format!("{} {}", processor(), isa.name()),
            threads: backend::threads(threads),
            optimised: !cfg!(debug_assertions),
            verdict: None,
        }
    }

    fn file(&self, folder: &Path) -> PathBuf {
        let Self { model, processor, threads, optimised, .. } = self;
        let place = format!("{processor}, {threads}, {optimised}");
        folder.join(format!("{model}-{:016x}.json", recipe::fnv1a64(place.as_bytes())))
    }

    fn read(&self, folder: &Path) -> Option<Verdict> {
        let found: Self = serde_json::from_slice(&std::fs::read(self.file(folder)).ok()?).ok()?;
        let key = |entry: &Self| {
            let Self { version, program, model, processor, threads, optimised, .. } = entry;
            (*version, program.clone(), model.clone(), processor.clone(), *threads, *optimised)
        };
        found.verdict.filter(|_| key(&found) == key(self))
    }

    fn write(mut self, folder: &Path, verdict: Verdict) -> std::io::Result<()> {
        self.verdict = Some(verdict);
        std::fs::create_dir_all(folder)?;
        // Others, in this process or another, may be at the same: whole files take each other's place.
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(&serde_json::to_vec_pretty(&self)?)?;
        new.persist(self.file(folder))?;
        Ok(())
    }
}

/// `int8` in `$XCLIP_CACHE_DIR`, else in `$XDG_CACHE_HOME/xclip` or ~/.cache/xclip.
fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = || {
        let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(cache.join("xclip"))
    };
    Some(absolute("XCLIP_CACHE_DIR").or_else(own)?.join("int8"))
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

    const FAST: Verdict = Verdict { agreement: NEAR, f32_ms: 3.0, int8_ms: 2.0 };

    #[test]
    fn int8_is_not_taken_where_it_is_clearly_slower() {
        for int8_ms in [2.0, 3.0, 3.2] {
            assert_eq!(Verdict { int8_ms, ..FAST }.objection(), None);
        }
        for int8_ms in [3.4, f64::NAN, f64::INFINITY] {
            assert_eq!(Verdict { int8_ms, ..FAST }.objection(), Some(Objection::Slower));
        }
        let far = Verdict { agreement: Agreement::NONE, ..FAST };
        assert_eq!(far.objection(), Some(Objection::Differs));
    }

    #[test]
    fn a_processor_without_dot_products_takes_f32() {
        let cache = tempfile::tempdir().unwrap();
        let portable = *Isa::available().last().unwrap();
        let (backend, choice) = choose_on(&model(), portable, 1, Some(cache.path())).unwrap();
        assert!(backend.describe().ends_with("f32"), "{}", backend.describe());
        assert!(!choice.differs && choice.why.contains("no int8 dot products"), "{choice:?}");
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
        let first = choose_on(&model, isa, 1, Some(&folder)).unwrap().0.describe();
        let kept = Entry::new(&model, isa, 1).read(&folder).expect("the verdict was kept");
        assert_eq!(first.ends_with("int8"), kept.objection().is_none(), "{first}, {kept}");
        assert!(kept.f32_ms > 0.0 && kept.int8_ms > 0.0, "{kept}");
        let slow = Verdict { int8_ms: 4.0, ..FAST };
        let far = Verdict { agreement: Agreement { video_cosine: 0.9, ..NEAR }, ..FAST };
        for (verdict, precision) in [(FAST, "int8"), (far, "f32"), (FAST, "int8"), (slow, "f32")] {
            Entry::new(&model, isa, 1).write(&folder, verdict).unwrap();
            let (backend, choice) = choose_on(&model, isa, 1, Some(&folder)).unwrap();
            let found = backend.describe();
            assert!(found.ends_with(precision), "{found}");
            assert_eq!(choice.differs, verdict == far, "{choice:?}");
            let figures = format!("a window takes {:.2} ms", verdict.int8_ms);
            assert!(choice.why.contains(precision) && choice.why.contains(&figures), "{choice:?}");
        }
    }

    #[test]
    fn a_verdict_is_of_its_own_threads_and_build() {
        let (model, cache) = (model(), tempfile::tempdir().unwrap());
        let entry = |threads| Entry::new(&model, Isa::best(), threads);
        entry(2).write(cache.path(), FAST).unwrap();
        assert_eq!(entry(2).read(cache.path()), Some(FAST));
        assert_eq!(entry(3).read(cache.path()), None);
        assert_eq!(entry(0).file(cache.path()), entry(backend::threads(0)).file(cache.path()));
        let other = |threads| Entry { optimised: !entry(2).optimised, ..entry(threads) };
        assert_eq!(other(2).read(cache.path()), None);
        // Nor if a file is where another's should be.
        std::fs::copy(entry(2).file(cache.path()), other(2).file(cache.path())).unwrap();
        assert_eq!(other(2).read(cache.path()), None);
    }

    #[test]
    fn a_cache_that_is_broken_or_cannot_be_written_changes_nothing() {
        let Some(isa) = with_dot_products() else { return };
        let (model, cache) = (model(), tempfile::tempdir().unwrap());
        let entry = || Entry::new(&model, isa, 1);
        let broken = ["", "{", "null", r#"{"version":3,"verdict":null}"#];
        for text in broken {
            std::fs::write(entry().file(cache.path()), text).unwrap();
            choose_on(&model, isa, 1, Some(cache.path())).unwrap();
            assert!(entry().read(cache.path()).is_some(), "found anew after {text:?}");
        }
        // A file is where the folder should be.
        let file = entry().file(cache.path());
        choose_on(&model, isa, 1, Some(&file)).unwrap();
        assert!(file.is_file());
    }

    #[test]
    fn writers_at_the_same_time_leave_a_whole_verdict_and_nothing_else() {
        let (model, cache) = (model(), tempfile::tempdir().unwrap());
        let entry = || Entry::new(&model, Isa::best(), 1);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (entry, folder) = (&entry, cache.path());
                scope.spawn(move || {
                    for round in 0..50 {
                        entry()
                            .write(folder, Verdict { int8_ms: f64::from(writer * 50 + round), ..FAST })
                            .unwrap();
                        assert!(entry().read(folder).is_some(), "a reader sees a whole file");
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1);
    }

    #[test]
    fn verdicts_of_another_processor_model_or_version_do_not_count() {
        let (model, cache) = (model(), tempfile::tempdir().unwrap());
        let entry = || Entry::new(&model, Isa::best(), 1);
        entry().write(cache.path(), FAST).unwrap();
        assert_eq!(entry().read(cache.path()), Some(FAST));
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
