//! NVIDIA cards that are in the machine, whether or not a driver serves them: they tell a machine that lacks its
//! driver, which its user wants to hear, from one that needs none.
//!
//! Source: sysfs of Linux (Documentation/ABI/testing/sysfs-bus-pci). Elsewhere no card is seen.

use std::path::Path;

pub(super) const SYSFS: &str = "/sys";
/// NVIDIA's number among the PCI vendors.
const VENDOR: &str = "0x10de";
/// Display controllers (VGA, 3D and others) by the first byte of their PCI class.
const DISPLAY: &str = "0x03";

/// PCI addresses of the display and 3D controllers by NVIDIA, in order; a card's sound and USB parts do not
/// count. `sysfs` is [`SYSFS`].
pub(super) fn cards(sysfs: &Path) -> Vec<String> {
    let Ok(devices) = std::fs::read_dir(sysfs.join("bus/pci/devices")) else { return Vec::new() };
    let is_card = |device: &Path| {
        let starts = |file: &str, with: &str| {
            std::fs::read_to_string(device.join(file)).is_ok_and(|text| text.trim().starts_with(with))
        };
        starts("vendor", VENDOR) && starts("class", DISPLAY)
    };
    let found = devices.flatten().filter(|device| is_card(&device.path()));
    let mut cards: Vec<String> = found.map(|d| d.file_name().to_string_lossy().into_owned()).collect();
    cards.sort_unstable();
    cards
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::CudaError;

    /// A tree as sysfs has it: (address, vendor, class).
    fn sysfs(devices: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (address, vendor, class) in devices {
            let device = root.path().join("bus/pci/devices").join(address);
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
            std::fs::write(device.join("class"), format!("{class}\n")).unwrap();
        }
        root
    }

    #[test]
    fn only_nvidias_display_and_3d_controllers_are_cards() {
        let root = sysfs(&[
            ("0000:65:00.0", "0x10de", "0x030200"),
            ("0000:01:00.0", "0x10de", "0x030000"),
            // Its sound, another maker's display, and something of neither kind.
            ("0000:01:00.1", "0x10de", "0x040300"),
            ("0000:00:02.0", "0x8086", "0x030000"),
            ("0000:00:1f.0", "0x8086", "0x060100"),
        ]);
        std::fs::create_dir(root.path().join("bus/pci/devices/without-files")).unwrap();
        assert_eq!(cards(root.path()), ["0000:01:00.0", "0000:65:00.0"]);
        assert!(cards(&root.path().join("none")).is_empty());
    }

    #[test]
    fn a_card_that_the_driver_does_not_show_is_worth_a_warning_too() {
        let shown = |cards: &[&str]| {
            let cards = cards.iter().map(|card| card.to_string()).collect();
            CudaError::NoDevice { ordinal: 0, count: 0, cards }
        };
        let (none, one) = (shown(&[]), shown(&["0000:01:00.0"]));
        assert!(none.is_without_gpu() && !one.is_without_gpu());
        let expected =
            ". There is an NVIDIA card at PCI address 0000:01:00.0: load the driver's kernel module";
        assert_eq!(one.to_string().find(expected), Some(none.to_string().len()), "{one}");
    }

    #[test]
    fn a_card_without_a_driver_is_worth_a_warning_that_names_it_and_no_card_is_not() {
        let without_driver = |devices: &[(&str, &str, &str)]| {
            let root = sysfs(devices);
            CudaError::NoDriver { looked: "/lib".into(), cards: cards(root.path()) }
        };
        let none = without_driver(&[("0000:00:02.0", "0x8086", "0x030000")]);
        assert!(none.is_without_gpu());
        assert!(none.to_string().contains("Install driver 525 or newer (in a container"), "{none}");
        let one = ("0000:01:00.0", "0x10de", "0x030000");
        let error = without_driver(&[one]);
        assert!(!error.is_without_gpu());
        let mend =
            "Install driver 525 or newer for the NVIDIA card at PCI address 0000:01:00.0 (in a container";
        assert!(error.to_string().contains(mend), "{error}");
        let both = without_driver(&[one, ("0000:65:00.0", "0x10de", "0x030200")]).to_string();
        assert!(both.contains("for the NVIDIA card at PCI address 0000:01:00.0, 0000:65:00.0"), "{both}");
    }
}
