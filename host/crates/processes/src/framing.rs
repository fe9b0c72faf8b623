//! Cuts a process's output into pieces, within bounds.

use std::io;
use std::os::fd::AsFd;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Reading;

/// How a process's output is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// At newlines.
    Lines,
    /// As it was read.
    Bytes,
}

/// What is read at once, in bytes: a pipe holds 64 KiB.
const READ_SIZE: usize = 64 << 10;

/// A reader of lines, or of whatever comes.
pub(super) struct FrameReader<R> {
    from: R,
    reading: Reading,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline.
    searched: usize,
    ended: bool,
}

/// What a read brought.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// A line without its newline, or bytes as they were read.
    Whole(Bytes),
    /// A line went on beyond the bound.
    TooLong,
    /// There is no more.
    End,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(from: R, reading: Reading) -> Self {
        FrameReader {
            from,
            reading,
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
        }
    }

    /// A piece that was already read.
    pub(super) fn buffered(&mut self) -> Option<Frame> {
        if self.reading.framing == Framing::Bytes {
            return (!self.buffer.is_empty()).then(|| Frame::Whole(self.buffer.split().freeze()));
        }
        match memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                Some(Frame::Whole(line))
            }
            None => {
                self.searched = self.buffer.len();
                (self.searched > self.reading.max_line).then_some(Frame::TooLong)
            }
        }
    }

    /// The next piece. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(piece) = self.buffered() {
                return Ok(piece);
            }
            if self.ended {
                return Ok(Frame::End);
            }
            self.buffer.reserve(READ_SIZE);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
                // The last line may lack its newline.
                self.searched = 0;
                if !self.buffer.is_empty() {
                    return Ok(Frame::Whole(self.buffer.split().freeze()));
                }
            }
        }
    }
}

impl<R: AsFd> FrameReader<R> {
    /// Drops all output that can be read at this moment. False if the process cannot be used again: there was
    /// too much to be leftovers, the output stops within a line, or it was closed.
    pub(super) fn skip(&mut self) -> bool {
        /// The most output that may be leftovers, in bytes.
        const MOST: usize = 1 << 20;
        let mut last = self.buffer.last().copied();
        self.buffer.clear();
        self.searched = 0;
        let (mut part, mut size) = ([0; 4 << 10], 0);
        while size < MOST && !self.ended {
            // The pipe itself is asked: the runtime learns later that there is something in it.
            match rustix::io::read(&self.from, &mut part) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    size += count;
                    last = Some(part[count - 1]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    return self.reading.framing == Framing::Bytes
                        || last.is_none_or(|b| b == b'\n');
                }
                Err(_) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn read_all(text: &'static [u8], framing: Framing, max_line: usize) -> Vec<Frame> {
        let mut pieces = FrameReader::new(text, Reading { framing, max_line });
        let mut all = Vec::new();
        loop {
            let piece = pieces.next().await.unwrap();
            let last = !matches!(piece, Frame::Whole(_));
            all.push(piece);
            if last {
                return all;
            }
        }
    }

    fn whole(text: &'static [u8]) -> Frame {
        Frame::Whole(Bytes::from_static(text))
    }

    #[tokio::test]
    async fn lines_end_at_newlines_and_at_the_end() {
        let all = read_all(b"a\n\nb\r\xff\nlast", Framing::Lines, 10).await;
        assert_eq!(
            all,
            [
                whole(b"a"),
                whole(b""),
                whole(b"b\r\xff"),
                whole(b"last"),
                Frame::End
            ]
        );
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_off() {
        let all = read_all(b"ab\n123456", Framing::Lines, 4).await;
        assert_eq!(all, [whole(b"ab"), Frame::TooLong]);
    }

    #[tokio::test]
    async fn what_is_skipped_is_all_that_is_there() {
        let (from, mut to) = io::pipe().unwrap();
        let from = tokio::net::unix::pipe::Receiver::from_owned_fd(from.into()).unwrap();
        let reading = Reading {
            framing: Framing::Lines,
            max_line: 10,
        };
        let mut pieces = FrameReader::new(from, reading);
        let mut write = |text: &[u8]| to.write_all(text).unwrap();
        assert!(pieces.skip(), "nothing is there");
        write(b"a\nb\n");
        assert_eq!(pieces.next().await.unwrap(), whole(b"a"));
        write(b"c\n");
        assert!(pieces.skip());
        write(b"d\n");
        assert_eq!(pieces.next().await.unwrap(), whole(b"d"));
        write(b"e");
        assert!(!pieces.skip(), "it stopped within a line");
        write(b"f\n");
        drop(to);
        assert!(!pieces.skip(), "there will be no more");
    }

    #[tokio::test]
    async fn bytes_come_as_they_are() {
        let all = read_all(b"a\nb", Framing::Bytes, 1).await;
        assert_eq!(all, [whole(b"a\nb"), Frame::End]);
    }
}
