//! Compiles the C++ beside the bindings against the libtorch that the bindings found.

use std::{env, path::PathBuf};

const SOURCES: [&str; 11] = [
    "shim/shim.cpp",
    "shim/clearing.cpp",
    "shim/error.cpp",
    "shim/hearing.cpp",
    "shim/memory.cpp",
    "shim/module.cpp",
    "shim/package.cpp",
    "shim/priority.cpp",
    "shim/release.cpp",
    "shim/schema.cpp",
    "shim/variants.cpp",
];

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        println!("cargo:warning=torch-sys did not say where libtorch is");
        return;
    };
    // Beside the libraries in libtorch's archive and in Python's wheel alike, unless said otherwise.
    let root = env::var_os("LIBTORCH_INCLUDE").map_or_else(|| lib.join(".."), PathBuf::from);
    let include = root.join("include");
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .define("GLOG_USE_GLOG_EXPORT", None)
        .files(SOURCES)
        .compile("mesh_torch_shim");
}
