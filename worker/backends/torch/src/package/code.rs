//! What a package's sources say of its code: what processor it was compiled for, and whether it can fail without ending the process.
//!
//! Every source ends with the command that compiled it. The flags in it that name what a processor can do are looked for on this
//! one; `-march=native` names nothing, and is worth a remark. A kernel that throws out of a parallel section ends the process,
//! because OpenMP hands no exception on: where a caller's numbers can make it do so, the package is refused.

use std::collections::BTreeSet;

use mesh_backend::BackendError;

/// What comes before a command.
const COMMAND: &str = "// Compile cmd";
/// How kernels begin, how they check what they read, and how they run on several threads.
const KERNEL: &str = "extern \"C\"";
const CHECK: &str = "TORCH_CHECK(";
const PARALLEL: &str = "#pragma omp parallel";

/// What is to be said of a package's code beside what is refused.
#[derive(Debug, Default)]
pub(crate) struct Code {
    /// Flags of which nothing is known here.
    unknown: BTreeSet<String>,
    native: bool,
}

impl Code {
    /// Reads one of the sources.
    pub(crate) fn read(&mut self, source: &str) -> Result<(), BackendError> {
        if source
            .split(KERNEL)
            .any(|kernel| kernel.contains(PARALLEL) && kernel.contains(CHECK))
        {
            let text = "the package's code checks numbers of its inputs, such as indices, where several threads run, and would end \
                        the process on a wrong one: compile it with inductor_configs={\"cpp.threads\": 1}";
            return Err(BackendError::Unsupported(text.to_owned()));
        }
        let mut lines = source.lines();
        while lines.any(|line| line.starts_with(COMMAND)) {
            let flags = lines.next().unwrap_or_default().split_whitespace();
            flags
                .filter_map(|flag| flag.strip_prefix("-m"))
                .try_for_each(|flag| self.flag(flag))?;
        }
        Ok(())
    }

    fn flag(&mut self, flag: &str) -> Result<(), BackendError> {
        if matches!(flag, "arch=native" | "cpu=native") {
            self.native = true;
        } else if flag.starts_with("arch=") || flag.starts_with("cpu=") {
            self.unknown.insert(flag.to_owned());
        } else if !flag.contains('=') && !flag.starts_with("no-") && flag != "64" {
            match has(flag) {
                Some(true) => {}
                Some(false) => {
                    return Err(BackendError::Load(format!(
                        "the package was compiled for processors with {flag}, and this is one without: compile it again there, or \
                         for that"
                    )));
                }
                None => {
                    self.unknown.insert(flag.to_owned());
                }
            }
        }
        Ok(())
    }

    /// A sentence on what cannot be checked; empty where everything can.
    pub(crate) fn remark(&self) -> String {
        let mut flags: Vec<String> = self.unknown.iter().map(|flag| format!("-m{flag}")).collect();
        if self.native {
            flags.insert(0, "-march=native".to_owned());
        }
        if flags.is_empty() {
            return String::new();
        }
        format!(
            "compiled with {}, of which cannot be checked whether this processor has all that it asks for: compile it on the oldest \
             kind of processor that it is to run on",
            flags.join(" ")
        )
    }
}

/// Whether this processor has what a compiler's flag names; none where that is not known.
#[cfg(target_arch = "x86_64")]
fn has(flag: &str) -> Option<bool> {
    use std::arch::{is_x86_feature_detected, x86_64::__cpuid_count};
    macro_rules! detected {
        ($($name:tt),*) => {
            match flag {
                $($name => Some(is_x86_feature_detected!($name)),)*
                _ => None,
            }
        };
    }
    // Processors with AVX2 have leaf 7.
    let leaf = |bit: u32| Some(is_x86_feature_detected!("avx2") && __cpuid_count(7, 0).edx & (1 << bit) != 0);
    match flag {
        "amx-bf16" => leaf(22),
        "amx-tile" => leaf(24),
        "amx-int8" => leaf(25),
        "bmi" => Some(is_x86_feature_detected!("bmi1")),
        _ => detected!(
            "sse3",
            "ssse3",
            "sse4.1",
            "sse4.2",
            "popcnt",
            "lzcnt",
            "bmi2",
            "avx",
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512cd",
            "avx512dq",
            "avx512vl",
            "avx512bw",
            "avx512ifma",
            "avx512vbmi",
            "avx512vbmi2",
            "avx512vnni",
            "avx512bitalg",
            "avx512vpopcntdq",
            "avx512bf16",
            "avx512fp16",
            "vaes",
            "gfni",
            "vpclmulqdq"
        ),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(_: &str) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<String, String> {
        let mut code = Code::default();
        let read = code.read(source).map_err(|error| error.to_string());
        read.map(|()| code.remark())
    }

    fn compiled(flags: &str) -> Result<String, String> {
        read(&format!(
            "int x;\n// Compile cmd\n// g++ -O3 {flags} -c -o x.o\n// Link cmd\n// g++ -mnever"
        ))
    }

    #[test]
    fn flags_that_name_what_this_processor_has_pass_and_others_are_said() {
        assert_eq!(compiled("-fPIC -m64 -mno-avx -mtune=generic"), Ok(String::new()));
        let native = compiled("-march=native").unwrap();
        assert!(
            native.contains("-march=native") && native.contains("oldest kind of processor"),
            "{native}"
        );
        let unknown = compiled("-mavx4096 -march=skylake").unwrap();
        assert!(unknown.contains("compiled with -march=skylake -mavx4096"), "{unknown}");
        assert_eq!(read("int x;"), Ok(String::new()));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_flag_that_names_what_this_processor_lacks_is_refused() {
        let known = [
            "sse4.2",
            "bmi",
            "avx2",
            "fma",
            "avx512f",
            "avx512vnni",
            "avx512bf16",
            "avx512fp16",
            "amx-tile",
            "amx-bf16",
            "amx-int8",
        ];
        for flag in known {
            let answer = compiled(&format!("-m{flag}"));
            match has(flag) {
                Some(true) => assert_eq!(answer, Ok(String::new()), "{flag}"),
                found => {
                    assert_eq!(found, Some(false), "{flag}");
                    assert!(
                        answer.unwrap_err().contains(&format!("processors with {flag}")),
                        "{flag}"
                    );
                }
            }
        }

        assert_eq!(has("avx4096"), None);
    }

    #[test]
    fn a_kernel_that_checks_in_a_parallel_section_is_refused() {
        let parallel = "    #pragma omp parallel num_threads(2)\n";
        let check = "  AOTI_TORCH_CHECK((0 <= tmp7) & (tmp7 < 100L), \"index out of bounds\");\n";
        let refused = read(&format!("extern \"C\" void a() {{\n{parallel}{check}}}")).unwrap_err();
        assert!(refused.contains("\"cpp.threads\": 1"), "{refused}");
        let apart = format!("extern \"C\" void a() {{\n{parallel}}}\nextern \"C\" void b() {{\n{check}}}");
        assert_eq!(read(&apart), Ok(String::new()));
    }
}
