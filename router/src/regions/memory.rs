//! What a region is a part of: a shared memory object of the system, or memory on a CUDA device.

use std::io;

use super::{CudaRegion, Region, device::Opened, object::Object};

/// Which memory a region has. Names are one space for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// The system's.
    System,
    /// A CUDA device's.
    Cuda,
}

impl MemoryKind {
    /// As messages name it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Cuda => "CUDA",
        }
    }
}

/// Memory that is open.
#[derive(Debug)]
pub(super) enum Memory {
    System {
        object: Object,
        /// The object's name, as it was registered.
        key: String,
    },
    Cuda(Opened),
}

impl Memory {
    pub(super) const fn kind(&self) -> MemoryKind {
        match self {
            Self::System { .. } => MemoryKind::System,
            Self::Cuda(_) => MemoryKind::Cuda,
        }
    }

    /// Whether both are the same memory, by whatever names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System { object: one, .. }, Self::System { object: other, .. }) => one.is_same(other),
            // By whichever device it was opened: others may reach its memory.
            (Self::Cuda(one), Self::Cuda(other)) => one.handle == other.handle,
            _ => false,
        }
    }

    /// How long it is now.
    pub(super) fn size(&self) -> io::Result<u64> {
        match self {
            Self::System { object, .. } => object.size(),
            Self::Cuda(opened) => Ok(opened.object.size()),
        }
    }

    pub(super) fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
        match self {
            Self::System { object, .. } => object.read(buffer, from),
            Self::Cuda(opened) => opened.object.read(buffer, from),
        }
    }

    pub(super) fn write(&self, bytes: &[u8], to: u64) -> io::Result<()> {
        match self {
            Self::System { object, .. } => object.write(bytes, to),
            Self::Cuda(opened) => opened.object.write(bytes, to),
        }
    }
}

/// A region and its memory; those who copy hold on to it, also when it is unregistered meanwhile.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) name: String,
    /// Where it begins in its memory, in bytes.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) memory: Memory,
}

impl Held {
    /// As its tenant sees it, if it is the system's.
    pub(super) fn system(&self) -> Option<Region> {
        let Memory::System { key, .. } = &self.memory else {
            return None;
        };
        Some(Region {
            name: self.name.clone(),
            key: key.clone(),
            offset: self.offset,
            bytes: self.bytes,
        })
    }

    /// As its tenant sees it, if it is a CUDA device's.
    pub(super) fn cuda(&self) -> Option<CudaRegion> {
        let Memory::Cuda(Opened { device, .. }) = &self.memory else {
            return None;
        };
        Some(CudaRegion {
            name: self.name.clone(),
            device: *device,
            bytes: self.bytes,
        })
    }
}
