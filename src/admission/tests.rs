//! The server as a client sees it: real sockets, real TLS.

mod abuse;
mod drain;
mod limits;
mod reviews;
mod rotation;
mod support;
