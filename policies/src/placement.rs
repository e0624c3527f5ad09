//! Placement: which device a sequence begins on, as a pure function.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): each device gets a number from the sequence's name and its own, and the
//! highest wins. Every router that knows the same devices chooses alike without asking anybody, and when a device comes or
//! goes only the sequences that it wins or had move. Keeps nothing.

use mesh_types::{CorrelationId, DeviceId, ModelVersionKey, TenantId};
use sha2::{Digest, Sha256};

/// The device of a sequence among those that could have it; none of none.
pub fn device_of(
    tenant: &TenantId,
    version: &ModelVersionKey,
    id: &CorrelationId,
    devices: &[DeviceId],
) -> Option<DeviceId> {
    if let [only] = devices {
        return Some(*only);
    }
    let mut name = Sha256::new();
    // Kept apart by a zero byte; the number 5 and the text "5" are two.
    let kind = match id {
        CorrelationId::Number(_) => "number",
        CorrelationId::Text(_) => "text",
    };
    for part in [tenant.as_str(), &version.to_string(), kind, &id.to_string()] {
        name.update(part.as_bytes());
        name.update([0]);
    }
    let score = |device: &DeviceId| {
        let mut hash = name.clone();
        hash.update(device.to_string().as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        digest
    };
    devices.iter().copied().max_by_key(score)
}

#[cfg(test)]
mod tests {
    use mesh_types::{ModelId, Version};

    use super::*;

    fn place(number: u64, devices: &[DeviceId]) -> DeviceId {
        let tenant = TenantId::parse("acme").unwrap();
        let version = ModelVersionKey {
            tenant: tenant.clone(),
            model: ModelId::parse("ears").unwrap(),
            version: Version::FIRST,
        };
        device_of(&tenant, &version, &CorrelationId::Number(number), devices).unwrap()
    }

    #[test]
    fn devices_get_about_as_many_each_whatever_their_order() {
        let devices: Vec<DeviceId> = (0..4).map(DeviceId::cpu).collect();
        let turned: Vec<DeviceId> = devices.iter().rev().copied().collect();
        let mut counts = [0; 4];
        for number in 0..4_000 {
            let device = place(number, &devices);
            assert_eq!(device, place(number, &turned));
            counts[usize::from(device.index)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn when_a_device_goes_only_its_own_move() {
        let devices: Vec<DeviceId> = (0..4).map(DeviceId::cpu).collect();
        for number in 0..1_000 {
            let before = place(number, &devices);
            let after = place(number, &devices[..3]);
            assert!(before == after || before == DeviceId::cpu(3));
        }
    }

    #[test]
    fn there_is_no_device_of_none() {
        let (tenant, model) = (TenantId::parse("t").unwrap(), ModelId::parse("m").unwrap());
        let version = ModelVersionKey {
            tenant: tenant.clone(),
            model,
            version: Version::FIRST,
        };
        let id = CorrelationId::Text("5".into());
        assert_eq!(device_of(&tenant, &version, &id, &[]), None);
    }
}
