//! What xclipoverlay promises, on real buffers of every raw format.
#![cfg(feature = "gst")]

use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoFrame, VideoFrameExt, VideoInfo};
use gstreamer as gst;
use gstreamer_check as gst_check;
use gstreamer_video as gst_video;
use gstxclip::detector::WindowScores;
use gstxclip::element::meta::{self, Marks, OpenEvent};
use gstxclip::event::Stamp;

fn init() {
    gst::init().unwrap();
    gstxclip::element::register_static().unwrap();
}

fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
    VideoInfo::builder(format, width, height).fps(gst::Fraction::new(25, 1)).build().unwrap()
}

/// A picture with texture everywhere, as the format can hold it.
fn picture(info: &VideoInfo) -> gst::Buffer {
    let rgba = self::info(VideoFormat::Rgba, info.width(), info.height());
    let mut samples = vec![0; rgba.size()];
    let mut noise = 1_u32;
    for (at, pixel) in samples.chunks_exact_mut(4).enumerate() {
        let (x, y) = (at as u32 % info.width(), at as u32 / info.width());
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = (noise >> 28) as u8;
        let slope = |a: u32, b: u32| 40 + (a * 160 / b) as u8 + grain;
        pixel.copy_from_slice(&[slope(x, info.width()), slope(y, info.height()), 90 + grain, 255]);
    }
    let from = VideoFrame::from_buffer_readable(gst::Buffer::from_slice(samples), &rgba).unwrap();
    let buffer = gst::Buffer::with_size(info.size()).unwrap();
    let mut to = VideoFrame::from_buffer_writable(buffer, info).unwrap();
    gst_video::VideoConverter::new(&rgba, info, None).unwrap().frame(&from, &mut to);
    let mut buffer = to.into_buffer();
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(gst::ClockTime::from_seconds(5));
        buffer.set_duration(gst::ClockTime::from_mseconds(40));
    }
    buffer
}

/// All pixels, unpacked to one number each without any resampling: exactly what the format holds.
fn pixels(buffer: &gst::Buffer, info: &VideoInfo) -> Vec<Vec<u64>> {
    let wide = if info.is_rgb() { VideoFormat::Argb64 } else { VideoFormat::Ayuv64 };
    let wide = VideoInfo::builder(wide, info.width(), info.height())
        .fps(info.fps())
        .colorimetry(&info.colorimetry())
        .build()
        .unwrap();
    let from = VideoFrame::from_buffer_readable(buffer.clone(), info).unwrap();
    let mut to =
        VideoFrame::from_buffer_writable(gst::Buffer::with_size(wide.size()).unwrap(), &wide).unwrap();
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_chroma_mode(gst_video::VideoChromaMode::None);
    config.set_matrix_mode(gst_video::VideoMatrixMode::None);
    config.set_dither_method(gst_video::VideoDitherMethod::None);
    gst_video::VideoConverter::new(info, &wide, Some(config)).unwrap().frame(&from, &mut to);
    let stride = to.plane_stride()[0] as usize;
    let lines = to.plane_data(0).unwrap().chunks(stride).take(info.height() as usize);
    let number = |pixel: &[u8]| u64::from_ne_bytes(pixel.try_into().unwrap());
    lines.map(|line| line[..8 * info.width() as usize].chunks_exact(8).map(number).collect()).collect()
}

fn at(seconds: u64) -> Stamp {
    let time = Duration::from_secs(seconds);
    Stamp { timestamp: time, stream_time: time, running_time: time, utc: None }
}

fn open_event(id: &str, label: &str, score: f32, start: u64) -> OpenEvent {
    OpenEvent {
        instance: "detect".into(),
        view: "frame".into(),
        id: id.into(),
        label: label.into(),
        severity: None,
        score,
        start: at(start),
    }
}

fn two_events() -> Marks {
    let events =
        vec![open_event("1", "climbing a fence", 0.91, 1), open_event("2", "two people fighting", 0.58, 3)];
    Marks { windows: Vec::new(), events }
}

