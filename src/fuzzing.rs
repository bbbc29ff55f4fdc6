//! What must hold for any bytes from outside: nothing panics, nothing is written where it should not be, and what is
//! accepted means one thing. `fuzz/` feeds these functions with libFuzzer (`fuzz/run`), the tests of this module with all
//! of `fuzz/seeds` and with mutants of them.

mod archive;
mod review;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod yaml;

pub use self::{archive::archive, review::review, snapshot::snapshot, table::table, yaml::yaml};
