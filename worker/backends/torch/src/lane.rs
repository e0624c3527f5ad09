//! How an instance's inputs get to its device.
//!
//! On CUDA through page-locked memory, without waiting, on a stream of the instance's own: the copies and kernels of two
//! instances on one device run side by side. libtorch keeps a page-locked block from being used again until the copies out
//! of it are done, and reading an output waits for the stream. On the CPU there is nothing to do: measured, an input tensor
//! made anew costs no more than one used again.

use mesh_backend::BackendError;
use tch::{Device, Kind, Tensor};

use crate::{
    fault,
    shim::{self, InStream, Stream},
};

/// One instance's way to its device.
#[derive(Debug)]
pub(crate) struct Lane {
    device: Device,
    /// None on the CPU, and where libtorch has no stream to give: then all instances share the device's own.
    stream: Option<Stream>,
}

impl Lane {
    pub(crate) fn to(device: Device) -> Self {
        let stream = match device {
            Device::Cuda(index) => Stream::on(index),
            _ => None,
        };
        Self { device, stream }
    }

    /// What the thread does on the device from now on belongs to this instance, until the guard is dropped.
    pub(crate) fn enter(&self) -> Option<InStream<'_>> {
        self.stream.as_ref().and_then(Stream::enter)
    }

    /// A new, contiguous tensor in the host's memory, to be filled and sent.
    pub(crate) fn stage(&self, extents: &[i64], kind: Kind) -> Result<Tensor, BackendError> {
        let plain = Tensor::f_empty(extents, (kind, Device::Cpu)).map_err(|error| fault::execution(&error))?;
        // No page of the plain one has been touched yet: it has cost next to nothing.
        let pinned = (self.device != Device::Cpu).then(|| shim::empty_pinned_like(&plain));
        Ok(pinned.flatten().unwrap_or(plain))
    }

    /// The filled tensor on the device. The copy may still be under way on the lane's stream.
    pub(crate) fn send(&self, staged: Tensor) -> Result<Tensor, BackendError> {
        if self.device == Device::Cpu {
            return Ok(staged);
        }
        let kind = staged.f_kind().map_err(|error| fault::execution(&error))?;
        staged
            .f_to_device_(self.device, kind, true, false)
            .map_err(|error| fault::execution(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_cpu_a_staged_tensor_is_sent_as_it_is() {
        let lane = Lane::to(Device::Cpu);
        assert!(lane.enter().is_none());
        let staged = lane.stage(&[2, 3], Kind::Int64).unwrap();
        let address = staged.data_ptr();
        let sent = lane.send(staged).unwrap();
        assert_eq!(
            (sent.data_ptr(), sent.size(), sent.kind()),
            (address, vec![2, 3], Kind::Int64)
        );
    }

    #[test]
    fn staging_for_a_gpu_gives_memory_to_fill_with_or_without_one() {
        let lane = Lane::to(Device::Cuda(0));
        let staged = lane.stage(&[2, 3], Kind::Float).unwrap();
        assert_eq!((staged.size(), staged.device()), (vec![2, 3], Device::Cpu));
        assert!(staged.is_contiguous());
    }

    #[test]
    fn sending_to_a_gpu_that_is_not_there_is_an_error() {
        if crate::cuda::devices().is_empty() {
            let lane = Lane::to(Device::Cuda(0));
            let staged = lane.stage(&[1], Kind::Float).unwrap();
            assert!(lane.send(staged).is_err());
        }
    }
}
