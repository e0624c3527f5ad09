//! What a package was compiled for, beside what is here.

use std::collections::BTreeMap;

use mesh_backend::BackendError;
use tch::Device;

use crate::cuda;

/// What the package's metadata say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MadeFor(BTreeMap<String, String>);

impl MadeFor {
    /// Reads the metadata.
    pub(crate) fn read(json: &[u8]) -> Result<Self, BackendError> {
        let read = serde_json::from_slice(json).map(Self);
        read.map_err(|_| BackendError::Load("the package's metadata cannot be read".to_owned()))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Refuses a package that was compiled for something else.
    pub(crate) fn check(&self, device: Device) -> Result<(), BackendError> {
        let refuse = |what: &str, its: &str, ours: &str| {
            let remedy = "compile it again there, or for that";
            Err(BackendError::Load(format!(
                "the package was compiled for {what} {its}, and this is {ours}: {remedy}"
            )))
        };
        let here = if device == Device::Cpu { "cpu" } else { "cuda" };
        match self.get("AOTI_DEVICE_KEY") {
            Some(its) if its != here => return refuse("the device", its, here),
            None => {
                return Err(BackendError::Load(
                    "the package does not say which device it was compiled for".to_owned(),
                ));
            }
            Some(_) => {}
        }
        let system = std::env::consts::OS;
        if let Some(its) = self.get("AOTI_PLATFORM").filter(|its| *its != system) {
            return refuse("the system", its, system);
        }
        let machine = std::env::consts::ARCH;
        if let Some(its) = self.get("AOTI_MACHINE").filter(|its| !same_machine(its, machine)) {
            return refuse("the processor", its, machine);
        }
        for feature in self.get("AOTI_CPU_ISA").unwrap_or_default().split_whitespace() {
            if !has(feature) {
                return refuse("processors with", feature, "one without");
            }
        }
        if let Device::Cuda(index) = device
            && let (Some(its), Some(ours)) = (self.get("AOTI_COMPUTE_CAPABILITY"), cuda::compute_capability(index))
            && !runs_on(its, &ours)
        {
            return refuse("GPUs of compute capability", its, &ours);
        }
        Ok(())
    }

    /// The libtorch that it was compiled with and for, where it says.
    pub(crate) fn torch(&self) -> Option<&str> {
        self.get("torch_version")
    }
}

fn same_machine(one: &str, other: &str) -> bool {
    let plain = |name: &str| match name {
        "AMD64" | "amd64" => "x86_64".to_owned(),
        "arm64" => "aarch64".to_owned(),
        name => name.to_owned(),
    };
    plain(one) == plain(other)
}

/// Code for one capability runs on later ones of the same generation.
fn runs_on(its: &str, ours: &str) -> bool {
    let (Ok(its), Ok(ours)) = (its.parse::<u32>(), ours.parse::<u32>()) else {
        return its == ours;
    };
    its / 10 == ours / 10 && its <= ours
}

/// Whether this processor has what PyTorch calls so.
fn has(feature: &str) -> bool {
    match feature {
        // Compiled without vector instructions.
        "INVALID_VEC_ISA" => true,
        "NEON" | "ASIMD" => cfg!(target_arch = "aarch64"),
        feature => has_x86(feature),
    }
}

#[cfg(target_arch = "x86_64")]
fn has_x86(feature: &str) -> bool {
    use std::arch::{is_x86_feature_detected, x86_64::__cpuid_count};
    match feature {
        "AVX2" => {
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
        }
        "AVX512" => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
        }
        "AVX512_VNNI" => is_x86_feature_detected!("avx512vnni"),
        // Leaf 7, EDX: bit 24 is AMX-TILE. Processors with AVX2 have the leaf.
        "AMX_TILE" => is_x86_feature_detected!("avx2") && __cpuid_count(7, 0).edx & (1 << 24) != 0,
        _ => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has_x86(_: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_for(changes: &[(&str, &str)]) -> MadeFor {
        let usual = [
            ("AOTI_DEVICE_KEY", "cpu"),
            ("AOTI_PLATFORM", std::env::consts::OS),
            ("AOTI_MACHINE", std::env::consts::ARCH),
            ("AOTI_CPU_ISA", "INVALID_VEC_ISA"),
            ("AOTI_COMPUTE_CAPABILITY", ""),
        ];
        let all = usual.iter().chain(changes);
        MadeFor(
            all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn a_package_for_something_else_is_refused_by_name() {
        assert_eq!(made_for(&[]).check(Device::Cpu), Ok(()));
        let cases = [
            (("AOTI_DEVICE_KEY", "cuda"), "the device cuda, and this is cpu"),
            (("AOTI_DEVICE_KEY", ""), "does not say which device"),
            (("AOTI_PLATFORM", "darwin"), "the system darwin, and this is linux"),
            (("AOTI_MACHINE", "riscv64"), "the processor riscv64"),
            (("AOTI_CPU_ISA", "AVX1024"), "processors with AVX1024"),
        ];
        for (change, text) in cases {
            let refused = made_for(&[change]).check(Device::Cpu).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
        assert_eq!(made_for(&[("torch_version", "2.11.0+cpu")]).torch(), Some("2.11.0+cpu"));
        let refused = made_for(&[]).check(Device::Cuda(0)).unwrap_err().to_string();
        assert!(refused.contains("the device cpu, and this is cuda"), "{refused}");
    }

    #[test]
    fn capabilities_run_on_later_ones_of_their_generation() {
        assert!(runs_on("80", "86") && runs_on("90", "90"));
        assert!(!runs_on("86", "80") && !runs_on("80", "90") && !runs_on("x", "90"));
        assert!(same_machine("AMD64", "x86_64") && same_machine("arm64", "aarch64"));
    }
}
