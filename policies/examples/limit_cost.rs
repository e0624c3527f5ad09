//! What it costs a request to be let in: its API key, its limits, what its answer tells of them, and its bill; and what memory a tenant with
//! two keys takes.
//!
//! `limit_cost KIND TENANTS REQUESTS` makes so many tenants of a kind known (see `tenants`) and so many requests of some of them in turn, for
//! callgrind to count: two amounts of requests tell what one of them takes. With no requests every tenant calls once, and the bytes of
//! resident memory that one has taken are printed.
#![expect(clippy::print_stdout, reason = "the program's answer")]

mod tenants;

use std::error::Error;

use self::tenants::{KEYS, Tenants};

/// Tenants that call, of those that are known.
const CALLING: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_default();
    let mut number = |otherwise: usize| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (count, requests) = (number(1)?, number(0)?);
    let tenants = Tenants::known(&kind, count)?;
    if requests == 0 {
        println!("{}", tenants.bytes_of_one()?);
        return Ok(());
    }
    // Of tenants far from each other; the first of their keys, which has limits of its own if any has.
    let apart = (count / CALLING).max(1) * KEYS;
    let calling: Vec<&String> = tenants.keys.iter().step_by(apart).collect();
    calling.iter().try_for_each(|key| tenants.ask(key))?;
    let mut requests = calling.iter().cycle().take(requests);
    requests.try_for_each(|key| tenants.ask(key))
}