fn with_scores(mut marks: Marks) -> Marks {
    let top =
        [("climbing a fence", 0.91), ("two people fighting", 0.58), ("jumping", 0.22), ("waving", 0.04)];
    let top = top.map(|(label, score)| (label.to_string(), score)).into();
    let window = WindowScores { view: "frame".into(), start: at(3), end: at(5), top, labels_generation: 1 };
    marks.windows.push(("detect".into(), window));
    marks
}

fn marked(mut buffer: gst::Buffer, marks: &Marks) -> gst::Buffer {
    meta::attach(buffer.make_mut(), marks);
    buffer
}

fn harness(info: &VideoInfo) -> Harness {
    init();
    let mut harness = Harness::new("xclipoverlay");
    let caps = info.to_caps().unwrap();
    harness.set_src_caps(caps);
    harness
}

fn set(harness: &Harness, name: &str, value: impl Into<glib::Value>) {
    harness.element().unwrap().set_property_from_value(name, &value.into());
}

/// Left, top, right, bottom of the pixels that differ.
fn changed(before: &[Vec<u64>], after: &[Vec<u64>]) -> Option<[usize; 4]> {
    let mut bounds: Option<[usize; 4]> = None;
    for (y, (a, b)) in before.iter().zip(after).enumerate() {
        for (x, _) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b) {
            let [l, t, r, d] = bounds.unwrap_or([x, y, x, y]);
            bounds = Some([l.min(x), t.min(y), r.max(x), d.max(y)]);
        }
    }
    bounds
}

/// Draws two events into a picture of this format and size; where it changed.
fn drawn(format: VideoFormat, width: u32, height: u32) -> [usize; 4] {
    init();
    let info = info(format, width, height);
    let before = picture(&info);
    let mut harness = harness(&info);
    let after = harness.push_and_pull(marked(before.copy_deep().unwrap(), &two_events())).unwrap();
    let (before, after) = (pixels(&before, &info), pixels(&after, &info));
    let bounds = changed(&before, &after).unwrap_or_else(|| panic!("{format:?}: nothing drawn"));
    let [l, t, r, d] = bounds;
    let inside: usize = (t..=d).map(|y| (l..=r).filter(|&x| before[y][x] != after[y][x]).count()).sum();
    // Nearly every pixel of the panel differs; where a label ends, the background is only darker.
    assert!(inside * 10 > (r - l) * (d - t) * 9, "{format:?} {width}×{height}: {inside} in {bounds:?}");
    bounds
}

/// Whether `area` lies in `panel` rounded out to whole chroma samples.
fn within(area: [usize; 4], panel: [usize; 4]) -> bool {
    let ([l, t, r, d], [left, top, right, bottom]) = (area, panel);
    l >= left / 8 * 8
        && t >= top / 4 * 4
        && r < (right + 1).next_multiple_of(8)
        && d < (bottom + 1).next_multiple_of(4)
}

#[test]
fn panel_changes_and_the_rest_is_bit_identical() {
    use VideoFormat::*;
    for (width, height) in [(320, 240), (640, 480), (1920, 1080), (3840, 2160)] {
        let panel = drawn(Rgba, width, height);
        let [l, t, r, d] = panel;
        assert!(l > 0 && t > 0, "a margin");
        let (across, down) = ((r - l) as u32, (d - t) as u32);
        let readable =
            across * 3 > width && across * 10 < width * 9 && down * 8 > height && down * 3 < height;
        assert!(readable, "{across}×{down} of {width}×{height}");
        for format in [I420, Nv12, Gray8, Yuy2, P01010le] {
            let area = drawn(format, width, height);
            assert!(within(area, panel), "{format:?} {width}×{height}: {area:?} not in {panel:?}");
        }
    }
}

#[test]
fn every_raw_format_is_drawn_on_and_changes_only_there() {
    init();
    let template = gst::ElementFactory::find("xclipoverlay").unwrap().static_pad_templates();
    let caps = template.iter().next().unwrap().caps();
    let list = caps.structure(0).unwrap().get::<gst::List>("format").unwrap();
    let formats: Vec<VideoFormat> =
        list.iter().map(|format| VideoFormat::from_string(format.get::<&str>().unwrap())).collect();
    assert!(formats.len() > 100);
    for width in [324, 325] {
        let panel = drawn(VideoFormat::Rgba, width, 243);
        for &format in &formats {
            // GStreamer 1.22 swaps U and V in the last column of NV61 pictures of odd width.
            if format != VideoFormat::Nv61 || width % 2 == 0 {
                let area = drawn(format, width, 243);
                assert!(within(area, panel), "{format:?} {width}×243: {area:?} not in {panel:?}");
            }
        }
    }
}

