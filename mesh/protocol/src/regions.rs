//! The parameters that lead a tensor to shared memory, and what is said about regions: registering, status.
//!
//! Reads and writes only: which regions there are, whose they are and what is in them is the router's to know.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mesh_types::{MAX_REGION_NAME_BYTES, ParameterValue, RegionOutput, RegionSpan};
use serde::{Deserialize, Serialize};

use crate::{
    error::{DecodeError, quoted},
    response::write_string,
};

/// The extensions of a server whose operator lets callers use shared memory.
pub const REGION_EXTENSIONS: [&str; 2] = ["system_shared_memory", "cuda_shared_memory"];

pub(crate) const REGION: &str = "shared_memory_region";
pub(crate) const BYTE_SIZE: &str = "shared_memory_byte_size";
pub(crate) const OFFSET: &str = "shared_memory_offset";

/// A tensor that a message is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of<'a> {
    Input(&'a str),
    Output(&'a str),
}

impl Of<'_> {
    pub(crate) fn wrong(self, problem: &'static str) -> DecodeError {
        let (what, name) = match self {
            Self::Input(name) => ("input", name),
            Self::Output(name) => ("output", name),
        };
        DecodeError::Region {
            what,
            name: quoted(name),
            problem,
        }
    }
}

/// The parameters as they were given; none of them for most tensors.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) region: Option<ParameterValue>,
    pub(crate) byte_size: Option<ParameterValue>,
    pub(crate) offset: Option<ParameterValue>,
}

impl Given {
    /// Where they lead.
    pub(crate) fn span(&self, of: Of<'_>) -> Result<RegionSpan, DecodeError> {
        let Some(region) = &self.region else {
            return Err(of.wrong("'shared_memory_byte_size' and 'shared_memory_offset' need 'shared_memory_region'"));
        };
        let allowed = |name: &&str| (1..=MAX_REGION_NAME_BYTES).contains(&name.len());
        let region = region.as_str().filter(allowed);
        let bytes = self.byte_size.as_ref().and_then(ParameterValue::as_u64);
        let offset = self.offset.as_ref().map_or(Some(0), ParameterValue::as_u64);
        Ok(RegionSpan {
            region: region
                .ok_or_else(|| of.wrong("'shared_memory_region' must be the name of a region, 1 to 255 bytes"))?
                .to_owned(),
            bytes: bytes.ok_or_else(|| {
                of.wrong("'shared_memory_byte_size' must be there too, a whole number that is not negative")
            })?,
            offset: offset
                .ok_or_else(|| of.wrong("'shared_memory_offset' must be a whole number that is not negative"))?,
        })
    }
}

/// What a caller says that registers system shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SystemRegion {
    /// The name of the shared memory object.
    pub key: String,
    /// Where the region begins in it, in bytes.
    #[serde(default)]
    pub offset: u64,
    /// How long the region is, in bytes.
    pub byte_size: u64,
}

/// Reads what registers a region of system shared memory.
pub fn decode_system_region(body: &[u8]) -> Result<SystemRegion, DecodeError> {
    Ok(serde_json::from_slice(body)?)
}

/// What a caller says that registers memory of a CUDA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaRegion {
    /// CUDA's handle, as it came.
    pub handle: Vec<u8>,
    /// The device's index, as it came.
    pub device: i64,
    /// How long the region is, in bytes.
    pub byte_size: u64,
}

/// Reads what registers a region of CUDA memory: `{"raw_handle":{"b64":".."},"device_id":..,"byte_size":..}`.
pub fn decode_cuda_region(body: &[u8]) -> Result<CudaRegion, DecodeError> {
    #[derive(Deserialize)]
    struct Packed {
        b64: String,
    }
    #[derive(Deserialize)]
    struct Asked {
        raw_handle: Packed,
        device_id: i64,
        byte_size: u64,
    }
    let Asked {
        raw_handle,
        device_id,
        byte_size,
    } = serde_json::from_slice(body)?;
    let handle = STANDARD.decode(&raw_handle.b64).map_err(|_| DecodeError::Handle)?;
    Ok(CudaRegion {
        handle,
        device: device_id,
        byte_size,
    })
}

/// A region of CUDA memory as its status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CudaRegionStatus<'a> {
    /// Its name.
    pub name: &'a str,
    /// The device's index.
    pub device_id: u64,
    /// How long it is, in bytes.
    pub byte_size: u64,
}

/// A region of system shared memory as its status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RegionStatus<'a> {
    /// Its name.
    pub name: &'a str,
    /// The shared memory object.
    pub key: &'a str,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub byte_size: u64,
}

/// `[{"name":"..","key":"..","offset":..,"byte_size":..},..]`, or what [`CudaRegionStatus`] has.
pub fn regions_body(regions: impl IntoIterator<Item = impl Serialize>) -> Vec<u8> {
    let regions: Vec<_> = regions.into_iter().collect();
    // Texts and whole numbers have nothing that JSON could not hold.
    serde_json::to_vec(&regions).unwrap_or_default()
}

/// Writes `{"shared_memory_region":..}`: where an output was put.
pub(crate) fn write_place(out: &mut Vec<u8>, RegionSpan { region, offset, bytes }: &RegionSpan) {
    out.extend_from_slice(b"{\"shared_memory_region\":");
    write_string(out, region);
    for (name, number) in [(BYTE_SIZE, *bytes), (OFFSET, *offset)] {
        // As in a request, an offset of 0 need not be said.
        if name == BYTE_SIZE || number > 0 {
            out.push(b',');
            write_string(out, name);
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
    }
    out.push(b'}');
}

/// Where an output was put, if it was put anywhere.
pub(crate) fn place_of<'a>(regions: &'a [RegionOutput], output: &str) -> Option<&'a RegionSpan> {
    let found = regions.iter().find(|known| known.name == output);
    found.map(|known| &known.span)
}
