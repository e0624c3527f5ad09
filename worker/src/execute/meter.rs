//! Tells who pays for jobs what they have cost: that they wait no longer, and their parts of executions.
//!
//! Members of a batch share its time by their rows, whatever came of it and whether or not anybody waits for it still. Knows no
//! limits and adds nothing up: that is the meters'.

use std::time::Duration;

use mesh_types::DeviceMeter;

use crate::order::{Member, RunBatch};

fn meter(member: &Member) -> Option<&dyn DeviceMeter> {
    member.job.meter.as_deref()
}

/// Members begin to run.
pub(super) fn wait_no_longer(run: &RunBatch, members: &[usize]) {
    let members = members.iter().filter_map(|member| run.members.get(*member));
    members.filter_map(meter).for_each(DeviceMeter::began);
}

/// Members have had a device for so long between them.
pub(super) fn charge(run: &RunBatch, members: &[usize], took: Duration) {
    share(members.iter().filter_map(|member| run.members.get(*member)), took);
}

/// The same.
pub(super) fn share<'a>(members: impl Iterator<Item = &'a Member> + Clone, took: Duration) {
    let rows: u32 = members.clone().map(|member| member.job.rows).sum();
    for member in members {
        if let Some(meter) = meter(member) {
            meter.ran(took * member.job.rows / rows.max(1));
        }
    }
}