fn event(id: &str, phase: &str, score: f32) -> gst::Event {
    let start = serde_json::json!({"timestamp": 0, "stream-time": 0, "running-time": 2_000_000_000_u64});
    let fields = serde_json::json!({
        "source": {"instance": "detect", "stream": "s"}, "view": "frame",
        "id": id, "phase": phase, "label": "waving", "score": score, "start": start,
    });
    gst::event::CustomDownstream::builder(meta::structure(&fields).unwrap()).build()
}

/// Whether the picture comes out changed.
fn draws(harness: &mut Harness, info: &VideoInfo) -> bool {
    let before = picture(info);
    let after = harness.push_and_pull(before.copy_deep().unwrap()).unwrap();
    changed(&pixels(&before, info), &pixels(&after, info)).is_some()
}

#[test]
fn buffers_pass_untouched_while_nothing_is_open() {
    init();
    let info = info(VideoFormat::Nv12, 320, 240);
    let mut harness = harness(&info);
    let buffer = picture(&info);
    let address = buffer.as_ptr();
    // A second reference: drawing would have to copy.
    let kept = buffer.clone();
    let out = harness.push_and_pull(buffer).unwrap();
    assert!(std::ptr::eq(out.as_ptr(), address));
    drop(kept);
    // The same after an event has come and gone.
    harness.push_event(event("a", "start", 0.8));
    assert!(draws(&mut harness, &info));
    harness.push_event(event("a", "end", 0.2));
    let buffer = picture(&info);
    let address = buffer.as_ptr();
    assert!(std::ptr::eq(harness.push_and_pull(buffer).unwrap().as_ptr(), address));
}

#[test]
fn an_event_is_drawn_from_its_start_to_its_end_and_passed_on() {
    init();
    let info = info(VideoFormat::I420, 320, 240);
    let mut harness = harness(&info);
    assert!(!draws(&mut harness, &info));
    harness.push_event(event("a", "start", 0.7));
    assert!(draws(&mut harness, &info));
    harness.push_event(event("a", "update", 0.9));
    assert!(draws(&mut harness, &info));
    harness.push_event(event("a", "end", 0.2));
    assert!(!draws(&mut harness, &info));
    let passed = std::iter::from_fn(|| harness.try_pull_event());
    let ours = passed.filter(|event| event.structure().is_some_and(|s| s.name() == meta::EVENT));
    assert_eq!(ours.count(), 3);
}

#[test]
fn flush_eos_and_a_new_stream_close_what_is_open() {
    init();
    let info = info(VideoFormat::I420, 320, 240);
    let mut harness = harness(&info);
    let segment = gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new());
    let breaks: [&[gst::Event]; 3] = [
        &[gst::event::FlushStart::new(), gst::event::FlushStop::new(true), segment.clone()],
        &[gst::event::StreamStart::new("another"), segment.clone()],
        &[gst::event::Eos::new(), gst::event::StreamStart::new("third"), segment],
    ];
    for events in breaks {
        harness.push_event(event("a", "start", 0.7));
        assert!(draws(&mut harness, &info), "{events:?}");
        for event in events {
            assert!(harness.push_event(event.clone()));
        }
        assert!(!draws(&mut harness, &info), "{events:?}");
    }
}

#[test]
fn a_malformed_event_is_passed_on_and_draws_nothing() {
    init();
    let info = info(VideoFormat::I420, 320, 240);
    let mut harness = harness(&info);
    let structure = gst::Structure::builder(meta::EVENT).field("phase", 7_i32).build();
    assert!(harness.push_event(gst::event::CustomDownstream::new(structure)));
    assert!(!draws(&mut harness, &info));
}

