//! What a request has in regions: its inputs are read before its job is made, its outputs written once they are there.
//!
//! Copies from and to the system's memory in place, as the rest of a request's data is. A device's driver may take its time: who copies
//! from and to devices does it on a thread that may wait.

use std::{io, sync::Arc};

use bytes::Bytes;
use mesh_types::{
    Fault, InRegions, InferRequest, InferResponse, RegionInput, RegionOutput, RegionSpan, TenantId, Tensor,
};

use super::{
    MemoryKind, Regions,
    error::{RegionError, quoted},
    may_wait,
    memory::Held,
    registry::On,
};
use crate::Share;

/// A part of a region that was found, and lies within it.
#[derive(Debug)]
struct Found {
    held: Arc<Held>,
    /// From the memory's beginning.
    from: u64,
    bytes: u64,
}

/// Where a request's outputs go, and its share of the memory for what was read.
#[derive(Debug)]
pub(crate) struct Landing {
    outputs: Vec<(RegionOutput, Found)>,
    _share: Share,
}

impl Regions {
    /// Whether any of these inputs is in the memory of a device. One whose region is not there is in none, and is refused where it is
    /// read.
    pub(crate) fn reads_devices(&self, tenant: &TenantId, what: &InRegions) -> bool {
        let on_device = |on: &On, input: &RegionInput| {
            let held = on.find(tenant, &input.span.region);
            held.is_ok_and(|held| held.memory.kind() == MemoryKind::Cuda)
        };
        self.on()
            .is_ok_and(|on| what.inputs.iter().any(|input| on_device(on, input)))
    }

    /// Reads the inputs that a request has in regions and puts them among its tensors; nothing is read before all fit.
    pub(crate) fn take_in(
        &self,
        tenant: &TenantId,
        what: InRegions,
        request: &mut InferRequest,
    ) -> Result<Landing, RegionError> {
        let on = self.on()?;
        let InRegions { inputs, outputs } = what;
        let mut total: u64 = 0;
        let mut found = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let place = on.locate(tenant, &input.span)?;
            check_size(input, &request.model)?;
            total = total.saturating_add(place.bytes);
            found.push(place);
        }
        let outputs: Result<Vec<_>, RegionError> = outputs
            .into_iter()
            .map(|output| Ok((output.clone(), on.locate(tenant, &output.span)?)))
            .collect();
        let landing = Landing {
            outputs: outputs?,
            _share: on.share(total)?,
        };
        for (input, place) in inputs.into_iter().zip(found) {
            let RegionInput {
                at,
                name,
                datatype,
                shape,
                ..
            } = input;
            let tensor = Tensor::new(name, datatype, shape, place.read()?).map_err(|error| {
                let text = error.to_string();
                RegionError::Input(text.strip_prefix("tensor ").unwrap_or(&text).to_owned())
            })?;
            // In the order of the request, so that each finds those before it in their places.
            request.inputs.insert(at.min(request.inputs.len()), tensor);
        }
        Ok(landing)
    }
}

/// Whether an input has as many bytes as its shape needs; of texts only reading tells.
fn check_size(input: &RegionInput, model: &str) -> Result<(), RegionError> {
    let Some(element) = input.datatype.element_bytes() else {
        return Ok(());
    };
    let extents = input.shape.iter();
    let expected = extents.fold(element as u64, |bytes, extent| bytes.saturating_mul(*extent));
    if expected == input.span.bytes {
        return Ok(());
    }
    Err(RegionError::InputSize {
        input: quoted(&input.name),
        model: quoted(model),
        expected,
        got: input.span.bytes,
    })
}

impl On {
    fn locate(&self, tenant: &TenantId, span: &RegionSpan) -> Result<Found, RegionError> {
        let held = self.find(tenant, &span.region)?;
        let (name, bytes) = (quoted(&span.region), held.bytes);
        if span.offset > bytes {
            return Err(RegionError::Offset { name, bytes });
        }
        if span.bytes > bytes - span.offset {
            return Err(RegionError::Span { name, bytes });
        }
        Ok(Found {
            from: held.offset + span.offset,
            bytes: span.bytes,
            held,
        })
    }

    fn share(&self, total: u64) -> Result<Share, RegionError> {
        let most = self.config.max_request_bytes;
        let fits = usize::try_from(total).ok().filter(|total| *total <= most);
        let total = fits.ok_or(RegionError::TooLarge {
            got: total,
            most: most as u64,
        })?;
        let mut share = self.budget.share();
        share.grow(total).then_some(share).ok_or(RegionError::NoRoom)
    }
}

impl Found {
    fn read(&self) -> Result<Bytes, RegionError> {
        self.is_still_there()?;
        // It is within the bound of a request, so it is a length.
        let mut buffer = vec![0; usize::try_from(self.bytes).unwrap_or_default()];
        let read = self.held.memory.read(&mut buffer, self.from);
        read.map_err(|error| self.failed(&error))?;
        Ok(Bytes::from(buffer))
    }

    /// Whether the memory still reaches as far as this.
    fn is_still_there(&self) -> Result<(), RegionError> {
        let size = self.held.memory.size().map_err(|error| self.failed(&error))?;
        if size < self.from + self.bytes {
            return Err(self.shrunk());
        }
        Ok(())
    }

    fn shrunk(&self) -> RegionError {
        RegionError::Shrunk {
            name: quoted(&self.held.name),
        }
    }

    fn failed(&self, error: &io::Error) -> RegionError {
        match error.kind() {
            // It was cut short between looking and copying.
            io::ErrorKind::UnexpectedEof => self.shrunk(),
            kind => RegionError::Copy {
                name: quoted(&self.held.name),
                problem: kind.to_string(),
            },
        }
    }
}

impl Landing {
    /// Whether any output goes to a region.
    pub(crate) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The same, where a driver is to be waited for on a thread that may.
    pub(crate) async fn put_out_of(self, mut response: InferResponse) -> Result<InferResponse, Fault> {
        let on_device = |(_, place): &(RegionOutput, Found)| place.held.memory.kind() == MemoryKind::Cuda;
        if !self.outputs.iter().any(on_device) {
            self.put_out(&mut response)?;
            return Ok(response);
        }
        may_wait(move || {
            self.put_out(&mut response)?;
            Ok(response)
        })
        .await
    }

    /// Writes the outputs that go to regions, which are then without data; nothing is written before all fit.
    pub(crate) fn put_out(self, response: &mut InferResponse) -> Result<(), RegionError> {
        for (output, place) in &self.outputs {
            if let Some(tensor) = response.outputs.iter().find(|tensor| *tensor.name == *output.name) {
                let needed = tensor.data.len() as u64;
                if needed > place.bytes {
                    return Err(RegionError::OutputSize {
                        output: quoted(&output.name),
                        got: place.bytes,
                        needed,
                    });
                }
                place.is_still_there()?;
            }
        }
        for (mut output, place) in self.outputs {
            let tensor = response.outputs.iter_mut().find(|tensor| *tensor.name == *output.name);
            // One that may be missing is missing.
            let Some(tensor) = tensor else { continue };
            let data = std::mem::take(&mut tensor.data);
            let written = place.held.memory.write(&data, place.from);
            written.map_err(|error| place.failed(&error))?;
            output.span.bytes = data.len() as u64;
            response.regions.push(output);
        }
        Ok(())
    }
}
