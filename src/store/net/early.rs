//! A response that arrives while the request is still being sent.
//!
//! A registry, or a proxy before it, that refuses an upload (413, 401, 429) may respond and close without reading the rest.
//! Sending the rest then fails, and the response, which says why, would be lost. This layer lies between TCP and TLS: if
//! sending fails although there is something to read, it drops the rest of the request, so that the response is read.

use std::io;

use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
};

/// Puts an [`EarlyReply`] around each connection.
#[derive(Debug)]
pub struct EarlyReplyConnector;

/// See the module.
#[derive(Debug)]
pub struct EarlyReply<T> {
    inner: T,
    closed: bool,
}

impl<In: Transport> Connector<In> for EarlyReplyConnector {
    type Out = EarlyReply<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| EarlyReply { inner, closed: false }))
    }
}

impl<T: Transport> Transport for EarlyReply<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        let error = match self.inner.transmit_output(amount, timeout) {
            Err(Error::Io(error)) if closed(&error) => error,
            sent => return sent,
        };
        // The peer has closed, so this returns at once.
        match self.inner.await_input(timeout) {
            Ok(true) => {
                self.closed = true;
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        !self.closed && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted)
}
