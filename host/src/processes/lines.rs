//! Cuts a process's output into pieces, within bounds.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Reading;
use crate::config::Framing;

/// What is read at once, in bytes: a pipe holds 64 KiB.
const READ_SIZE: usize = 64 << 10;

/// A reader of lines, or of whatever comes.
pub(super) struct Pieces<R> {
    from: R,
    reading: Reading,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline.
    searched: usize,
    ended: bool,
}

/// What a read brought.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// A line without its newline, or bytes as they were read.
    Whole(Bytes),
    /// A line went on beyond the bound.
    TooLong,
    /// There is no more.
    End,
}

impl<R: AsyncRead + Unpin> Pieces<R> {
    pub(super) fn new(from: R, reading: Reading) -> Self {
        Pieces {
            from,
            reading,
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
        }
    }

    /// A piece that was already read.
    pub(super) fn buffered(&mut self) -> Option<Piece> {
        if self.reading.framing == Framing::Bytes {
            return (!self.buffer.is_empty()).then(|| Piece::Whole(self.buffer.split().freeze()));
        }
        match memchr(&self.buffer[self.searched..]) {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                Some(Piece::Whole(line))
            }
            None => {
                self.searched = self.buffer.len();
                (self.searched > self.reading.max_line).then_some(Piece::TooLong)
            }
        }
    }

    /// Whether nothing of a line was read whose end is still to come.
    pub(super) fn is_between_lines(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next piece. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Piece> {
        loop {
            if let Some(piece) = self.buffered() {
                return Ok(piece);
            }
            if self.ended {
                return Ok(Piece::End);
            }
            self.buffer.reserve(READ_SIZE);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
                // The last line may lack its newline.
                self.searched = 0;
                if !self.buffer.is_empty() {
                    return Ok(Piece::Whole(self.buffer.split().freeze()));
                }
            }
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(text: &'static [u8], framing: Framing, max_line: usize) -> Vec<Piece> {
        let mut pieces = Pieces::new(text, Reading { framing, max_line });
        let mut all = Vec::new();
        loop {
            let piece = pieces.next().await.unwrap();
            let last = !matches!(piece, Piece::Whole(_));
            all.push(piece);
            if last {
                return all;
            }
        }
    }

    fn whole(text: &'static [u8]) -> Piece {
        Piece::Whole(Bytes::from_static(text))
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
                Piece::End
            ]
        );
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_off() {
        let all = read_all(b"ab\n123456", Framing::Lines, 4).await;
        assert_eq!(all, [whole(b"ab"), Piece::TooLong]);
    }

    #[tokio::test]
    async fn bytes_come_as_they_are() {
        let all = read_all(b"a\nb", Framing::Bytes, 1).await;
        assert_eq!(all, [whole(b"a\nb"), Piece::End]);
    }
}
