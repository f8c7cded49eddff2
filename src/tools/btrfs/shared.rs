//! One stream of `btrfs send` for several chains: `share-stream` takes it, and hands it to a `take-shared` in each of them,
//! which stands where the sender would.
//!
//! What is handed on is in pieces with their length before them, and an empty one tells the end. `share-stream` sees the end
//! of its input only when the sender has ended well. So whoever has taken the empty piece has taken all that was sent, and
//! everybody else knows that he has not. While the sender is at work and says nothing, [`ALIVE`] tells it: those who take the
//! stream do not see what it does, and would be taken for stalled. In the same way `share-stream` tells by [`HELD_UP`] that
//! it waits for them: they may be at work for long without reading, and whether they stand still their own chains judge.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::{CommandSpec, Input, Judge, PipeEnd, Tool};
use crate::tools::told;

/// The verb of ours that shares a stream.
pub const SHARE: &str = "share-stream";

/// The verb of ours that takes a stream that is shared.
pub const TAKE: &str = "take-shared";

/// The longest piece, in bytes.
const LONGEST: usize = 1 << 20;

/// What stands where a length would, and says that there is more to come.
pub const ALIVE: [u8; 4] = [0xff; 4];

/// So many times in its stall limit those who take a stream hear of the sender that says nothing, and whoever looks after
/// the sender hears that it waits for them.
const HEARD: u32 = 8;

/// Takes a stream, and hands it to whoever reads at the other ends of these pipes. One that takes nothing for so long
/// while others wait gets no more.
pub fn share(to: Vec<PipeEnd>, patience: Duration, stall_limit: Duration) -> CommandSpec {
    let [patience, alive] = [patience, stall_limit / HEARD].map(|it| it.as_millis().to_string());
    let mut spec = CommandSpec::lines(Tool::Own, stall_limit).args([
        SHARE,
        "--patience",
        &patience,
        "--alive",
        &alive,
    ]);
    // What it says of a sender that does nothing is no movement.
    spec.repeats_itself = true;
    spec.moves = Some(Judge(|line| line == HELD_UP.as_bytes()));
    spec.passed = to;
    spec
}

/// Takes what is shared from the other end of this pipe, in the place of what would send it.
pub fn take(from: PipeEnd, send: &CommandSpec) -> CommandSpec {
    let mut spec = CommandSpec {
        stall_limit: send.stall_limit,
        ..CommandSpec::lines(Tool::Own, Duration::MAX)
    };
    spec.args = vec![TAKE.into()];
    spec.input = Input::Pipe(from);
    spec
}

/// What [`share`] tells of one that gets no more: which of its pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Its place among those that were given.
    pub dropped: usize,
}

impl Dropped {
    /// Reads a line, if it tells that.
    pub fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// What [`share`] tells again and again while somebody lacks something of what is handed on.
pub const HELD_UP: &str = r#"{"held-up":true}"#;

/// What [`take`] tells when the stream ended before its end.
pub const TORN: &str = r#"{"torn":true}"#;

/// Whether a [`take`] has told [`TORN`] among other lines.
pub fn is_torn(stderr: &[u8]) -> bool {
    told::has(stderr, TORN)
}

/// Puts a piece together, in the place of the one before. Nothing is the end.
pub fn piece(of: &[u8], into: &mut Vec<u8>) {
    debug_assert!(of.len() <= LONGEST);
    into.clear();
    into.extend_from_slice(&(of.len() as u32).to_be_bytes());
    into.extend_from_slice(of);
}

/// Reads the next piece; `None` at the end.
///
/// # Errors
/// When it cannot be read: [`ErrorKind::UnexpectedEof`] when nothing more comes.
pub fn next_piece<'b>(
    from: &mut impl Read,
    buffer: &'b mut Vec<u8>,
) -> io::Result<Option<&'b [u8]>> {
    let mut length = ALIVE;
    while length == ALIVE {
        from.read_exact(&mut length)?;
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::new(ErrorKind::InvalidData, "a piece is too long"));
    }
    buffer.resize(length, 0);
    from.read_exact(buffer)?;
    Ok((length > 0).then_some(&buffer[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_empty_piece_is_the_end() {
        let (mut whole, mut one, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        for bytes in [&b"some"[..], b"more", b""] {
            piece(bytes, &mut one);
            whole.extend_from_slice(&ALIVE);
            whole.extend_from_slice(&one);
        }
        let mut read = |bytes: &[u8]| {
            let (mut from, mut got) = (bytes, Vec::new());
            loop {
                match next_piece(&mut from, &mut buffer) {
                    Ok(Some(piece)) => got.extend_from_slice(piece),
                    Ok(None) => break Ok((got, from.len())),
                    Err(error) => break Err(error.kind()),
                }
            }
        };
        assert_eq!(read(&whole), Ok((b"somemore".to_vec(), 0)));
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), Err(ErrorKind::UnexpectedEof), "{cut}");
        }
        assert_eq!(read(&[0xff; 8]), Err(ErrorKind::UnexpectedEof));
        assert_eq!(read(&[0x7f; 8]), Err(ErrorKind::InvalidData));
    }

    #[test]
    fn what_is_told_is_read() {
        let line = serde_json::to_string(&Dropped { dropped: 1 }).unwrap();
        assert_eq!(Dropped::read(line.as_bytes()), Some(Dropped { dropped: 1 }));
        assert_eq!(Dropped::read(TORN.as_bytes()), None);
        assert!(is_torn(format!("a\n{TORN}\nb").as_bytes()));
        assert!(!is_torn(line.as_bytes()));
        let Judge(moves) = share(Vec::new(), Duration::ZERO, Duration::ZERO).moves.unwrap();
        assert!(moves(HELD_UP.as_bytes()) && !moves(line.as_bytes()));
        assert_eq!(Dropped::read(HELD_UP.as_bytes()), None);
    }
}
