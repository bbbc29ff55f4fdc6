//! The format of one layer: an OCI layer blob that carries its own table of contents. docs/format.md describes it.
//!
//! | module | contents |
//! |---|---|
//! | [`archive`] | entries as the headers of a tar archive |
//! | [`codec`] | compression, and where each kind keeps the table of contents |
//! | [`toc`] | the table of contents |
//! | [`descriptor`] | the descriptor of a layer and its annotations |
//! | [`write`], [`read`] | a layer as a stream to and from a store |
//! | [`parts`] | single files of a layer |
//! | [`untar`] | archives that other programs made |

pub mod archive;
pub mod codec;
pub mod descriptor;
pub mod parts;
pub mod read;
pub mod toc;
pub mod untar;
pub mod write;
