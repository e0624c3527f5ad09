//! How many instances of a model a device holds: `instance_group`.

use mesh_types::{DeviceId, DeviceKind, InstanceGroup, InstanceKind, MAX_INSTANCES, ModelConfig};

/// Instances of a model on a device with so many threads: what its groups for this device ask for together; as many as
/// the device has threads where they name no number, or there are none. At least 1 and at most [`MAX_INSTANCES`], or the
/// number of threads where that is larger.
pub(crate) fn on(device: DeviceId, threads: usize, config: &ModelConfig) -> usize {
    let threads = threads.max(1);
    let most = usize::try_from(MAX_INSTANCES).unwrap_or(usize::MAX).max(threads);
    let number = |group: &InstanceGroup| match usize::try_from(group.count).unwrap_or(most) {
        0 => threads,
        count => count,
    };
    let groups = config.instance_group.iter().filter(|group| is_for(group, device));
    match groups.map(number).fold(0usize, usize::saturating_add) {
        0 => threads,
        count => count.min(most),
    }
}

fn is_for(group: &InstanceGroup, device: DeviceId) -> bool {
    let named = group.gpus.is_empty() || group.gpus.contains(&device.index);
    match (group.kind, device.kind) {
        (InstanceKind::KindAuto, DeviceKind::Cpu) => group.gpus.is_empty(),
        (InstanceKind::KindCpu, kind) => kind == DeviceKind::Cpu,
        (InstanceKind::KindAuto | InstanceKind::KindGpu, DeviceKind::Cuda) => named,
        (InstanceKind::KindGpu, DeviceKind::Cpu) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(count: u32, kind: InstanceKind, gpus: &[u16]) -> InstanceGroup {
        InstanceGroup {
            count,
            kind,
            gpus: gpus.to_vec(),
        }
    }

    fn count(device: DeviceId, groups: Vec<InstanceGroup>) -> usize {
        let config = ModelConfig {
            instance_group: groups,
            ..ModelConfig::default()
        };
        on(device, 4, &config)
    }

    #[test]
    fn groups_for_the_device_add_up_and_none_means_its_threads() {
        let (cpu, gpu) = (DeviceId::cpu(0), DeviceId::cuda(1));
        let cases = [
            (cpu, vec![], 4),
            (cpu, vec![group(0, InstanceKind::KindAuto, &[])], 4),
            (cpu, vec![group(2, InstanceKind::KindCpu, &[])], 2),
            (
                cpu,
                vec![
                    group(2, InstanceKind::KindCpu, &[]),
                    group(7, InstanceKind::KindAuto, &[]),
                ],
                9,
            ),
            (cpu, vec![group(2, InstanceKind::KindGpu, &[])], 4),
            (
                gpu,
                vec![
                    group(2, InstanceKind::KindGpu, &[1]),
                    group(3, InstanceKind::KindGpu, &[0]),
                ],
                2,
            ),
            (
                gpu,
                vec![
                    group(2, InstanceKind::KindCpu, &[]),
                    group(1, InstanceKind::KindAuto, &[]),
                ],
                1,
            ),
        ];
        for (device, groups, expected) in cases {
            assert_eq!(count(device, groups.clone()), expected, "{device} {groups:?}");
        }
    }

    #[test]
    fn there_are_never_more_than_the_bound() {
        let two = |a, b| {
            vec![
                group(a, InstanceKind::KindAuto, &[]),
                group(b, InstanceKind::KindAuto, &[]),
            ]
        };
        assert_eq!(count(DeviceId::cpu(0), two(MAX_INSTANCES - 1, 1)), 32);
        assert_eq!(count(DeviceId::cpu(0), two(MAX_INSTANCES, 1)), 32);
    }
}
