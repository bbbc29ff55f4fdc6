//! An output whose reader may go (`| head -1`) before a command has done all that it is asked for.

use std::io::{self, ErrorKind, Write};

/// Drops what nobody reads any more, so that a command that deletes or copies goes on to its end.
pub struct Unread<'a>(pub &'a mut dyn Write);

impl Unread<'_> {
    fn or_dropped<T>(written: io::Result<T>, dropped: T) -> io::Result<T> {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(dropped),
            other => other,
        }
    }
}

impl Write for Unread<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::or_dropped(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::or_dropped(self.0.flush(), ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails in one way.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn only_a_reader_that_is_gone_is_passed_over() {
        for (kind, is_written) in [(ErrorKind::BrokenPipe, true), (ErrorKind::StorageFull, false)] {
            let mut failing = Failing(kind);
            let mut out = Unread(&mut failing);
            assert_eq!(writeln!(out, "text").and_then(|()| out.flush()).is_ok(), is_written, "{kind}");
        }
    }
}
