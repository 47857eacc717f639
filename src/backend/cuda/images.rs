//! The embedded kernels: machine code per compute capability, made by `make kernels` (kernels/README.md),
//! and PTX that the driver compiles for chips that came later.

/// All kernels, for one target.
pub(super) struct Image {
    /// `sm_MAJORMINOR`, or `compute_80` for PTX.
    pub target: &'static str,
    capability: (u32, u32),
    bytes: &'static [u8],
}

macro_rules! cubin {
    ($target:literal, $major:literal, $minor:literal) => {
        Image {
            target: $target,
            capability: ($major, $minor),
            bytes: include_bytes!(concat!("../../../kernels/cubins/", $target, ".cubin")),
        }
    };
}

/// Oldest first.
static CUBINS: [Image; 6] = [
    cubin!("sm_80", 8, 0),
    cubin!("sm_86", 8, 6),
    cubin!("sm_89", 8, 9),
    cubin!("sm_90", 9, 0),
    cubin!("sm_100", 10, 0),
    cubin!("sm_120", 12, 0),
];

static PTX: Image = Image {
    target: "compute_80",
    capability: (8, 0),
    bytes: include_bytes!("../../../kernels/cubins/compute_80.ptx"),
};

impl Image {
    /// A cubin runs on its own major version from its minor on; any other chip since Ampere takes the PTX.
    /// A cubin that its chip refuses all the same gives way to it when it is loaded (`functions`).
    pub fn of(capability: (u32, u32)) -> Option<&'static Image> {
        let fits = |image: &&Image| image.capability.0 == capability.0 && image.capability.1 <= capability.1;
        let newest = CUBINS.iter().rfind(fits);
        newest.or_else(|| (capability >= PTX.capability).then_some(&PTX))
    }

    /// What every chip takes whose driver compiles it.
    pub fn ptx() -> &'static Image {
        &PTX
    }

    pub fn is_ptx(&self) -> bool {
        self.target == PTX.target
    }

    /// As cuModuleLoadData takes it: PTX ends with a zero.
    pub fn data(&self) -> Vec<u8> {
        let mut data = self.bytes.to_vec();
        if self.is_ptx() {
            data.push(0);
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chip_since_ampere_finds_kernels_that_run_on_it() {
        let target = |major, minor| Image::of((major, minor)).map(|image| image.target);
        assert_eq!(target(7, 5), None);
        assert_eq!(target(8, 0), Some("sm_80"));
        assert_eq!(target(8, 7), Some("sm_86"));
        assert_eq!(target(8, 9), Some("sm_89"));
        assert_eq!(target(9, 0), Some("sm_90"));
        assert_eq!(target(10, 3), Some("sm_100"));
        assert_eq!(target(11, 0), Some("compute_80"));
        assert_eq!(target(12, 1), Some("sm_120"));
        assert_eq!(target(13, 0), Some("compute_80"));
    }
}
