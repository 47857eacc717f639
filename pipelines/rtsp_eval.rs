//! Two streams of `xclipd eval --streams` over real RTSP, in real time, beside the same streams file-fed.
//!
//! `cargo run --release --example rtsp_eval -- [MODEL] [SECONDS]`. Both cameras run at once; pictures never
//! wait for the model. Delays over RTSP are up to the moment at which the message is on the bus.

#[path = "rtsp_scene.rs"]
mod rtsp_scene;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use gst::prelude::*;
use gstreamer as gst;
use gstxclip::command::eval::streams::print;
use gstxclip::command::eval::streams::stream::{Camera, KINDS, Stream, WHOLE};
use gstxclip::command::figures::Figures;
use gstxclip::command::recorder::make;
use gstxclip::command::told::Told;
use gstxclip::element::meta;

/// A server and who watches it.
struct Watched {
    server: rtsp_scene::Camera,
    pipeline: gst::Pipeline,
    told: Arc<Mutex<Told>>,
}

impl Watched {
    fn new(stream: &Stream, camera: &Camera, model: &str) -> Result<Self, Box<dyn Error>> {
        let encoder = format!(
            "x264enc tune=zerolatency speed-preset=veryfast bitrate={} key-int-max=50",
            camera.bitrate
        );
        let [width, height] = camera.picture.map(i32::unsigned_abs);
        let rate = camera.frames_per_second.unsigned_abs();
        let server = rtsp_scene::Camera::with_encoder(&stream.text, [width, height], rate, false, &encoder)?;
        let line = format!(
            "rtspsrc location={} latency=200 add-reference-timestamp-meta=true ! rtph264depay ! avdec_h264 \
             ! xclipdetect name=detect ! fakesink sync=false",
            server.address
        );
        let pipeline = gst::parse::launch_full(&line, None, gst::ParseFlags::FATAL_ERRORS)?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "the line is no pipeline")?;
        let detect = pipeline.by_name("detect").ok_or("the line names the detector")?;
        detect.set_property("model", model);
        detect.set_property("labels", stream.labels.join("\n"));
        let told = Arc::new(Mutex::new(Told::default()));
        let heard = Arc::clone(&told);
        pipeline.bus().ok_or("a pipeline has a bus")?.set_sync_handler(move |_, message| {
            let structure = message.structure().filter(|structure| structure.name() == meta::EVENT);
            if let Some(record) = structure.and_then(|structure| meta::event(structure).ok()) {
                let mut told = heard.lock().unwrap_or_else(PoisonError::into_inner);
                told.0.push((record, SystemTime::now()));
            }
            gst::BusSyncReply::Pass
        });
        Ok(Self { server, pipeline, told })
    }

    /// Waits for the end; what was told, and what the element counted.
    fn finish(self, stream: &Stream, truth_seconds: f64) -> Result<(Figures, String), Box<dyn Error>> {
        let bus = self.pipeline.bus().ok_or("a pipeline has a bus")?;
        let patience = gst::ClockTime::from_seconds_f64(truth_seconds + 30.0);
        let end = bus.timed_pop_filtered(patience, &[gst::MessageType::Eos, gst::MessageType::Error]);
        let detect = self.pipeline.by_name("detect").ok_or("the line names the detector")?;
        let stats = detect.property::<gst::Structure>("stats");
        self.pipeline.set_state(gst::State::Null)?;
        match end.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Eos(_)) => {}
            Some(gst::MessageView::Error(error)) => return Err(error.error().message().into()),
            _ => return Err(format!("{}: no end within {patience}", stream.name).into()),
        }
        let begun = self.server.begun().ok_or("the camera has shown a picture")?;
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = Figures::of(&stream.truth(true), &told.reported(begun), truth_seconds);
        Ok((figures, stats.to_string()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or("demo".into());
    let seconds: f64 = arguments.next().map_or(Ok(120.0), |text| text.parse())?;
    gst::init()?;
    gstxclip::element::register_static()?;
    let camera = Camera::default();
    let streams = [0, WHOLE].map(|kind| (kind, Stream::new(kind, 0, seconds)));

    let mut rows = Vec::new();
    for (kind, stream) in &streams {
        let labels = stream.labels.join("\n");
        let detect = make("xclipdetect", &[("model", &model), ("labels", &labels)])?;
        let recording = stream.play(&camera, &detect, &stream.labels)?;
        let figures = Figures::of(&stream.truth(true), &recording.events, stream.seconds());
        rows.push((format!("{}: file-fed", KINDS[*kind].name), figures));
    }
    let watched: Result<Vec<Watched>, _> =
        streams.iter().map(|(_, stream)| Watched::new(stream, &camera, &model)).collect();
    let watched = watched?;
    for camera in &watched {
        camera.pipeline.set_state(gst::State::Playing)?;
    }
    let mut counted = Vec::new();
    for ((kind, stream), camera) in streams.iter().zip(watched) {
        let (figures, stats) = camera.finish(stream, stream.seconds())?;
        rows.push((format!("{}: RTSP", KINDS[*kind].name), figures));
        counted.push(stats);
    }
    // Each stream's two ways below each other: the sort keeps their order.
    rows.sort_by_key(|(name, _)| streams.iter().position(|(kind, _)| name.starts_with(KINDS[*kind].name)));
    print(rows.iter().map(|(name, figures)| (name.as_str(), figures)))?;
    for ((_, stream), stats) in streams.iter().zip(counted) {
        println!("{}: {stats}", stream.name);
    }
    Ok(())
}
