//! What memory a tenant takes, however many limits it has: a program of its own, because it reads what the whole process has.

#[path = "../examples/tenants/mod.rs"]
mod tenants;

use self::tenants::Tenants;

/// The most bytes that a tenant with two keys may take.
const MOST: u64 = 2_000;
/// So many that tables are about as full as with a hundred thousand.
const COUNT: usize = 12_500;

#[test]
fn a_tenant_with_every_limit_on_everything_takes_less_than_two_kilobytes() {
    // What has been taken stays, or what comes after would be put where it was; the first makes what is made once.
    let mut known = vec![Tenants::known("all", COUNT / 10).unwrap()];
    for (kind, most) in [("none", 1_350), ("usual", 1_500), ("all", MOST)] {
        let tenants = Tenants::known(kind, COUNT).unwrap();
        let bytes = tenants.bytes_of_one().unwrap();
        assert!(
            (500..=most).contains(&bytes),
            "{kind}: {bytes} bytes, at most {most} are allowed"
        );
        known.push(tenants);
    }
}
