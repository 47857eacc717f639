//! xclipd's subcommands: one module each, called by main.rs.
pub mod verify;
pub mod bench;
