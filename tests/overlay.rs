//! What xclipoverlay promises, on real buffers of every raw format.

use std::time::Duration;

use gst::prelude::*;
use gst_check::Harness;
use gst_video::prelude::*;
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

/// All pixels with 8 or 16 bits per component, exactly as the format holds them.
fn pixels(buffer: &gst::Buffer, info: &VideoInfo) -> Vec<Vec<u64>> {
    let frame = VideoFrame::from_buffer_readable(buffer.clone(), info).unwrap();
    let format = info.format_info();
    let unpacked = gst_video::VideoFormatInfo::from_format(format.unpack_format());
    let size = unpacked.pixel_stride()[0] as usize;
    let planes: Vec<&[u8]> = (0..frame.n_planes()).map(|plane| frame.plane_data(plane).unwrap()).collect();
    (0..info.height() as i32)
        .map(|y| {
            let mut line = vec![0; size * info.width() as usize];
            let flags = gst_video::VideoPackFlags::empty();
            let width = info.width() as i32;
            format.unpack(flags, &mut line, &planes, frame.plane_stride(), 0, y, width);
            let number = |pixel: &[u8]| pixel.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            line.chunks_exact(size).map(number).collect()
        })
        .collect()
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
    let events = vec![open_event("1", "climbing a fence", 0.91, 1), open_event("2", "two people fighting", 0.58, 3)];
    Marks { windows: Vec::new(), events }
}

fn with_scores(mut marks: Marks) -> Marks {
    let top = [("climbing a fence", 0.91), ("two people fighting", 0.58), ("jumping", 0.22), ("waving", 0.04)];
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

use gst::glib;

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

#[test]
fn panel_changes_and_the_rest_is_bit_identical() {
    use VideoFormat::*;
    for (width, height) in [(320, 240), (640, 480), (1920, 1080), (3840, 2160)] {
        let [l, t, r, d] = drawn(Rgba, width, height);
        assert!(l > 0 && t > 0, "a margin");
        let (across, down) = ((r - l) as u32, (d - t) as u32);
        assert!(across * 3 > width && across * 10 < width * 9 && down * 3 < height, "{across}×{down} of {width}×{height}");
        // All changed pixels lie in the same rectangle in every format: the others are as they were.
        for format in [I420, Nv12, Gray8, Yuy2, P01010le] {
            let [left, top, right, bottom] = drawn(format, width, height);
            let aligned = [l / 8 * 8, t / 4 * 4, (r + 1).next_multiple_of(8), (d + 1).next_multiple_of(4)];
            assert!(
                aligned[0] <= left && aligned[1] <= top && right < aligned[2] && bottom < aligned[3],
                "{format:?} {width}×{height}: {:?} not in {aligned:?}",
                [left, top, right, bottom]
            );
        }
    }
}

#[test]
fn every_raw_format_is_drawn_on_and_changes_only_there() {
    init();
    let template = gst::ElementFactory::find("xclipoverlay").unwrap().static_pad_templates();
    let caps = template[0].caps();
    let list = caps.structure(0).unwrap().get::<gst::List>("format").unwrap();
    let formats: Vec<VideoFormat> =
        list.iter().map(|format| VideoFormat::from_string(format.get::<&str>().unwrap())).collect();
    assert!(formats.len() > 100);
    let [l, t, r, d] = drawn(VideoFormat::Rgba, 325, 243);
    let aligned = [l / 8 * 8, t / 4 * 4, (r + 1).next_multiple_of(8), (d + 1).next_multiple_of(4)];
    for format in formats {
        let [left, top, right, bottom] = drawn(format, 325, 243);
        assert!(
            aligned[0] <= left && aligned[1] <= top && right < aligned[2] && bottom < aligned[3],
            "{format:?}: {:?} not in {aligned:?}",
            [left, top, right, bottom]
        );
    }
}
