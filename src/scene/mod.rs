//! The drawn world: people of simple shapes who do twenty things in front of drawn backgrounds.
//!
//! Training data, tests and demonstrations come from here: clips ([`clip()`]) and scripted streams ([`Script`],
//! [`Stage`]) with exact ground truth. Pure: no clock, no files. The same seed gives the same pixels on every
//! machine: random numbers are our own, sine and cosine come from libm, and the rasteriser runs without SIMD.
//!
//! The bundled model has seen exactly these drawings: whoever changes how something looks must train it again.

mod action;
mod background;
mod canvas;
mod caption;
mod clip;
mod figure;
mod improvise;
mod lens;
mod motion;
mod pose;
mod random;
mod raw;
mod render;
mod script;
mod shot;

pub use action::Action;
pub use background::Look;
pub use caption::{
    Claim, Colour, Direction, GENERIC, MOVEMENTS, Movement, caption, has_direction, held_out, sentence,
};
pub use clip::{Clip, ClipOptions, Company, Pairs, clip};
pub use random::Random;
pub use raw::{RawOptions, write_clips, write_stream};
pub use render::Stage;
pub use script::{Script, ScriptError, Segment, Truth};
