//! Which frames are kept, and which T of them make a clip.
//!
//! Sampling goes by running time, never by frame count: cameras change their rate.
