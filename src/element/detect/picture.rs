//! GStreamer's description of a video frame → [`Image`].

use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use crate::image::{Image, ImageError, ImageInfo, Matrix, PixelFormat, Plane, Range};

/// Every format the element reads, in order of preference.
pub const FORMATS: [(gst_video::VideoFormat, PixelFormat); 13] = [
    (gst_video::VideoFormat::Nv12, PixelFormat::Nv12),
    (gst_video::VideoFormat::I420, PixelFormat::I420),
    (gst_video::VideoFormat::Y42b, PixelFormat::Y42b),
    (gst_video::VideoFormat::Yuy2, PixelFormat::Yuy2),
    (gst_video::VideoFormat::Rgb, PixelFormat::Rgb),
    (gst_video::VideoFormat::Bgr, PixelFormat::Bgr),
    (gst_video::VideoFormat::Rgba, PixelFormat::Rgba),
    (gst_video::VideoFormat::Bgra, PixelFormat::Bgra),
    (gst_video::VideoFormat::Rgbx, PixelFormat::Rgbx),
    (gst_video::VideoFormat::Bgrx, PixelFormat::Bgrx),
    (gst_video::VideoFormat::Gray8, PixelFormat::Gray8),
    (gst_video::VideoFormat::I42010le, PixelFormat::I420Le10),
    (gst_video::VideoFormat::P01010le, PixelFormat::P010Le10),
];

/// `None` for a format the pad template does not list.
pub fn image_info(info: &gst_video::VideoInfo) -> Option<ImageInfo> {
    let format = FORMATS.iter().find(|(theirs, _)| *theirs == info.format())?.1;
    let colorimetry = info.colorimetry();
    let matrix = match colorimetry.matrix() {
        gst_video::VideoColorMatrix::Bt709 => Matrix::Bt709,
        gst_video::VideoColorMatrix::Bt2020 => Matrix::Bt2020,
        // FCC and SMPTE 240M are within a code or two of it; RGB and grey ignore it.
        _ => Matrix::Bt601,
    };
    let range = match colorimetry.range() {
        gst_video::VideoColorRange::Range0_255 => Range::Full,
        _ => Range::Limited,
    };
    Some(ImageInfo { format, width: info.width(), height: info.height(), matrix, range })
}

/// Why a buffer could not be read as the picture its caps promise.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("the buffer ({size} bytes) cannot be mapped as {format} {width}×{height}")]
    Map { size: usize, format: &'static str, width: u32, height: u32 },
    #[error("plane {plane} has the negative stride {stride}; put videoconvert before the element")]
    NegativeStride { plane: usize, stride: i32 },
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Calls `read` with the buffer's picture; strides and offsets come from its video meta if it has one.
/// Only mapped, never copied.
pub fn with_image<R>(
    buffer: &gst::BufferRef,
    info: &gst_video::VideoInfo,
    image_info: ImageInfo,
    read: impl FnOnce(&Image<'_>) -> R,
) -> Result<R, PictureError> {
    let unmapped = || PictureError::Map {
        size: buffer.size(),
        format: info.format().to_str().as_str(),
        width: info.width(),
        height: info.height(),
    };
    let mut planes = [Plane { data: &[], stride: 0 }; 3];
    let count = (info.n_planes() as usize).min(planes.len());
    if buffer.n_memory() == 1 {
        let map = buffer.map_readable().map_err(|_| unmapped())?;
        let meta = buffer.meta::<gst_video::VideoMeta>();
        let (offsets, strides) = match &meta {
            Some(meta) => (meta.offset(), meta.stride()),
            None => (info.offset(), info.stride()),
        };
        for (index, plane) in planes.iter_mut().enumerate().take(count) {
            let (Some(offset), Some(stride)) = (offsets.get(index), strides.get(index)) else {
                return Err(unmapped());
            };
            // Past the end: no data, and Image::new says how much is missing.
            let data = map.get(*offset..).unwrap_or_default();
            *plane = Plane { data, stride: unsigned(index, *stride)? };
        }
        Ok(read(&Image::new(image_info, &planes[..count])?))
    } else {
        // Planes in memories of their own: mapping the whole buffer would merge, so copy, them.
        let frame =
            gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).map_err(|_| unmapped())?;
        for (index, plane) in planes.iter_mut().enumerate().take(count) {
            let stride = frame.plane_stride().get(index).copied().unwrap_or(0);
            let stride = unsigned(index, stride)?;
            *plane = Plane { data: frame.plane_data(index as u32).map_err(|_| unmapped())?, stride };
        }
        Ok(read(&Image::new(image_info, &planes[..count])?))
    }
}

fn unsigned(plane: usize, stride: i32) -> Result<usize, PictureError> {
    usize::try_from(stride).map_err(|_| PictureError::NegativeStride { plane, stride })
}
