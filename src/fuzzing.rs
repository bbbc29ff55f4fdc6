//! What must hold for any bytes from outside: nothing panics, nothing is written where it should not be, and what is
//! accepted means one thing. `fuzz/` feeds these functions with libFuzzer (`fuzz/run`), the tests of this module with all
//! of `fuzz/seeds` and with mutants of them.

mod archive;
mod registry;
mod review;
mod snapshot;
mod step;
mod table;
#[cfg(test)]
mod tests;
mod yaml;

pub use self::{
    archive::archive, registry::registry, review::review, snapshot::snapshot, step::step, table::table, yaml::yaml,
};