#[test]
fn a_shared_picture_is_copied_not_drawn_on() {
    init();
    let info = info(VideoFormat::Rgba, 320, 240);
    let mut harness = harness(&info);
    let buffer = marked(picture(&info), &two_events());
    let (kept, before) = (buffer.clone(), pixels(&buffer, &info));
    let out = harness.push_and_pull(buffer).unwrap();
    assert!(changed(&before, &pixels(&out, &info)).is_some());
    assert!(changed(&before, &pixels(&kept, &info)).is_none());
    assert_eq!(meta::read(&out), two_events(), "and keeps its meta");
}

#[test]
fn scores_are_shown_only_on_request() {
    init();
    let info = info(VideoFormat::I420, 640, 480);
    let scores = with_scores(Marks::default());
    for wanted in [false, true] {
        let mut harness = harness(&info);
        set(&harness, "show-scores", wanted);
        let before = picture(&info);
        let after = harness.push_and_pull(marked(before.copy_deep().unwrap(), &scores)).unwrap();
        assert_eq!(changed(&pixels(&before, &info), &pixels(&after, &info)).is_some(), wanted);
    }
}

#[test]
fn position_and_size_change_while_playing() {
    init();
    let info = info(VideoFormat::Rgba, 640, 480);
    let mut harness = harness(&info);
    let mut area = |position: &str, font_size: u32| {
        harness.element().unwrap().set_property_from_str("position", position);
        harness.element().unwrap().set_property("font-size", font_size);
        let before = picture(&info);
        let after = harness.push_and_pull(marked(before.copy_deep().unwrap(), &two_events())).unwrap();
        changed(&pixels(&before, &info), &pixels(&after, &info)).unwrap()
    };
    let [l, t, r, d] = area("top-left", 20);
    assert!(l < 320 && t < 240 && r < 500 && d < 240);
    let [left, top, right, bottom] = area("bottom-right", 20);
    assert!(left > 140 && top > 240 && right > 600 && bottom > 440);
    assert!(right - left >= r - l - 8 && right - left <= r - l + 8);
    let large = area("top-left", 30);
    assert!(large[2] > r && large[3] > d);
}

#[test]
fn caps_change_in_the_middle_draws_at_the_new_size() {
    init();
    let small = info(VideoFormat::I420, 320, 240);
    let mut harness = harness(&small);
    harness.push_event(event("a", "start", 0.7));
    assert!(draws(&mut harness, &small));
    let large = info(VideoFormat::Nv12, 1280, 720);
    assert!(harness.push_event(gst::event::Caps::new(&large.to_caps().unwrap())));
    assert!(draws(&mut harness, &large));
}

#[test]
fn a_picture_too_small_for_text_passes() {
    init();
    for size in [1, 2, 9] {
        let info = info(VideoFormat::I420, size, size);
        let mut harness = harness(&info);
        let out = harness.push_and_pull(marked(picture(&info), &two_events())).unwrap();
        assert!(changed(&pixels(&picture(&info), &info), &pixels(&out, &info)).is_none());
    }
}

#[test]
fn a_buffer_that_is_no_picture_is_an_error_with_sizes() {
    init();
    let info = info(VideoFormat::I420, 320, 240);
    let mut harness = harness(&info);
    let bus = gst::Bus::new();
    harness.element().unwrap().set_bus(Some(&bus));
    let short = marked(gst::Buffer::with_size(100).unwrap(), &two_events());
    assert_eq!(harness.push(short), Err(gst::FlowError::Error));
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    let text = format!("{} {:?}", error.error(), error.debug());
    assert!(text.contains("100 bytes") && text.contains("115200"), "{text}");
}

