//! Who we are to a cloud: the credentials that its own tools would find, and how requests are signed with them.
//!
//! | module | contents |
//! |---|---|
//! | `environment` | what says who we are: variables, and a mounted Secret in their place |
//! | `aws` | access keys: environment, web identity, shared files, container and machine; signature version 4 |
//! | `google` | access tokens: keys of service accounts, workload identity federation, users, pods and machines |
//! | `cache` | what was fetched |
//! | `fetch` | short requests to the servers that hand out credentials |

pub mod aws;
mod cache;
mod environment;
mod fetch;
pub mod google;

pub use self::{
    cache::{CredentialCache, Obtained},
    environment::{Environment, is_for_another_store},
    fetch::{Fetch, Problem},
};

#[cfg(test)]
pub mod tests;
