//! Which device: of those where the version is ready, the one with the least on its way from here.

use std::sync::Arc;

use mesh_types::DeviceId;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// How many jobs of this router are on each device. One entry per device ever used: as many as the machine has.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    counts: Mutex<SmallVec<[(DeviceId, u32); 8]>>,
}

/// A job on a device; given back when dropped.
#[derive(Debug)]
pub(crate) struct OnDevice {
    pub(crate) device: DeviceId,
    loads: Arc<Loads>,
}

impl Loads {
    /// Takes a place on the least loaded candidate; of equals, `random` decides. None without candidates.
    pub(crate) fn take(self: &Arc<Self>, candidates: &[DeviceId], random: u64) -> Option<OnDevice> {
        let mut counts = self.counts.lock();
        let of = |device: &DeviceId| {
            let known = counts.iter().find(|(known, _)| known == device);
            known.map_or(0, |(_, count)| *count)
        };
        let first = usize::try_from(random % u64::try_from(candidates.len()).ok()?.max(1)).ok()?;
        let rotated = candidates.iter().skip(first).chain(candidates.iter().take(first));
        let device = *rotated.min_by_key(|device| of(device))?;
        count_up(&mut counts, device);
        Some(OnDevice {
            device,
            loads: self.clone(),
        })
    }

    /// Takes a place on this device, however loaded it is.
    pub(crate) fn take_on(self: &Arc<Self>, device: DeviceId) -> OnDevice {
        count_up(&mut self.counts.lock(), device);
        OnDevice {
            device,
            loads: self.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn total(&self) -> u32 {
        self.counts.lock().iter().map(|(_, count)| *count).sum()
    }
}

fn count_up(counts: &mut SmallVec<[(DeviceId, u32); 8]>, device: DeviceId) {
    match counts.iter_mut().find(|(known, _)| *known == device) {
        Some((_, count)) => *count += 1,
        None => counts.push((device, 1)),
    }
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        let mut counts = self.loads.counts.lock();
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == self.device) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_go_where_the_fewest_are_and_places_are_given_back() {
        let loads = Arc::new(Loads::default());
        let devices = [DeviceId::cpu(0), DeviceId::cpu(1)];
        let first = loads.take(&devices, 0).unwrap();
        let second = loads.take(&devices, 0).unwrap();
        assert_ne!(first.device, second.device);
        let device = first.device;
        drop(first);
        assert_eq!(loads.take(&devices, 1).unwrap().device, device);
        assert!(loads.take(&[], 7).is_none());
    }
}
