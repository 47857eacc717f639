//! Batches on the CUDA backend: any number of windows, labels and frames gives what one window alone gives.
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;

use cuda_device::{current_context, device, fail_launches, on_failing_device, pending, root, runs};
use gstxclip::backend::cuda::{CudaBackend, Placement};
use gstxclip::backend::{Backend, BackendError, ClipFeatures, Device, Precision, Prepared, TextFeatures};
use gstxclip::command::bench::{self, subject};
use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use gstxclip::model::{Config, Heads, generate, recipe};
use gstxclip::preprocess::{Geometry, Reduced, Rule};

/// Products of another size may add up in another order, in f32, and are rounded to f16: logits are about 20.
const NEAR: f32 = 0.01;

struct Bench {
    config: Config,
    backend: CudaBackend,
    texts: Vec<TextFeatures>,
}

fn open(prompts: usize) -> Option<Bench> {
    open_on(0, prompts)
}

fn open_on(placement: impl Into<Placement>, prompts: usize) -> Option<Bench> {
    device()?;
    let json = std::fs::read(root().join("tests/golden/small/config.json")).unwrap();
    let config = Config::parse("config.json", &json, Heads::Hf).unwrap();
    let mut backend = subject::synthetic_cuda(&config, placement).unwrap();
    let texts = backend.encode_text(&subject::prompts(&config, prompts, 8)).unwrap();
    Some(Bench { config, backend, texts })
}

impl Bench {
    fn frames(&self, count: usize, seed: u32) -> Vec<Reduced> {
        let size = self.config.image_size;
        let pixels = recipe::frames_u8(count, size, size, seed);
        Reduced::split(&pixels, size)
    }

    /// The states of `count` windows of their own frames.
    fn windows(&mut self, count: usize) -> Vec<Prepared> {
        let frames = self.frames(count * self.config.num_frames, 5);
        self.prepare(&frames)
    }

    /// Reduces a frame on the device, where it is one of a camera's pictures; its levels stay what they are.
    fn reduce_on_device(&self) -> impl Fn(&Reduced) -> Reduced + use<> {
        let rule = Rule { geometry: Geometry::Stretch, ..subject::rule(&self.config) };
        let reducer = self.backend.reducer().expect("there is memory for it");
        let (format, size) = (PixelFormat::Rgb, rule.size);
        let info = ImageInfo { format, width: size, height: size, matrix: Matrix::Bt709, range: Range::Full };
        move |frame| {
            let rgb = frame.rgb();
            let image = Image::new(info, &[Plane { data: &rgb, stride: 3 * size as usize }]).unwrap();
            reducer.reduce(&rule, &image, Roi::WHOLE).expect("there is room")
        }
    }

    fn prepare(&mut self, frames: &[Reduced]) -> Vec<Prepared> {
        self.backend.prepare(&frames.iter().collect::<Vec<_>>()).unwrap()
    }

    fn score(&mut self, states: &[Prepared], texts: &[&[TextFeatures]]) -> Vec<Vec<f32>> {
        let clips = states.chunks(self.config.num_frames);
        let windows: Vec<_> = clips.zip(texts).map(|(clip, texts)| (clip, *texts)).collect();
        self.backend.score(&windows).unwrap()
    }
}

fn near(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < NEAR)
}

#[test]
fn a_replayed_graph_gives_what_single_launches_give() {
    let Some(mut bench) = open(10) else { return };
    let texts = bench.texts.clone();
    for count in [1, 2, 3, 5] {
        bench.backend.set_graphs(false);
        let states = bench.windows(count);
        let eager = bench.score(&states, &vec![&texts[..]; count]);
        bench.backend.set_graphs(true);
        let before = bench.backend.launches();
        // Warm, captured, replayed twice.
        for _ in 0..4 {
            let states = bench.windows(count);
            assert_eq!(bench.score(&states, &vec![&texts[..]; count]), eager, "{count} windows");
        }
        let before_replay = bench.backend.launches();
        assert!(before_replay > before);
        let states = bench.windows(count);
        bench.score(&states, &vec![&texts[..]; count]);
        assert_eq!(
            bench.backend.launches() - before_replay,
            3,
            "prepare, encode and compare: one graph each"
        );
    }
}

