//! The CPU backend: the default that always works.
