//! The containerd implementation against a real containerd.
//!
//! Needs root, and a containerd whose socket is in `MINIK8S_TEST_CONTAINERD` (and of which nobody else makes serious
//! use); without that variable every test here passes without doing anything. Also needs a statically linked busybox in
//! `/bin/busybox`.

mod daemon;
mod image;
mod lifecycle;
mod node;
mod pull;
mod streams;
