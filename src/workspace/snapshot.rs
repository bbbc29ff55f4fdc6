//! The images of a run: snapshots of tasks, the merge of several, and the ordinary image at the end.
//!
//! | module | contents |
//! |---|---|
//! | [`image`] | manifests and configs as JSON |
//! | [`lineage`] | what a workspace is made of: a base, and what tasks changed since |
//! | [`load`] | reads images and lineages from a store |
//! | [`merge`] | the changes of several tasks as one tree: pure |
//! | [`view`] | the merged entries of a lineage |
//! | [`flatten`] | what a plain stack of layers would show instead, and the layer that corrects it: pure |
//! | [`assemble`] | stores snapshots, and `target` as an image that any tool reads |

pub mod assemble;
pub mod flatten;
pub mod image;
pub mod lineage;
pub mod load;
pub mod merge;
pub mod view;
