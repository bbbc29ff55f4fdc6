//! A connection that reads on for a while after its last answer.
//!
//! Whoever closes a TCP connection with bytes that were not read resets it, and a client that is still sending may lose the
//! answer that is on its way. So the half that sends is closed first, and what still comes is read and dropped, so much and
//! so long (nginx: "lingering_close").

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// So many bytes are dropped at most: more than the largest review that is refused for its size after it was sent.
const MAX_DROPPED: usize = 16 << 20;

/// For so long at most.
const LONGEST: Duration = Duration::from_secs(5);

/// A stream whose shutdown lingers if the flag is set by then.
pub struct Lingering<S> {
    stream: S,
    wanted: Arc<AtomicBool>,
    longest: Duration,
    stage: CloseStage,
}

enum CloseStage {
    Open,
    Dropping { left: usize, end: Pin<Box<Sleep>> },
    Closed,
}

impl<S> Lingering<S> {
    /// Lingers once `wanted` is set.
    pub fn new(stream: S, wanted: Arc<AtomicBool>) -> Self {
        Self { stream, wanted, longest: LONGEST, stage: CloseStage::Open }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.stage {
                CloseStage::Open => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                    this.stage = if this.wanted.load(Relaxed) {
                        CloseStage::Dropping { left: MAX_DROPPED, end: Box::pin(sleep(this.longest)) }
                    } else {
                        CloseStage::Closed
                    };
                }
                CloseStage::Dropping { left, end } => {
                    let mut scratch = [0; 8 << 10];
                    let mut buffer = ReadBuf::new(&mut scratch);
                    let is_over = end.as_mut().poll(context).is_ready()
                        || ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)).is_err()
                        || buffer.filled().is_empty();
                    *left = left.saturating_sub(buffer.filled().len());
                    if is_over || *left == 0 {
                        this.stage = CloseStage::Closed;
                    }
                }
                CloseStage::Closed => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_still_comes_is_read_before_the_end() {
        let (mut client, server) = duplex(1024);
        let mut server = Lingering::new(server, Arc::new(AtomicBool::new(true)));
        let closing = tokio::spawn(async move { server.shutdown().await });
        // Far more than fits between the two: someone has to read it.
        client.write_all(&vec![0; 1 << 20]).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "the half that sends is closed");
        assert!(!closing.is_finished());
        client.shutdown().await.unwrap();
        closing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn it_ends_whatever_the_client_does() {
        let (mut client, server) = duplex(1024);
        let mut silent = Lingering::new(server, Arc::new(AtomicBool::new(true)));
        silent.longest = Duration::from_millis(50);
        silent.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);

        let (mut client, server) = duplex(1 << 20);
        let mut endless = Lingering::new(server, Arc::new(AtomicBool::new(true)));
        let closing = tokio::spawn(async move { endless.shutdown().await });
        let bytes = vec![0; 1 << 20];
        while client.write_all(&bytes).await.is_ok() {}
        closing.await.unwrap().unwrap();

        let (_client, server) = duplex(1024);
        Lingering::new(server, Arc::default()).shutdown().await.unwrap();
    }
}