/// The graph stays, its labels change: other vectors, and fewer of them.
#[test]
fn labels_that_change_under_a_replayed_graph_give_what_single_launches_give() {
    let Some(mut bench) = open(13) else { return };
    let states = bench.windows(2);
    let texts = bench.texts.clone();
    // Within one size of launches; the second ones have not been on the device before.
    let (before, after) = ([&texts[..7]; 2], [&texts[7..12], &texts[10..13]]);
    let replayed = |bench: &mut Bench, texts: &[&[TextFeatures]]| {
        let launches = bench.backend.launches();
        let logits = bench.score(&states, texts);
        assert_eq!(bench.backend.launches() - launches, 2, "encode and compare are replayed, a graph each");
        logits
    };
    // Eager, captured.
    for _ in 0..2 {
        bench.score(&states, &before);
    }
    let first = replayed(&mut bench, &before);
    let changed = replayed(&mut bench, &after);
    assert_eq!(changed.iter().map(Vec::len).collect::<Vec<_>>(), [5, 3]);
    assert!(!near(&changed[0][..3], &first[0][..3]), "{changed:?}");
    assert_eq!(replayed(&mut bench, &before), first, "bit by bit");
    bench.backend.set_graphs(false);
    assert_eq!(bench.score(&states, &after), changed);
}

