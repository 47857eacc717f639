//! A camera for demos and tests: plays a script as H.264 over RTSP on loopback, then ends.
//!
//! `cargo run --example rtsp_scene -- SCRIPT.yaml TRUTH.ndjson` prints the address, waits for one viewer
//! and writes what is true, with the wall-clock time at which the stream began.

use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use gst::glib;
use gst::prelude::*;
use gst_rtsp_server::prelude::*;
use gstreamer as gst;
use gstreamer_rtsp_server as gst_rtsp_server;

/// A running RTSP server; ends when dropped.
pub struct Camera {
    pub address: String,
    begun: Arc<OnceLock<SystemTime>>,
    main_loop: glib::MainLoop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Camera {
    /// Serves the script to whoever comes, from its beginning for the first viewer; with a tone if `audio`.
    pub fn start(
        script: &str,
        [width, height]: [u32; 2],
        rate: u32,
        audio: bool,
    ) -> Result<Camera, Box<dyn std::error::Error>> {
        let encoder = format!(
            "x264enc tune=zerolatency speed-preset=ultrafast quantizer=20 pass=qual key-int-max={rate}"
        );
        Self::with_encoder(script, [width, height], rate, audio, &encoder)
    }

    /// As `start`, with an H.264 encoder as gst-launch writes it.
    pub fn with_encoder(
        script: &str,
        [width, height]: [u32; 2],
        rate: u32,
        audio: bool,
        encoder: &str,
    ) -> Result<Camera, Box<dyn std::error::Error>> {
        gst::init()?;
        gstxclip::element::register_static()?;
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let begun = Arc::new(OnceLock::new());

        let factory = gst_rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(&format!(
            "( xclipscenesrc name=scene is-live=true \
             ! video/x-raw,format=I420,width={width},height={height},framerate={rate}/1 \
             ! queue ! {encoder} ! rtph264pay name=pay0 pt=96 {} )",
            if audio { "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1 pt=8" } else { "" }
        ));
        factory.set_shared(true);
        let (text, first) = (script.to_string(), Arc::clone(&begun));
        factory.connect_media_configure(move |_, media| {
            let scene = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name("scene"));
            let Some(scene) = scene else { return };
            scene.set_property("script", &text);
            let pad = scene.static_pad("src").expect("a source has a source pad");
            let first = Arc::clone(&first);
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                // A live picture is pushed at the time it shows.
                let shown = info.buffer().and_then(|buffer| buffer.pts()).map(Duration::from);
                first.get_or_init(|| SystemTime::now() - shown.unwrap_or_default());
                gst::PadProbeReturn::Remove
            });
        });

        let server = gst_rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service("0"); // any free port
        server.mount_points().ok_or("the server has no mount points")?.add_factory("/scene", factory);
        let source = server.attach(Some(&context))?;
        let address = format!("rtsp://127.0.0.1:{}/scene", server.bound_port());
        let running = main_loop.clone();
        let thread = std::thread::spawn(move || {
            let _served = context.with_thread_default(|| running.run());
            // The context is not the default one, where `SourceId::remove` would look.
            if let Some(source) = context.find_source_by_id(&source) {
                source.destroy();
            }
            drop(server);
        });
        Ok(Camera { address, begun, main_loop, thread: Some(thread) })
    }

    /// When the script's time 0 was, once somebody has watched.
    pub fn begun(&self) -> Option<SystemTime> {
        self.begun.get().copied()
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[allow(dead_code)] // others include this file for `Camera`
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [script, truth] = arguments.as_slice() else {
        return Err("expected two arguments: SCRIPT.yaml TRUTH.ndjson".into());
    };
    let text = std::fs::read_to_string(script).map_err(|error| format!("{script}: {error}"))?;
    let scene = gstxclip::scene::Script::parse(&text)?;
    let camera = Camera::start(&text, [640, 360], 25, false)?;
    println!("{}", camera.address);
    std::io::stdout().flush()?;

    let begun = loop {
        match camera.begun() {
            Some(begun) => break begun,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let utc = jiff::Timestamp::try_from(begun)?.to_string();
    let mut file = std::fs::File::create(truth)?;
    for t in scene.truth() {
        let line = serde_json::json!({"label": t.label, "start": t.start, "end": t.end, "utc": utc});
        writeln!(file, "{line}")?;
    }
    // The viewer needs a moment after the last picture to hear that it was the last.
    std::thread::sleep((begun + scene.duration + Duration::from_secs(10)).duration_since(SystemTime::now())?);
    Ok(())
}
