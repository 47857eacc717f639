//! Each kernel of kernels/ computes what its header says, on shapes that no tile or vector divides: against
//! the operation's formula in f64, on a GPU or on the emulated device (cuda_device).
#![cfg(all(feature = "cuda", unix))]

mod attention;
#[path = "../cuda_device/mod.rs"]
mod cuda_device;
mod lab;
mod pictures;
mod prompts;
mod rows;

use std::process::Command;

use cuda_device::device;

/// The emulated device runs blocks, warps and lanes in one order, a GPU in any: all of this again in the
/// reverse one.
#[test]
fn no_kernel_depends_on_the_order_of_its_threads() {
    const ORDER: &str = "XCLIP_EMULATED_ORDER";
    let Some(gpu) = device() else { return };
    if !gpu.is_emulated() || std::env::var_os(ORDER).is_some() {
        return;
    }
    let again = Command::new(std::env::current_exe().unwrap()).env(ORDER, "reverse").output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
}

/// The emulated device is what other tests rest on: it must notice what a GPU would do wrong silently.
#[test]
fn the_emulated_device_notices_a_write_past_the_end() {
    let Some(lab) = lab::Lab::open() else { return };
    if !device().is_some_and(|gpu| gpu.is_emulated()) {
        return;
    }
    let (x, rows, out) = (lab.put(&[0u16; 16]), lab.put(&[0i32]), lab.room::<u16>(15));
    // Sixteen values where there is room for fifteen. In another process: the context is lost.
    const CHILD: &str = "XCLIP_TEST_PAST_THE_END";
    if std::env::var_os(CHILD).is_some() {
        lab.per_thread("gather_rows", 2, arguments![&x, &rows, &out, 1, 16]);
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_emulated_device_notices_a_write_past_the_end"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr) + String::from_utf8_lossy(&child.stdout);
    assert!(!child.status.success(), "{said}");
    assert!(said.contains("CUDA error 700"), "{said}");
}
