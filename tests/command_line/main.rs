//! The program as a process: what it prints, how it ends, what it does without privileges.

mod non_root;
mod reference;
mod render;
mod restore_save;
mod streams;
mod terminal;
mod webhook;
