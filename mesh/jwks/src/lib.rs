//! Fetches the keys that issuers of tokens publish (JWKS, RFC 7517), ahead of need.
//!
//! Owns the task that keeps every [`KeyBook`](mesh_policies::KeyBook) of the newest snapshot up to date, and the HTTP that this
//! takes; and the client of the provider that admins sign in with ([`Login`]). When to fetch, how long keys are used and who may ask for a fetch is the book's; here is only what needs a network
//! and a runtime. Requests never come here: they read the book, and wait at it.
//!
//! Invariants: at most [`MAX_FETCHES`] fetches at once, each over within [`FETCH_TIMEOUT`]; an address is `https`, or of this very
//! machine; redirects are not followed; no more than [`MAX_KEY_SET_BYTES`](mesh_policies::access::MAX_KEY_SET_BYTES) are read; a
//! book that no snapshot refers to any more is not fetched.

mod fetch;
mod keeper;
mod login;
mod shelving;

pub use fetch::{FETCH_TIMEOUT, FetchError};
pub use keeper::{Keeper, KeeperError, MAX_FETCHES};
pub use login::{Asked, ClientSecret, DISCOVERY_AGE, Leaving, Login, LoginClient, LoginError, REST, Returned, told};
pub use shelving::Shelf;