#[test]
fn events_are_drawn_behind_converters_scalers_and_queues() {
    init();
    let run = |marks: &Marks| {
        let pipeline = gst::parse::launch(
            "appsrc name=in format=time ! videoconvert ! videoscale ! video/x-raw,format=RGBA,width=480,height=360 \
             ! queue ! xclipoverlay ! queue ! appsink name=out sync=false",
        );
        let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
        let info = info(VideoFormat::Nv12, 640, 480);
        let (source, sink) = (pipeline.by_name("in").unwrap(), pipeline.by_name("out").unwrap());
        source.set_property("caps", info.to_caps().unwrap());
        pipeline.set_state(gst::State::Playing).unwrap();
        let buffer = marked(picture(&info), marks);
        assert_eq!(source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]), gst::FlowReturn::Ok);
        assert_eq!(source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]), gst::FlowReturn::Ok);
        let sample = sink.emit_by_name::<Option<gst::Sample>>("pull-sample", &[]).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        sample.buffer_owned().unwrap()
    };
    let info = info(VideoFormat::Rgba, 480, 360);
    let (plain, drawn) = (run(&Marks::default()), run(&two_events()));
    let [l, t, r, d] = changed(&pixels(&plain, &info), &pixels(&drawn, &info)).unwrap();
    assert!(r - l > 150 && d - t > 40, "{:?}", [l, t, r, d]);
}

/// A harness whose sink composes overlays, or only says so in its caps.
fn composing(info: &VideoInfo, promises: bool) -> Harness {
    init();
    let mut harness = Harness::new("xclipoverlay");
    let mut caps = info.to_caps().unwrap();
    harness.set_src_caps(caps.clone());
    let features = gst::CapsFeatures::new([
        gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY,
        gst_video::CAPS_FEATURE_META_GST_VIDEO_OVERLAY_COMPOSITION,
    ]);
    let mut composed = caps.clone();
    composed.make_mut().set_features(0, Some(features));
    caps.make_mut().append(composed);
    harness.set_sink_caps(caps);
    if promises {
        use gst::meta::MetaAPI;
        harness.add_propose_allocation_meta(gst_video::VideoOverlayCompositionMeta::meta_api(), None);
    }
    harness
}

#[test]
fn a_sink_that_composes_gets_the_panel_attached() {
    init();
    let info = info(VideoFormat::I420, 640, 480);
    for promises in [true, false] {
        let mut harness = composing(&info, promises);
        let before = picture(&info);
        let after = harness.push_and_pull(marked(before.copy_deep().unwrap(), &two_events())).unwrap();
        let attached = after.meta::<gst_video::VideoOverlayCompositionMeta>();
        assert_eq!(attached.is_some(), promises);
        assert_eq!(changed(&pixels(&before, &info), &pixels(&after, &info)).is_some(), !promises);
        if let Some(meta) = attached {
            let (x, y, width, height) = meta.overlay().rectangle(0).unwrap().render_rectangle();
            assert!(x > 0 && y > 0 && width > 200 && height > 50);
        }
    }
}

#[test]
fn a_sink_that_takes_anything_gets_plain_caps() {
    init();
    let info = info(VideoFormat::I420, 320, 240);
    let mut harness = harness(&info);
    harness.push(picture(&info)).unwrap();
    assert_eq!(harness.sinkpad().unwrap().current_caps(), Some(info.to_caps().unwrap()));
}

#[test]
#[ignore = "writes pictures to look at"]
fn pictures_to_look_at() {
    init();
    for (width, height, position, scores) in [
        (320, 240, "top-left", true),
        (640, 480, "top-left", true),
        (640, 480, "bottom-right", false),
        (1920, 1080, "top-right", true),
        (3840, 2160, "bottom-left", true),
        (96, 96, "top-left", false),
    ] {
        let info = info(VideoFormat::I420, width, height);
        let mut harness = harness(&info);
        harness.element().unwrap().set_property_from_str("position", position);
        set(&harness, "show-scores", scores);
        let mut marks = with_scores(two_events());
        marks.events.push(open_event(
            "3",
            "Sturz: eine ältere Person fällt die sehr lange, steile Treppe hinunter 🤸",
            0.33,
            4,
        ));
        let buffer = harness.push_and_pull(marked(picture(&info), &marks)).unwrap();
        let sample = gst::Sample::builder().buffer(&buffer).caps(&info.to_caps().unwrap()).build();
        let caps = gst::Caps::new_empty_simple("image/png");
        let png = gst_video::convert_sample(&sample, &caps, gst::ClockTime::from_seconds(20).into()).unwrap();
        let path = format!("{}/overlay_{width}x{height}_{position}.png", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&path, png.buffer().unwrap().map_readable().unwrap()).unwrap();
        println!("{path}");
    }
}
