"""Sends clips through a real H.264 encoder and decoder, as every camera does before the plugin sees a picture."""

import fractions

import av
import numpy as np


def recode(frames, choice):
    """uint8 frames (T, H, W, 3) -> the same after x264. Half of the clips are encoded at twice their size, as parts
    of larger pictures are; the quantiser is drawn from the range that cameras use at low bitrates."""
    count, height, width = frames.shape[:3]
    scale = choice.choice((1, 2))
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width * scale, height * scale, "yuv420p"
    encoder.time_base = fractions.Fraction(1, 4)
    encoder.thread_count = 1
    quantiser = choice.randint(22, 34 if scale == 1 else 40)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "qp": str(quantiser)}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.flags |= av.codec.context.Flags.low_delay
    out = []
    for number in range(count + 1):
        if number < count:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[number]), format="rgb24")
            frame = frame.reformat(width * scale, height * scale, "yuv420p", interpolation="BILINEAR")
            frame.pts = number
            packets = encoder.encode(frame)
        else:
            packets = encoder.encode(None)
        for packet in packets:
            out += decoder.decode(packet)
    out += decoder.decode(None)
    if len(out) != count:
        raise RuntimeError(f"{count} pictures went into the encoder, {len(out)} came out of the decoder")
    return np.stack([f.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray() for f in out])
