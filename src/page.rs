//! A page about runs: the graph of their tasks, and, once they have run, what each task did with the workspaces. One HTML file that
//! needs nothing beside it: readable without JavaScript, and it never sends a request. Pure: what is known comes in, HTML goes out.
//!
//! | module | its one concept |
//! |---|---|
//! | [`model`] | what a page shows |
//! | [`tree`] | the paths that a task changed, as a tree of bounded size |
//! | [`layout`] | where the tasks of a graph are drawn |
//! | [`graph`], [`timeline`], [`task`], [`workspace`] | parts of the page |
//! | [`document`] | the whole of it, and what the browser is allowed to do |
//! | [`html`] | untrusted strings in HTML |
//!
//! Nothing but [`html`] writes a string that this program did not choose.

mod document;
mod graph;
mod html;
mod layout;
pub mod model;
mod task;
#[cfg(test)]
mod tests;
mod timeline;
pub mod tree;
mod workspace;

pub use self::document::Document;
