//! A picture of the script in the negotiated format.

use std::time::Duration;

use gst::glib;
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};
use gstreamer as gst;
use gstreamer_video as gst_video;

use crate::scene::{Script, Stage};

/// What can be negotiated, best first. The scene is drawn in RGBA; the rest costs a conversion, but saves
/// a videoconvert before common encoders.
pub const FORMATS: [VideoFormat; 9] = [
    VideoFormat::Rgba,
    VideoFormat::Rgbx,
    VideoFormat::Bgra,
    VideoFormat::Bgrx,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Gray8,
];

/// Draws one script at one size and format.
pub struct Painter {
    stage: Stage,
    info: VideoInfo,
    /// The picture as drawn, where it cannot be drawn in place.
    rgba: gst::Buffer,
    rgba_info: VideoInfo,
    /// None: the format is RGBA or RGBx.
    converter: Option<gst_video::VideoConverter>,
}

impl Painter {
    pub fn new(script: &Script, info: &VideoInfo) -> Result<Self, glib::BoolError> {
        let (width, height) = (info.width(), info.height());
        let rgba_info = VideoInfo::builder(VideoFormat::Rgba, width, height).fps(info.fps()).build()?;
        let converter = match info.format() {
            VideoFormat::Rgba | VideoFormat::Rgbx => None,
            _ => Some(gst_video::VideoConverter::new(&rgba_info, info, None)?),
        };
        let rgba = gst::Buffer::with_size(rgba_info.size())?;
        Ok(Self { stage: Stage::new(script, width, height), info: info.clone(), rgba, rgba_info, converter })
    }

    /// Draws the picture at stream time `time` into `buffer`, whatever its strides.
    pub fn paint(&mut self, time: Duration, buffer: &mut gst::BufferRef) -> Result<(), glib::BoolError> {
        let mut frame = VideoFrameRef::from_buffer_ref_writable(buffer, &self.info)?;
        let stride = frame.plane_stride()[0] as usize;
        let (row, size) = (4 * self.info.width() as usize, self.rgba_info.size());
        if self.converter.is_none() && stride == row {
            self.stage.draw(time, &mut frame.plane_data_mut(0)?[..size]);
            return Ok(());
        }
        {
            let mut map = self.rgba.make_mut().map_writable()?;
            self.stage.draw(time, &mut map[..size]);
        }
        if let Some(converter) = &self.converter {
            converter.frame_ref(
                &VideoFrameRef::from_buffer_ref_readable(&self.rgba, &self.rgba_info)?,
                &mut frame,
            );
        } else {
            let map = self.rgba.map_readable()?;
            for (to, from) in frame.plane_data_mut(0)?.chunks_mut(stride).zip(map.chunks_exact(row)) {
                to[..row].copy_from_slice(from);
            }
        }
        Ok(())
    }
}