#[test]
fn windows_without_labels_leave_nothing_pending() {
    const CHILD: &str = "XCLIP_TEST_PENDING";
    if std::env::var_os(CHILD).is_some() {
        let mut bench = open(1).unwrap();
        let states = bench.windows(1);
        assert_eq!(bench.score(&states, &[&[]]), [[0f32; 0]]);
        assert_eq!(pending(), 0);
        return;
    }
    // Streams of other tests have work of their own.
    let Some(child) = on_failing_device("windows_without_labels_leave_nothing_pending", &[(CHILD, "")])
    else {
        return;
    };
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

/// Whichever launch fails, be it between a fork of the lanes and their join.
#[test]
fn after_an_error_nothing_is_pending_and_the_next_batch_is_right() {
    const CHILD: &str = "XCLIP_TEST_FAILING";
    if std::env::var_os(CHILD).is_some() {
        let mut bench = open(3).unwrap();
        bench.backend.set_graphs(false);
        let texts = bench.texts.clone();
        let states = bench.windows(2);
        let expected = bench.score(&states, &[&texts, &texts]);
        for passing in 0.. {
            fail_launches(passing, 1);
            let frames = bench.frames(2 * bench.config.num_frames, 5);
            let prepared = bench.backend.prepare(&frames.iter().collect::<Vec<_>>());
            let scored = prepared.and_then(|states| {
                let clips: Vec<_> =
                    states.chunks(bench.config.num_frames).map(|clip| (clip, &texts[..])).collect();
                bench.backend.score(&clips)
            });
            match scored {
                Err(error) => assert!(error.to_string().contains("ran out of memory"), "{error}"),
                Ok(logits) => {
                    assert_eq!(logits, expected);
                    assert!(passing > 20, "{passing} launches in all");
                    break;
                }
            }
            assert_eq!(pending(), 0, "after the failure of launch {passing}");
            if passing % 10 == 0 {
                assert_eq!(bench.score(&states, &[&texts, &texts]), expected, "after launch {passing}");
            }
        }
        return;
    }
    let test = "after_an_error_nothing_is_pending_and_the_next_batch_is_right";
    let Some(child) = on_failing_device(test, &[(CHILD, "")]) else { return };
    let said = String::from_utf8_lossy(&child.stderr) + String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
}

/// The last owner may be any thread, with a context of its own.
#[test]
fn a_thread_that_drops_a_backend_has_the_context_it_had_before() {
    let Some(bench) = open(1) else { return };
    assert!(!current_context().is_null(), "the thread that opened it is its own");
    let other = move || {
        drop(bench);
        assert!(current_context().is_null());
    };
    std::thread::spawn(other).join().unwrap();
}

#[test]
fn windows_of_a_batch_do_not_see_each_other() {
    let Some(mut bench) = open(10) else { return };
    let (count, frames) = (19, bench.config.num_frames);
    let states = bench.windows(count);
    let texts = bench.texts.clone();
    // Each window has labels of its own: other ones, and another number of them.
    let of = |window: usize| &texts[window % 4..window % 4 + 1 + window % 6];
    let all: Vec<&[TextFeatures]> = (0..count).map(of).collect();
    let together = bench.score(&states, &all);
    for window in [0, 1, 7, 18] {
        let alone = bench.score(&states[window * frames..(window + 1) * frames], &[of(window)]);
        assert!(near(&together[window], &alone[0]), "{window}: {:?} {:?}", together[window], alone[0]);
    }
    assert!(!near(&together[0][..1], &together[4][..1]), "other frames, same label: {together:?}");
}

#[test]
fn a_batch_in_parts_of_any_size_is_one_launch_with_the_same_results() {
    let Some(mut whole) = open(6) else { return };
    let (count, texts) = (7, whole.texts.clone());
    assert!(whole.backend.micro() > count, "the small model's windows fit the cache together");
    let states = whole.windows(count);
    let expected = whole.score(&states, &vec![&texts[..]; count]);
    for micro in [1, 3] {
        let mut parts = open_on(Placement { ordinal: 0, micro: Some(micro) }, 6).unwrap();
        assert_eq!(parts.backend.micro(), micro);
        // Eager, captured, replayed.
        for round in 0..3 {
            let states = parts.windows(count);
            let before = parts.backend.launches();
            let found = parts.score(&states, &vec![&texts[..]; count]);
            assert!(found.iter().zip(&expected).all(|(a, b)| near(a, b)), "{micro}: {found:?} {expected:?}");
            let launches = parts.backend.launches() - before;
            assert!(round < 2 || launches == 2, "{micro}: {launches} launches to encode and compare");
        }
    }
}

#[test]
fn the_bench_times_batches_as_sequences_and_counts_their_launches() {
    let Some(_) = device() else { return };
    let dir = tempfile::tempdir().unwrap();
    generate(&root().join("tests/golden/small/config.json"), dir.path(), &mut |_, _| {}).unwrap();
    let options = bench::Options {
        source: bench::Source::Checkpoint(dir.path().to_str().unwrap().into()),
        heads: Heads::Hf,
        device: Device::Cuda(0),
        precisions: vec![Precision::Auto],
        threads: 1,
        windows: 3,
        rounds: 1,
        prompts: 4,
        micro: Some(2),
        json: true,
    };
    let mut out = Vec::new();
    bench::run(&options, &mut out).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let number = |path: &str| report.pointer(path).and_then(|v| v.as_f64()).unwrap_or(f64::NAN);
    assert_eq!(
        (number("/micro"), number("/launches_per_batch"), number("/launches_all_new")),
        (2.0, 3.0, 3.0)
    );
    assert_eq!(report["logits"].as_array().unwrap().len(), 4);
    for stage in [
        "prepare, 3 frames",
        "prepare, 12 frames",
        "encode",
        "compare",
        "windows, one frame of each new",
        "windows, all frames new",
    ] {
        let row = report["stages"].as_array().unwrap().iter().find(|row| row["stage"] == stage);
        let row = row.unwrap_or_else(|| panic!("no row `{stage}` in {report}"));
        let (median, of_product) = (&row["device_ms"]["median"], &row["of_product"]);
        assert!(median.as_f64().unwrap() > 0.0 && of_product.as_f64().unwrap() > 0.0, "{row}");
    }
    let on_cpu = bench::Options { device: Device::Cpu, ..options };
    let error = bench::run(&on_cpu, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("--micro") && error.contains("--device cuda:0"), "{error}");
}

/// Frames of one group of `prepare` (`Sizes`).
fn group(bench: &Bench) -> usize {
    4 * bench.backend.batch()
}

/// Groups of one call are laid out before the ones before them are read, each with other frames than the last time.
#[test]
fn groups_of_one_call_give_what_each_gives_alone() {
    let Some(mut bench) = open(1) else { return };
    let (group, clip) = (group(&bench), bench.config.num_frames);
    let reduce = bench.reduce_on_device();
    // Three groups of pixels, two of pictures on the device; of both kinds two run as the same size.
    let (pixels, rows) = (2 * group + group / 8, group + group / 2 + clip);
    let arrived = |bench: &Bench, seed| {
        let mut frames = bench.frames(pixels + rows, seed);
        frames[pixels..].iter_mut().for_each(|frame| *frame = reduce(frame));
        frames
    };
    let features = |bench: &mut Bench, states: Vec<Prepared>| {
        // Some of each group.
        let clips: Vec<&[Prepared]> = states.chunks(clip).step_by(5).collect();
        let features = bench.backend.encode(&clips).unwrap().into_iter();
        features.map(|clip| (clip.video, clip.patches)).collect::<Vec<_>>()
    };
    // Eager; then as graphs, and one that reads the other set's place finds other frames.
    let others = arrived(&bench, 1);
    bench.prepare(&others);
    let frames = arrived(&bench, 2);
    let states = bench.prepare(&frames);
    let together = features(&mut bench, states);
    bench.backend.set_graphs(false);
    let frames = arrived(&bench, 2);
    let groups = frames[..pixels].chunks(group).chain(frames[pixels..].chunks(group));
    let states = groups.flat_map(|group| bench.prepare(group)).collect();
    assert!(together == features(&mut bench, states), "not bit by bit");
}

#[test]
fn a_group_is_laid_out_while_the_device_has_still_to_read_the_one_before() {
    const CHILD: &str = "XCLIP_TEST_GROUPS";
    if std::env::var_os(CHILD).is_some() {
        let mut bench = open(1).unwrap();
        let group = group(&bench);
        let reduce = bench.reduce_on_device();
        let count = |what| runs(what).unwrap();
        let (pixels, states) = (bench.frames(2 * group, 1), bench.windows(1));
        for _ in 0..3 {
            bench.score(&states, &[&[]]);
            assert_eq!(pending(), 0);
            let before = count("patch_rows");
            let _first = bench.prepare(&pixels);
            assert_eq!(count("patch_rows"), before, "two groups wait for nothing");
            let _third = bench.prepare(&pixels[..1]);
            assert!(count("patch_rows") > before, "the third takes the first one's place");
        }
        let rows: Vec<Reduced> = pixels[..group + 1].iter().map(reduce).collect();
        let before = (count("cuEventRecord"), count("cuStreamWaitEvent"));
        let _states = bench.prepare(&rows);
        let after = (count("cuEventRecord"), count("cuStreamWaitEvent"));
        assert_eq!((after.0 - before.0, after.1 - before.1), (2, 2), "one of each for a group of pictures");
        return;
    }
    let test = "a_group_is_laid_out_while_the_device_has_still_to_read_the_one_before";
    // Other tests run kernels too.
    let Some(child) = on_failing_device(test, &[(CHILD, "")]) else { return };
    let said = String::from_utf8_lossy(&child.stderr) + String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
}

/// Slots and page-locked memory come back while the device has still to read them.
#[test]
fn pictures_that_come_later_do_not_touch_those_of_a_window_in_work() {
    let Some(mut bench) = open(3) else { return };
    let texts = bench.texts.clone();
    let reduce = bench.reduce_on_device();
    let others = bench.frames(7, 6);
    let mut window = |later: usize| {
        let frames: Vec<Reduced> = bench.frames(bench.config.num_frames, 5).iter().map(&reduce).collect();
        let states = bench.prepare(&frames);
        drop(frames);
        others.iter().cycle().take(later).for_each(|other| drop(reduce(other)));
        bench.score(&states, &[&texts])
    };
    let alone = window(0);
    // More than there are slots, so that the window's are taken again.
    assert_eq!(window(600), alone);
}

#[test]
fn stored_features_give_what_features_on_the_device_give() {
    let Some(mut bench) = open(7) else { return };
    let (count, frames) = (3, bench.config.num_frames);
    let states = bench.windows(count);
    let texts = bench.texts.clone();
    let clips: Vec<&[Prepared]> = states.chunks(frames).collect();
    let features = bench.backend.encode(&clips).unwrap();
    let direct = bench.score(&states, &vec![&texts[..]; count]);
    // Others pass in between.
    bench.windows(5);
    let stored = bench.backend.compare(&features.iter().collect::<Vec<&ClipFeatures>>(), &texts).unwrap();
    assert_eq!(stored, direct);
}

#[test]
fn labels_beyond_one_launch_and_beyond_the_table_come_in_their_order() {
    let Some(mut bench) = open(600) else { return };
    let states = bench.windows(2);
    let texts = bench.texts.clone();
    let all = bench.score(&states, &[&texts, &texts[595..]]);
    assert_eq!((all[0].len(), all[1].len()), (600, 5));
    for first in [0, 508, 595] {
        let few = bench.score(&states, &[&texts[first..first + 5], &texts[..1]]);
        assert!(near(&all[0][first..first + 5], &few[0]), "from {first}");
    }
    // New vectors of the same values: the table moves to a larger place.
    let copies: Vec<TextFeatures> = texts.iter().map(|t| TextFeatures(t.0.to_vec().into())).collect();
    assert_eq!(bench.score(&states, &[&copies, &copies[595..]]), all);
    assert_eq!(bench.score(&states, &[&texts, &texts[595..]]), all);
}

#[test]
fn a_full_ring_holds_states_on_the_host_with_the_same_results() {
    let Some(mut bench) = open(3) else { return };
    let texts = bench.texts.clone();
    let frames = bench.config.num_frames;
    let first = bench.windows(1);
    let expected = bench.score(&first, &[&texts]);
    // More frames than slots, all kept.
    let mut kept = Vec::new();
    for _ in 0..9 {
        kept.extend(bench.windows(32));
    }
    let beyond = bench.windows(1);
    assert_eq!(bench.score(&beyond, &[&texts]), expected);
    // Windows of both kinds in one batch.
    let mixed: Vec<Prepared> =
        kept[kept.len() - frames..].iter().chain(&beyond).chain(&kept[..frames]).cloned().collect();
    let of_kept = bench.score(&kept[..frames], &[&texts]);
    let scores = bench.score(&mixed, &[&texts[..], &texts, &texts]);
    assert!(near(&scores[1], &expected[0]) && near(&scores[2], &of_kept[0]), "{scores:?}");
    // Slots come back when frames are forgotten.
    drop((kept, mixed, beyond));
    let again = bench.windows(1);
    assert_eq!(bench.score(&again, &[&texts]), expected);
}

#[test]
fn what_does_not_fit_is_refused_with_what_was_expected() {
    let Some(mut bench) = open(2) else { return };
    let Some(mut other) = open(2) else { return };
    let (states, foreign) = (bench.windows(1), other.windows(1));
    let texts = bench.texts.clone();
    let mut refused = |clip: &[Prepared], texts: &[TextFeatures]| match bench.backend.score(&[(clip, texts)])
    {
        Err(error @ BackendError::Shape { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&foreign, &texts).contains("another backend's"));
    assert!(refused(&states[1..], &texts).contains("window: expected"));
    let short = TextFeatures(vec![1.0; 3].into());
    assert!(refused(&states, &[short]).contains("text features: expected"));
    let frame = Reduced::new(8, vec![0; 8 * 8 * 3]);
    let error = bench.backend.prepare(&[&frame]).unwrap_err().to_string();
    assert!(error.contains("frame: expected"), "{error}");
}
